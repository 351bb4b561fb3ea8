"""Cards that are gone: which of an earlier run nobody has shown, and which their owner has deleted."""

from __future__ import annotations

from collections.abc import Iterable

from loravault.jobs.context import Context, log
from loravault.keeping.cardmemory import CardMemory
from loravault.keeping.cardshelf import CardShelf
from loravault.vault.walk import stat_key


class GoneCards:
    """Never acts on a deletion at once: a note may have been moved, or a scan may have missed it."""

    def __init__(self, ctx: Context, memory: CardMemory, known: Iterable[str]) -> None:
        """`known`: the paths of all cards of an earlier run."""
        self._ctx = ctx
        self._memory = memory
        #: Cards that nobody has shown us yet -> when they were first found to be gone.
        self._unseen: dict[str, float | None] = dict.fromkeys(known)
        #: Adapters whose last card has gone; the note may have been moved.
        self._bereft: set[str] = set()

    def is_there(self, path: str) -> None:
        """The note was shown to us, or somebody told that it is gone."""
        self._unseen.pop(path, None)

    def bereft(self, weight_id: str) -> None:
        """The last card of an adapter has gone."""
        self._bereft.add(weight_id)

    def unseen_for_long(self) -> list[str]:
        """Cards of an earlier run whose notes no scan has shown: looked for twice, a rescan apart."""
        if not self._unseen or not self._ctx.config.vault.is_dir() or "vault" in self._ctx.troubles:
            return []
        now, found = self._ctx.steady(), []
        for path, since in list(self._unseen.items()):
            if stat_key(self._ctx.path(path)) is not None:
                del self._unseen[path]  # it is there, only in a place that is not looked at
            elif since is None:
                self._unseen[path] = now
            elif now - since >= self._ctx.config.rescan_s:
                found.append(path)
        return found

    def bury(self, shelf: CardShelf) -> None:
        """Remember that cards were deleted. All notes are read: a card that was only moved is back by now."""
        deleted = {weight_id for weight_id in self._bereft if not shelf.has(weight_id)}
        self._bereft = set()
        if not deleted:
            return
        self._memory.deleted(deleted)
        log.info("%d card(s) were deleted; they stay deleted until `loravault recreate`", len(deleted))
        if len(deleted) >= 10 and len(deleted) > len(shelf):
            self._ctx.troubles["cards.deleted"] = (
                f"{len(deleted)} cards were deleted at once. They stay deleted; "
                "`loravault recreate --all` makes them anew."
            )
