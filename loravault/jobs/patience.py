"""What a note may have to wait for before anything is decided about it, in one place.

Whatever waits is not recorded: its box stays ticked, and it is considered again when the waiting is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from loravault.errors import UserError
from loravault.jobs.absent import Absent, LookFirst
from loravault.jobs.basesfirst import BasesFirst, StillComing
from loravault.jobs.cardsfirst import CardsFirst
from loravault.jobs.context import Context
from loravault.jobs.planning import Plan
from loravault.jobs.reading import CardReader, NoteReader


class Patience:
    """The notes that wait: for cards that are being read, for a look at the library, for a base."""

    def __init__(self, ctx: Context, cards: CardReader | None, reader: NoteReader) -> None:
        self.cards = CardsFirst(ctx, cards, reader)
        self.absent = Absent(ctx.looks, ctx.steady)
        self._bases = BasesFirst(ctx)
        self._looks = ctx.looks
        self._all = (self.cards, self.absent, self._bases)

    def check(self, rel: str, plan: Plan) -> None:
        """Raises `LookFirst` if this plan may come out otherwise in a moment."""
        self.absent.check(rel, plan)
        self._bases.check(rel, plan)

    def at_once(self, rel: str, start: Callable[[], str]) -> str:
        """Start a note for a command: the look at the library is taken now. Raises `UserError` if it is too early."""
        try:
            try:
                return start()
            except StillComing:
                raise
            except LookFirst:
                self._looks.now()
                self.absent.looked(rel)
                return start()
        except StillComing as wait:
            raise UserError(f"{rel} cannot run yet: {wait.message} Give the command again when it is there.") from wait

    def due(self) -> Iterator[str]:
        """Notes to consider again."""
        return chain.from_iterable(one.due() for one in self._all)

    def gone(self, rel: str) -> None:
        """The note is not there any more."""
        for one in self._all:
            one.gone(rel)

    @property
    def notes(self) -> set[str]:
        """Those that wait."""
        return set().union(*(one.notes for one in self._all))
