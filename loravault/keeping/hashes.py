"""Has every adapter file hashed in the background, what is used first, and puts the results into the index."""

from __future__ import annotations

from collections.abc import Callable

from loravault.index import adapters
from loravault.jobs.context import Context, log
from loravault.library.hashing import BackgroundHasher, HashProgress, HashResult, HashWish, Priority

#: While much changes the list of what is to be hashed is made anew at most this often (seconds).
LIST_S = 2.0


class HashKeeper:
    """Call `library_changed` when files came or changed, and `step` in every tick."""

    def __init__(
        self,
        ctx: Context,
        *,
        wake: Callable[[], None] = lambda: None,
        on_changed: Callable[[set[str]], None] = lambda _weight_ids: None,
        hasher: BackgroundHasher | None = None,
    ) -> None:
        self._ctx = ctx
        self._on_changed = on_changed
        self._hasher = hasher or BackgroundHasher(wake)
        self._stale = False
        self._listed_at = float("-inf")

    def library_changed(self, _weight_ids: set[str] | None = None) -> None:
        """Files may lack hashes."""
        self._stale = self._ctx.config.hashing

    @property
    def progress(self) -> HashProgress:
        """How far it is, for the dashboard."""
        return self._hasher.progress()

    def step(self, *, working: bool) -> None:
        """Store what is ready and say what is wanted. `working`: a job has the disk, so the hashing rests."""
        results = self._hasher.take_results()
        if results:
            self._store(results)
        if working:
            self._hasher.pause()
        else:
            self._hasher.resume()
        if self._stale and self._ctx.steady() - self._listed_at >= LIST_S:
            self._stale, self._listed_at = False, self._ctx.steady()
            self._hasher.want(self._wishes())

    def close(self) -> None:
        """Leave; what is half read is read again another time. Results that are ready are kept."""
        self._hasher.stop()
        self._store(self._hasher.take_results())

    def _wishes(self) -> list[HashWish]:
        roots = {root.name: root.path for root in self._ctx.config.loras}
        with self._ctx.index.session() as session:
            rows = adapters.without_hashes(session)
        return [
            HashWish(
                row.root,
                row.rel,
                roots[row.root] / row.rel,
                row.size,
                row.mtime_ns,
                Priority.USED if row.used else Priority.NORMAL,
            )
            for row in rows
            if row.root in roots
        ]

    def _store(self, results: list[HashResult]) -> None:
        changed: set[str] = set()
        with self._ctx.index.session() as session:
            for result in results:
                if result.hashes is None:
                    log.info("%s/%s was not hashed: %s", result.root, result.rel, result.problem)
                    continue
                weight_id = adapters.store_file_hashes(
                    session, (result.root, result.rel), (result.size, result.mtime_ns), result.hashes
                )
                changed |= {weight_id} if weight_id else set()
        if changed:
            self._on_changed(changed)
