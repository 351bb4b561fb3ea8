"""A base or pictures that are still being copied are waited for: half of them makes nothing good, and a refusal would
be for good.

Nobody watches the folders with bases, a copy takes minutes, and a sync tool brings a note before the pictures that it
shows; the notes that need them are looked at again and again until all has come to rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from loravault.jobs.context import Context
from loravault.jobs.planning import Plan
from loravault.library.basefiles import last_changes
from loravault.requests.model import Refusal, Resolved

#: A copy that takes longer than this is not waited for (seconds).
COPYING_S = 1800.0
#: Pictures of which nothing is there are not waited for longer (seconds): perhaps their names are wrong.
AWAITED_S = 10.0
#: Whether all has come to rest is asked this often (seconds).
ASK_S = 1.0
#: Files come one after the other: so many read gates without a byte are rest.
GATES = 2


class Coming(NamedTuple):
    """Something that the note needs is still being copied."""

    #: One sentence.
    message: str
    #: Something of it is there.
    is_there: bool


@dataclass
class _Waiting:
    since: float
    again: float
    #: It was found to wait still when it was last asked about.
    still: bool = True


class FilesFirst:
    """The notes that wait for files."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._waiting: dict[str, _Waiting] = {}

    def coming(self, rel: str, plan: Plan) -> Coming | None:
        """What of the files that this plan is about, or may be lacking, is coming; the note is remembered then."""
        now = self._ctx.steady()
        waiting = self._waiting.setdefault(rel, _Waiting(now, now))
        message = self._coming(plan, now - waiting.since)
        if message is None:
            self.drop(rel)
            return None
        waiting.again, waiting.still = now + min(ASK_S, GATES * self._ctx.config.read_quiet_s), True
        self._ctx.troubles["coming"] = f"{message} {rel} waits for it."
        return Coming(message, is_there=not self._awaits(plan, now - waiting.since))

    def due(self) -> Iterator[str]:
        """Notes to ask again about. One that does not ask for such a thing any more is forgotten."""
        for rel, waiting in list(self._waiting.items()):
            if self._ctx.steady() >= waiting.again:
                waiting.again, waiting.still = self._ctx.steady() + ASK_S, False
                yield rel
                if not waiting.still:
                    self.drop(rel)

    def drop(self, rel: str) -> None:
        """The note is not there any more, or waits no more."""
        self._waiting.pop(rel, None)
        if not self._waiting:
            self._ctx.troubles.pop("coming", None)

    def _coming(self, plan: Plan, waited: float) -> str | None:
        """What this plan needs and is not at rest, as a sentence."""
        if self._awaits(plan, waited):
            return f"{plan.awaited[0]} is not in the vault yet."
        outcomes = [item.outcome for item in plan.items]
        places = {*plan.places, *(one.base.path for one in outcomes if isinstance(one, Resolved))}
        if any(isinstance(one, Refusal) and one.no_base for one in outcomes):
            places |= {str(folder) for folder in self._ctx.config.bases}
        name = self._changing(sorted(places)) if waited < COPYING_S else None
        return None if name is None else f"{name} is still being copied."

    @staticmethod
    def _awaits(plan: Plan, waited: float) -> bool:
        return bool(plan.awaited) and waited < AWAITED_S

    def _changing(self, places: Iterable[str]) -> str | None:
        """What changed a moment ago at these places."""
        now, rest = self._ctx.now(), GATES * self._ctx.config.read_quiet_s
        for place in places:
            for name, changed in last_changes(place):
                if 0 <= now - changed < rest:  # what is from the future says nothing
                    return name
        return None
