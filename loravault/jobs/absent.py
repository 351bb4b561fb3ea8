"""Before anybody is told that there is no such LoRA, the library is looked at: its file may just have come.

A new LoRA is unread while a big library is read for the first time, while its file still grows, or where a drive tells
of no changes. A note that asks for it in that moment waits for a whole look instead of being refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from loravault.jobs.planning import Plan

#: A file that grows for longer than this is not waited for (seconds).
GROWING_S = 10.0


class LookFirst(Exception):  # noqa: N818 - it is no error
    """Nothing is decided about the note, and nothing of it recorded, until the library was looked at."""


@dataclass
class LibraryLooks:
    """How far the looks at the library are. Whoever looks counts here."""

    #: Whole looks that are over.
    finished: int = 0
    #: The last one left out files that were still growing.
    unsettled: bool = False
    #: Asks for a whole look soon.
    ask: Callable[[], None] = field(default=lambda: None)
    #: Takes a whole look, and comes back when it is over.
    now: Callable[[], object] = field(default=lambda: None)
    #: Takes a look that leaves what is new and does not fit into its time for later.
    briefly: Callable[[], object] = field(default=lambda: None)


@dataclass
class _Waiting:
    absent: tuple[str, ...]
    #: Whole looks that were over when it began to wait.
    looks: int
    since: float
    #: Whoever asks for the note has looked by himself.
    over: bool = False


class Absent:
    """The notes that wait for a look; `steady` is a clock in seconds."""

    def __init__(self, looks: LibraryLooks, steady: Callable[[], float]) -> None:
        self._looks = looks
        self._steady = steady
        self._waiting: dict[str, _Waiting] = {}

    def check(self, rel: str, plan: Plan) -> None:
        """Raises `LookFirst` if LoRAs that this plan lacks may be found yet."""
        waiting = self._waiting.get(rel)
        if not plan.absent or (waiting is not None and waiting.absent == plan.absent and self._is_over(waiting)):
            self._waiting.pop(rel, None)
            return
        if waiting is None or waiting.absent != plan.absent:
            self._waiting[rel] = _Waiting(plan.absent, self._looks.finished, self._steady())
            self._looks.ask()
        raise LookFirst

    def due(self) -> Iterator[str]:
        """Notes that can be decided about now. One is forgotten when the next is asked for: an error loses none."""
        for rel, waiting in list(self._waiting.items()):
            if self._is_over(waiting):
                yield rel
                if self._waiting.get(rel) is waiting:
                    del self._waiting[rel]

    def looked(self, rel: str) -> None:
        """Whoever asks for this note has looked by himself."""
        if rel in self._waiting:
            self._waiting[rel].over = True

    def gone(self, rel: str) -> None:
        """The note is not there any more."""
        self._waiting.pop(rel, None)

    @property
    def notes(self) -> set[str]:
        """Those that wait."""
        return set(self._waiting)

    def _is_over(self, waiting: _Waiting) -> bool:
        if waiting.over:
            return True
        if self._looks.finished <= waiting.looks:
            return False
        return not self._looks.unsettled or self._steady() - waiting.since >= GROWING_S
