"""What a note may have to wait for before anything is decided about it, in one place.

Whatever waits is not recorded: its box stays ticked, and it is considered again when the waiting is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import chain

from loravault.errors import UserError
from loravault.jobs.absent import Absent, LookFirst
from loravault.jobs.cardsfirst import CardsFirst
from loravault.jobs.context import Context
from loravault.jobs.filesfirst import GATES, FilesFirst, StillComing
from loravault.jobs.planning import Plan
from loravault.jobs.reading import CardReader, NoteReader

#: A command waits so much longer than it takes a file to come to rest, and looks so often (seconds).
SLACK_S, POLL_S = 0.5, 0.05


class Patience:
    """The notes that wait: for cards that are being read, for a look at the library, for files."""

    def __init__(self, ctx: Context, cards: CardReader | None, reader: NoteReader) -> None:
        self.cards = CardsFirst(ctx, cards, reader)
        self.absent = Absent(ctx.looks, ctx.steady)
        self._files = FilesFirst(ctx)
        self._ctx = ctx
        self._all = (self.cards, self.absent, self._files)

    def check(self, rel: str, plan: Plan) -> None:
        """Raises `LookFirst` if this plan may come out otherwise in a moment."""
        self.absent.check(rel, plan)
        self._files.check(rel, plan)

    def at_once(self, rel: str, start: Callable[[], str]) -> str:
        """Start a note for a command: the look at the library is taken now, and what was only just saved comes to rest.

        Raises `UserError` if more than that is to be waited for.
        """
        give_up = time.monotonic() + GATES * self._ctx.config.read_quiet_s + SLACK_S
        while True:
            try:
                return start()
            except StillComing as wait:
                if wait.is_there and time.monotonic() > give_up:
                    raise UserError(
                        f"{rel} cannot run yet: {wait.message} Give the command again when it is there."
                    ) from wait
                if wait.is_there:
                    time.sleep(POLL_S)
                else:
                    self._files.expect_nothing(rel)
            except LookFirst:
                self._ctx.looks.now()
                self.absent.looked(rel)

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
