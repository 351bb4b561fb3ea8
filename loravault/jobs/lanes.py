"""One worker as the dispatcher sees it: which jobs it holds, what it has loaded, how far it is."""

from __future__ import annotations

from dataclasses import dataclass

from loravault.formats.grouping import MOST_ORDERS, MOST_PICTURES
from loravault.index.tables import JobRow
from loravault.jobs.supervisor import Supervisor

#: Jobs that nobody waits for are claimed only as far ahead as keeps the worker supplied.
MOST_BACKGROUND = 2


@dataclass
class Held:
    """A job that a worker has and has not answered."""

    id: str
    note: str
    pictures: int
    background: bool
    #: It is a training: the worker does nothing else meanwhile.
    training: bool = False
    #: It was asked to make way.
    paused: bool = False
    #: The worker is at it.
    begun: bool = False
    #: What it does now, and how far it is (0 … 1).
    phase: str = ""
    fraction: float | None = None
    #: It was asked back.
    withdrawn: bool = False
    #: The device of its worker; empty while there is only one.
    worker: str = ""
    #: What the queue calls it.
    title: str = ""
    #: Seconds that it will still take, where that is known.
    seconds_left: float | None = None


class Lane:
    """A worker with the jobs that it holds."""

    def __init__(self, supervisor: Supervisor, name: str = "") -> None:
        self.supervisor = supervisor
        #: The device as the configuration calls it; empty while there is only one worker.
        self.name = name
        #: Setup of the job that was claimed last: what will be loaded when it is free.
        self.setup = ""
        #: Oldest first.
        self.held: dict[str, Held] = {}

    @property
    def device(self) -> str:
        """The device in words, once a worker has chosen it."""
        said = self.supervisor.device
        kind, _, rest = said.partition(" ")
        seen_alone = self.name.startswith("cuda") and kind == "cuda"  # it sees no other card, and numbers none
        return f"{self.name} {rest}".strip() if seen_alone else said

    @property
    def is_free(self) -> bool:
        """Nothing is claimed for it."""
        return not self.held

    @property
    def leading(self) -> Held | None:
        """The job it is at, else the one whose turn it is."""
        begun = (one for one in self.held.values() if one.begun)
        return next(begun, None) or next(iter(self.held.values()), None)

    @property
    def begun(self) -> list[Held]:
        """The jobs it is at."""
        return [one for one in self.held.values() if one.begun]

    @property
    def waiting(self) -> list[Held]:
        """The jobs it has and is not at."""
        return [one for one in self.held.values() if not one.begun]

    def room(self, *, background: bool) -> tuple[int, int]:
        """How many more orders and pictures it takes; a free one takes any number of pictures in one order."""
        if any(one.training for one in self.held.values()):
            return 0, 0
        most = MOST_BACKGROUND if background else MOST_ORDERS
        pictures = sum(one.pictures for one in self.held.values())
        return max(0, most - len(self.held)), max(0, MOST_PICTURES - pictures)

    def hold(self, job: JobRow) -> None:
        """It has this job from now on."""
        self.setup = job.setup
        training = job.kind == "train"
        self.held[job.id] = Held(
            job.id, job.note, job.count, job.background, training, phase="starting", worker=self.name,
            title=job.first_line,
        )  # fmt: skip

    def fits(self, setup: str) -> int:
        """How much of this setup is loaded: 2 all, 1 the base, 0 nothing."""
        return 2 if setup == self.setup else int(bool(setup) and setup[:16] == self.setup[:16])
