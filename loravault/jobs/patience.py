"""What a note may have to wait for before anything is decided about it, in one place.

Whatever waits is not recorded as a run: its box stays ticked, and it is considered again when the waiting is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain

from loravault.errors import UserError
from loravault.jobs.absent import Absent
from loravault.jobs.cardsfirst import CardsFirst
from loravault.jobs.context import Context
from loravault.jobs.filesfirst import GATES, FilesFirst
from loravault.jobs.planning import Plan
from loravault.jobs.reading import CardReader, NoteReader

#: A command waits so much longer than it takes a file to come to rest, and looks so often (seconds).
SLACK_S, POLL_S = 0.5, 0.05


class Patience:
    """The notes that wait: for cards that are being read, for a look at the library, for files."""

    def __init__(self, ctx: Context, cards: CardReader | None, reader: NoteReader) -> None:
        self._ctx = ctx
        self.cards = CardsFirst(ctx, cards, reader)
        self._absent = Absent(ctx.looks, ctx.steady)
        self._files = FilesFirst(ctx)
        self._all = (self.cards, self._absent, self._files)
        #: Notes that a command is to run.
        self._commanded = Absent(ctx.looks, ctx.steady)

    def holds(self, rel: str, plan: Plan, *, ticked: bool = False) -> bool:
        """Whether this plan may come out otherwise in a moment; the note is remembered then."""
        waits = self._absent.holds(rel, plan.absent, ticked=ticked)
        return self._files.coming(rel, plan) is not None or waits

    def holds_command(self, plans: Mapping[str, Plan]) -> bool:
        """Whether notes that a command is to run, by path, name LoRAs that a look at the library may find yet."""
        waiting = [rel for rel, plan in plans.items() if self._commanded.holds(rel, plan.absent)]
        for rel in () if waiting else plans:
            self._commanded.drop(rel)
        return bool(waiting)

    def at_once(self, rel: str, plan: Callable[[], Plan]) -> None:
        """A command is to run this note now: what was only just saved comes to rest.

        Raises `UserError` if more than that is to be waited for.
        """
        give_up = time.monotonic() + GATES * self._ctx.config.read_quiet_s + SLACK_S
        while (coming := self._files.coming(rel, plan())) is not None and coming.is_there:
            if time.monotonic() > give_up:
                self._files.drop(rel)
                raise UserError(f"{rel} cannot run yet: {coming.message} Give the command again when it is there.")
            time.sleep(POLL_S)
        self._files.drop(rel)

    def due(self) -> Iterator[str]:
        """Notes to consider again."""
        if said := self._absent.told():
            self._ctx.troubles["absent"] = said
        else:
            self._ctx.troubles.pop("absent", None)
        return chain.from_iterable(one.due() for one in self._all)

    def drop(self, rel: str) -> None:
        """It was decided about, or is not there any more."""
        for one in self._all:
            one.drop(rel)

    @property
    def ticked(self) -> set[str]:
        """Ticked notes that wait for a look at the library."""
        return self._absent.ticked
