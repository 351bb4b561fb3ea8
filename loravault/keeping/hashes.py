"""Has every adapter file hashed in the background, what is used first, and puts the results into the index."""

from __future__ import annotations

from collections.abc import Callable

from sqlmodel import Session

from loravault.index import adapters
from loravault.index.library import weight_ids
from loravault.jobs.context import Context, log
from loravault.library.hashing import BackgroundHasher, HashProgress, HashResult, HashWish, Priority
from loravault.pages.cardfields import CardHashes

#: While much changes the list of what is to be hashed is made anew at most this often (seconds).
LIST_S = 2.0


class HashKeeper:
    """Call `library_changed` when files came or changed, and `step` in every tick.

    Before every note was read nothing is hashed: a card may tell the hashes, and then the file need not be read.
    """

    def __init__(
        self,
        ctx: Context,
        *,
        wake: Callable[[], None] = lambda: None,
        on_changed: Callable[[set[str]], None] = lambda _weight_ids: None,
        notes_read: Callable[[], bool] = lambda: True,
        hasher: BackgroundHasher | None = None,
    ) -> None:
        self._ctx = ctx
        self._on_changed = on_changed
        self._notes_read = notes_read
        self._read_all = False
        #: What cards say of files that the index has not hashed, until those files are known.
        self._claims: dict[str, CardHashes] = {}
        self._hasher = hasher or BackgroundHasher(wake)
        self._stale = False
        self._listed_at = float("-inf")

    def library_changed(self, _weight_ids: set[str] | None = None) -> None:
        """Files may lack hashes."""
        self._stale = self._ctx.config.hashing

    def claimed(self, hashes: CardHashes) -> None:
        """A card that is new to the index says this of its file. Then the index is new, too, or the card was moved."""
        self._claims[hashes.weight_id] = hashes
        self.library_changed()

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
        self._read_all = self._read_all or self._notes_read()
        if self._stale and self._read_all and self._ctx.steady() - self._listed_at >= LIST_S:
            self._stale, self._listed_at = False, self._ctx.steady()
            self._trust()
            self._hasher.want(self._wishes())

    def close(self) -> None:
        """Leave; what is half read is read again another time. Results that are ready are kept."""
        self._hasher.stop()
        self._store(self._hasher.take_results())

    def _trust(self) -> None:
        """Take over what cards say of files that were not hashed; of files that are not known yet, later."""
        if not self._claims:
            return
        with self._ctx.index.session() as session:
            known = set(weight_ids(session))
            claims = [self._claims.pop(weight_id) for weight_id in sorted(self._claims.keys() & known)]
            changed = {one.weight_id for one in claims if _believed(session, one)}
        if changed:
            self._on_changed(changed)

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


def _believed(session: Session, told: CardHashes) -> bool:
    hashes = told.sha256, told.autov2, told.autov3
    return adapters.trust_hashes(session, told.weight_id, told.file, hashes, told.size_mb)
