"""What the supervisor tells the daemon about the worker and its jobs."""

from __future__ import annotations

from dataclasses import dataclass

from loravault.formats.outcome import GenerationOutcome, MadeImage
from loravault.formats.training import Prepared, TrainingOutcome, TrainingStep
from loravault.jobs import protocol


@dataclass(frozen=True)
class Started:
    """The worker is at the job now."""

    job: str
    pid: int


@dataclass(frozen=True)
class PhaseChanged:
    """The worker begins something else: `start`, `load`, `adapters`, `prompt`, `draw`, `decode`."""

    job: str
    name: str


@dataclass(frozen=True)
class Stepped:
    """One denoising step is done; `fraction` is over all images of the job."""

    job: str
    image: int
    images: int
    step: int
    steps: int
    fraction: float


@dataclass(frozen=True)
class Finished:
    """Every picture is durably on disk."""

    job: str
    outcome: GenerationOutcome


@dataclass(frozen=True)
class TrainingPlanned:
    """What a training will be, before anything of it was trained."""

    job: str
    prepared: Prepared


@dataclass(frozen=True)
class TrainingStepped:
    """How far a training is."""

    job: str
    step: TrainingStep


@dataclass(frozen=True)
class TrainingDone:
    """The adapter is durably on disk, beside it what tells how it went (absolute paths)."""

    job: str
    outcome: TrainingOutcome
    chart: str | None = None
    strip: str | None = None


@dataclass(frozen=True)
class JobPaused:
    """A training made way, as it was asked to. It goes on from its state when it is handed over again."""

    job: str


@dataclass(frozen=True)
class JobFailed:
    """The worker answered with a reason; trying again would give the same."""

    job: str
    message: str
    kind: str


@dataclass(frozen=True)
class JobCancelled:
    """Stopped because `cancel` was called; `images` were finished before that."""

    job: str
    images: tuple[MadeImage, ...] = ()


@dataclass(frozen=True)
class JobReturned:
    """The worker has given the job back, or is gone and was not at it: as if it had never been claimed."""

    job: str


@dataclass(frozen=True)
class WorkerDied:
    """The worker died, hung or spoke nonsense, and was at `job` (if at any), which has no answer: try again, twice.

    There is one for each job it was at; those that merely waited are told by `JobReturned`.
    """

    job: str | None
    reason: str


@dataclass(frozen=True)
class VersionMismatch:
    """The installed package is another version than this process: restart yourself. `job` has no answer."""

    job: str | None
    theirs: str
    ours: str

    @property
    def message(self) -> str:
        """One sentence for the log."""
        return f"The installed loravault is {self.theirs}, this process is {self.ours}: upgraded, restarting."


Event = (
    Started
    | PhaseChanged
    | Stepped
    | TrainingPlanned
    | TrainingStepped
    | TrainingDone
    | Finished
    | JobFailed
    | JobCancelled
    | JobPaused
    | JobReturned
    | WorkerDied
    | VersionMismatch
)


def progress_of(
    message: protocol.Phase | protocol.Progress | protocol.Planned | protocol.TrainingProgress, job: str
) -> Event:
    """What the daemon is told when the worker says how far it is. `job`: the one that is meant, or led meanwhile."""
    if isinstance(message, protocol.Phase):
        return PhaseChanged(job, message.name)
    if isinstance(message, protocol.Progress):
        return Stepped(job, message.image, message.images, message.step, message.steps, message.fraction)
    if isinstance(message, protocol.Planned):
        return TrainingPlanned(job, message.prepared)
    return TrainingStepped(job, message.step)


def end_of(message: protocol.End) -> Event:
    """What the daemon is told when the worker says how a job ended."""
    if isinstance(message, protocol.Done):
        return Finished(message.job, message.outcome)
    if isinstance(message, protocol.Trained):
        return TrainingDone(message.job, message.outcome, message.chart, message.strip)
    if isinstance(message, protocol.Failed):
        return JobFailed(message.job, message.message, message.kind)
    if isinstance(message, protocol.Cancelled):
        return JobCancelled(message.job, message.images)
    if isinstance(message, protocol.Paused):
        return JobPaused(message.job)
    return JobReturned(message.job)
