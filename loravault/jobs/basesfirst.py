"""A base that is still being copied is waited for: half of it makes no picture, and a refusal would be for good.

Nobody watches the folders with bases, and a copy takes minutes; the notes that ask for it are looked at again and
again until it has come to rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from loravault.jobs.absent import LookFirst
from loravault.jobs.context import Context
from loravault.jobs.planning import Plan
from loravault.library.basefiles import last_changes
from loravault.requests.model import Refusal, Resolved

#: A copy that takes longer than this is not waited for (seconds).
COPYING_S = 1800.0
#: Whether it has come to rest is asked this often (seconds).
ASK_S = 1.0
#: Files come one after the other: so many read gates without a byte are rest.
GATES = 2


class StillComing(LookFirst):
    """A base that the note asks for is still being copied."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        #: One sentence.
        self.message = message


@dataclass
class _Waiting:
    since: float
    again: float
    #: It was found to wait still when it was last asked about.
    still: bool = True


class BasesFirst:
    """The notes that wait for a base."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._waiting: dict[str, _Waiting] = {}

    def check(self, rel: str, plan: Plan) -> None:
        """Raises `StillComing` if a base that this plan is for, or may be lacking, changes on its disk."""
        coming = self._coming(plan)
        now = self._ctx.steady()
        waiting = self._waiting.setdefault(rel, _Waiting(now, now))
        if coming is None or now - waiting.since >= COPYING_S:
            self.gone(rel)
            return
        waiting.again, waiting.still = now + ASK_S, True
        message = f"{coming} in the folders with bases is still being copied."
        self._ctx.troubles["bases"] = f"{message} Notes that need a base wait until it is there, {rel} among them."
        raise StillComing(message)

    def due(self) -> Iterator[str]:
        """Notes to ask again about. One that does not ask for a base any more is forgotten."""
        for rel, waiting in list(self._waiting.items()):
            if self._ctx.steady() >= waiting.again:
                waiting.again, waiting.still = self._ctx.steady() + ASK_S, False
                yield rel
                if not waiting.still:
                    self.gone(rel)

    def gone(self, rel: str) -> None:
        """The note is not there any more, or waits no more."""
        self._waiting.pop(rel, None)
        if not self._waiting:
            self._ctx.troubles.pop("bases", None)

    @property
    def notes(self) -> set[str]:
        """Those that wait."""
        return set(self._waiting)

    def _coming(self, plan: Plan) -> str | None:
        """What changed a moment ago of all that this plan needs."""
        outcomes = [item.outcome for item in plan.items]
        places = {one.base.path for one in outcomes if isinstance(one, Resolved)}
        if plan.training is not None:
            places.add(plan.training.spec.base.path)
        if any(isinstance(one, Refusal) and one.no_base for one in outcomes):
            places |= {str(folder) for folder in self._ctx.config.bases}
        return self._changing(sorted(places))

    def _changing(self, places: Iterable[str]) -> str | None:
        now, rest = self._ctx.now(), GATES * self._ctx.config.read_quiet_s
        for place in places:
            for name, changed in last_changes(place):
                if 0 <= now - changed < rest:  # what is from the future says nothing
                    return name
        return None
