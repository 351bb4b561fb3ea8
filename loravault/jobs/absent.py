"""Before anybody is told that there is no such LoRA, the library is looked at: its file may just have come.

A new LoRA is unread while a big library is read for the first time, while its file still grows, or where a drive tells
of no changes. A note that asks for it in that moment waits for a whole look instead of being refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

#: A file that grows for longer than this is not waited for (seconds).
GROWING_S = 10.0
#: Nobody waits for longer, whatever keeps the look from its end (seconds).
LONGEST_S = 600.0
#: Who waits for longer is told on the dashboard (seconds).
TOLD_S = 3.0


@dataclass
class LibraryLooks:
    """How far the looks at the library are. Whoever looks counts here."""

    #: Whole looks that are over, with all that follows from them.
    finished: int = 0
    #: The last one left out files that were still growing.
    unsettled: bool = False
    #: Asks for a whole look soon.
    ask: Callable[[], None] = field(default=lambda: None)
    #: Takes a look that leaves what is new and does not fit into its time for later.
    briefly: Callable[[], object] = field(default=lambda: None)


@dataclass
class _Waiting:
    #: Names that were not found, now or earlier in this waiting.
    names: set[str]
    #: Whole looks that were over when the last of them came up.
    looks: int
    #: When it began to wait.
    since: float
    #: A box was ticked: it can be cancelled.
    ticked: bool


class Absent:
    """Who waits for a look, by the path of the note; `steady` is a clock in seconds."""

    def __init__(self, looks: LibraryLooks, steady: Callable[[], float]) -> None:
        self._looks = looks
        self._steady = steady
        self._waiting: dict[str, _Waiting] = {}

    def holds(self, rel: str, names: Collection[str], *, ticked: bool = False) -> bool:
        """Whether LoRAs of these names, which are not there, may be found yet; the note is remembered then.

        Once it may not, that stays so until `drop`.
        """
        waiting = self._waiting.get(rel)
        if not names:
            return False
        if waiting is None:
            waiting = self._waiting[rel] = _Waiting(set(), 0, self._steady(), ticked)
        if not waiting.names.issuperset(names):
            waiting.names.update(names)
            waiting.looks = self._looks.finished
            self._looks.ask()
        waiting.ticked = ticked
        return not self._is_over(waiting)

    def drop(self, rel: str) -> None:
        """It was decided about, or is not there any more."""
        self._waiting.pop(rel, None)

    def due(self) -> Iterator[str]:
        """Notes that can be decided about now. One is forgotten when the next is asked for."""
        for rel, waiting in list(self._waiting.items()):
            if self._is_over(waiting):
                yield rel
                if self._waiting.get(rel) is waiting and self._is_over(waiting):
                    del self._waiting[rel]

    @property
    def ticked(self) -> set[str]:
        """Ticked notes that wait."""
        return {rel for rel, waiting in self._waiting.items() if waiting.ticked}

    def told(self) -> str | None:
        """Who has been waiting for a while, and for what, in a sentence."""
        now = self._steady()
        long = {rel: one for rel, one in sorted(self._waiting.items()) if now - one.since >= TOLD_S}
        if not long:
            return None
        rel, waiting = next(iter(long.items()))
        more = f" {len(long) - 1} more wait." if len(long) > 1 else ""
        return f'{rel} waits until all LoRAs were looked at: no "{min(waiting.names)}" was found so far.{more}'

    def _is_over(self, waiting: _Waiting) -> bool:
        waited = self._steady() - waiting.since
        if self._looks.finished <= waiting.looks:
            return waited >= LONGEST_S
        return not self._looks.unsettled or waited >= GROWING_S
