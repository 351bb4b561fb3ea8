"""Which notes need a look. Events are hints; a rescan is the truth: without a watcher the same notes come, later."""

from __future__ import annotations

from collections.abc import Iterator

from loravault.jobs.context import Context
from loravault.vault.walk import StatKey, walk_notes


class NoteFeed:
    """Remembers what every note looked like, and hands out those that changed and have come to rest."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._known: dict[str, StatKey] = {}
        self._pending: set[str] = set()
        self._absent_once: set[str] = set()
        self._scanned = False

    @property
    def waiting(self) -> bool:
        """Whether some note is still coming to rest."""
        return bool(self._pending)

    def hint(self, rel: str) -> None:
        """Somebody says that this note changed."""
        if not self._ctx.skip_folder(rel.rpartition("/")[0]):
            self._pending.add(rel)

    @property
    def first_look_is_over(self) -> bool:
        """Whether every note of the first scan was handed out."""
        return self._scanned and not self._pending

    def look_again(self, rel: str) -> None:
        """Hand this note out once more although it did not change since it was last read."""
        self._known.pop(rel, None)
        self._pending.add(rel)

    def rescan(self) -> list[str]:
        """Compare every note with what is remembered. Returns the notes that two scans in a row did not find."""
        ctx = self._ctx
        if not ctx.config.vault.is_dir():
            ctx.troubles["vault"] = "The vault is not there; nothing is changed until it is back."
            return []
        self._scanned = True
        present = {seen.rel: seen.key for seen in walk_notes(ctx.config.vault, ctx.skip_folder)}
        if not present and len(self._known) > 3:
            ctx.troubles["vault"] = "The vault is suddenly empty; nothing is changed until its notes are back."
            return []
        ctx.troubles.pop("vault", None)
        self._pending.update(rel for rel, key in present.items() if self._known.get(rel) != key)
        absent = self._known.keys() - present.keys()
        gone = sorted(absent & self._absent_once)
        self._absent_once = set(absent) - set(gone)
        for rel in gone:
            self._known.pop(rel, None)
            self._ctx.settle.forget(rel)
        return gone

    def ready(self) -> Iterator[str]:
        """Changed notes that have been quiet for the read gate, one at a time, once per change.

        A note counts as seen when the next one is asked for: if the caller fails with it, it comes again.
        """
        ctx = self._ctx
        for rel in sorted(self._pending):
            key = ctx.observe(rel)
            if key is None or self._known.get(rel) == key:
                self._pending.discard(rel)
            elif ctx.quiet_for(rel, key) >= ctx.config.read_quiet_s:
                yield rel
                self._pending.discard(rel)
                self._known[rel] = key

    def paths(self) -> list[str]:
        """Every note that is known."""
        return list(self._known)
