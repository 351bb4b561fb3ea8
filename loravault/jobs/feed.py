"""Which notes need a look. Events are hints; a rescan is the truth: without a watcher the same notes come, later."""

from __future__ import annotations

from loravault.jobs.context import Context
from loravault.vault.walk import StatKey, walk_notes


class NoteFeed:
    """Remembers what every note looked like, and hands out those that changed and have come to rest."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._known: dict[str, StatKey] = {}
        self._pending: set[str] = set()
        self._absent_once: set[str] = set()

    @property
    def waiting(self) -> bool:
        """Whether some note is still coming to rest."""
        return bool(self._pending)

    def hint(self, rel: str) -> None:
        """Somebody says that this note changed."""
        if not self._ctx.skip_folder(rel.rpartition("/")[0]):
            self._pending.add(rel)

    def look_again(self, rel: str) -> None:
        """Hand this note out once more although it did not change."""
        self._known.pop(rel, None)
        self._pending.add(rel)

    def rescan(self) -> list[str]:
        """Compare every note with what is remembered. Returns the notes that two scans in a row did not find."""
        ctx = self._ctx
        if not ctx.config.vault.is_dir():
            ctx.troubles["vault"] = "The vault is not there; nothing is changed until it is back."
            return []
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

    def ready(self) -> list[str]:
        """Changed notes that have been quiet for the read gate; each is handed out once per change."""
        ctx = self._ctx
        ready = []
        for rel in sorted(self._pending):
            key = ctx.observe(rel)
            if key is None or self._known.get(rel) == key:
                self._pending.discard(rel)
            elif ctx.quiet_for(rel, key) >= ctx.config.read_quiet_s:
                self._pending.discard(rel)
                self._known[rel] = key
                ready.append(rel)
        return ready

    def paths(self) -> list[str]:
        """Every note that is known."""
        return list(self._known)
