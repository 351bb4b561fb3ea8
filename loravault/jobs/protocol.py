"""What daemon and worker say to each other: one JSON object per line, over the worker's stdin and stdout.

The worker may hold several jobs and answers every one exactly once (`Done`, `Failed`, `Cancelled` or `Returned`), in
whatever order. It says which ones it begins (`Taken`): those are drawn together, and they alone count a try if it dies.
Before it works it says `Hello`; the daemon sends nothing before that line was read and its versions were compared.
Every message about work names how long the next silence may last (`deadline_s`), because only the worker knows whether
it loads a checkpoint or takes one step.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from loravault.formats.generation import GenerationSpec
from loravault.formats.outcome import GenerationOutcome, MadeImage, Provenance
from loravault.formats.training import Prepared, TrainingOutcome, TrainingSpec, TrainingStep

#: Changes with every change of a message; both sides refuse another number.
PROTOCOL = 5

#: Longest line the daemon accepts from a worker. An outcome of 1000 images with warnings is 200 KiB, the survey of the
#: 20,000 pictures of the largest training 3 MiB.
MAX_ANSWER_LINE = 8 << 20

#: Longest line a worker accepts: a prompt can be as long as a note (1 MiB), and JSON may escape every character of it.
MAX_ORDER_LINE = 16 << 20


class ProtocolError(Exception):
    """The other side sent something that is not this protocol."""


class Job(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="job"):
    """Make the pictures of one spec."""

    id: str
    spec: GenerationSpec
    #: Absolute folder, made by the worker if missing. Files appear there whole or not at all.
    out_dir: str
    #: Image n is `<stem>-<n>.<ext>`, n from 1.
    stem: str
    provenance: Provenance
    #: Absolute folder for lossless PNG copies.
    originals: str | None = None
    #: It is drawn with no other: a worker was lost over it.
    alone: bool = False
    #: Nobody waits for it: it begins when nothing else waits.
    background: bool = False


class Train(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="train"):
    """Train an adapter. Its state in `spec.state_dir` outlives the worker: the same order again goes on from there."""

    id: str
    spec: TrainingSpec
    #: Absolute folder for what is made, made by the worker if missing.
    out_dir: str
    #: Of the samples: which request they answer.
    provenance: Provenance


class Pause(msgspec.Struct, frozen=True, tag_field="type", tag="pause"):
    """Stop this training at its next checkpoint and keep its state (`Paused`). Everything else ignores it."""

    id: str


class Cancel(msgspec.Struct, frozen=True, tag_field="type", tag="cancel"):
    """Stop this job between two steps; the others go on. Unknown or finished jobs are ignored."""

    id: str


class Withdraw(msgspec.Struct, frozen=True, tag_field="type", tag="withdraw"):
    """Give this job back (`Returned`) if it was not begun; else it goes on."""

    id: str


class Leave(msgspec.Struct, frozen=True, tag_field="type", tag="leave"):
    """Exit when what was begun is answered; what waits has no answer."""


class Hello(msgspec.Struct, frozen=True, tag_field="type", tag="hello"):
    """The first line of a worker, before it imports anything heavy."""

    protocol: int
    version: str
    pid: int


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="ready"):
    """The heavy imports are done and the device is chosen."""

    #: `cpu`, `cuda:0`, `mps`, with the name a person knows: "cpu (2 threads)".
    device: str
    #: Library versions: torch, diffusers, transformers.
    versions: dict[str, str]
    #: NVIDIA cards that the worker sees: the daemon imports no torch and learns it here.
    cards: int = 0


class Taken(msgspec.Struct, frozen=True, tag_field="type", tag="taken"):
    """These jobs are begun now, together."""

    jobs: tuple[str, ...]


class Phase(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="phase"):
    """What the worker does now, and how many seconds may pass before it speaks again."""

    job: str | None
    name: str
    deadline_s: float


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="progress"):
    """One denoising step is done."""

    job: str
    #: Images of the job that are already on disk.
    image: int
    #: Images of the job that are being denoised together now, perhaps with those of other jobs.
    batch: int
    images: int
    step: int
    steps: int
    deadline_s: float

    @property
    def fraction(self) -> float:
        """0 … 1 over all images of the job."""
        whole = max(1, self.images * self.steps)
        return min(1.0, (self.image * self.steps + self.batch * self.step) / whole)


class Planned(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="planned"):
    """What a training will be. Nothing of it has been trained yet."""

    job: str
    prepared: Prepared
    deadline_s: float


class TrainingProgress(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="training-progress"):
    """Some steps of a training are done."""

    job: str
    step: TrainingStep


class Trained(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="trained"):
    """The adapter is durably on disk, proven to read back. Of its losses and pictures only what is shown is said."""

    job: str
    outcome: TrainingOutcome
    #: Absolute paths of the pictures that tell how it went.
    chart: str | None = None
    strip: str | None = None


class Paused(msgspec.Struct, frozen=True, tag_field="type", tag="paused"):
    """A training was stopped as asked, and goes on from its state when it is ordered again."""

    job: str


class Done(msgspec.Struct, frozen=True, tag_field="type", tag="done"):
    """The pictures are durably on disk."""

    job: str
    outcome: GenerationOutcome


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="failed"):
    """An exception is an answer, not retried. `user`: a sentence of ours; `oom`: memory ran out; `internal`: a bug."""

    job: str
    message: str
    kind: Literal["user", "internal", "oom"]


class Cancelled(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="cancelled"):
    """Stopped on request. `images` were finished before that and are durably on disk."""

    job: str
    images: tuple[MadeImage, ...] = ()


class Returned(msgspec.Struct, frozen=True, tag_field="type", tag="returned"):
    """Withdrawn before it was begun."""

    job: str


class Log(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="log"):
    """A line for the log file."""

    level: Literal["debug", "info", "warning", "error"]
    text: str


Order = Job | Train | Cancel | Pause | Withdraw | Leave
#: What ends a job.
End = Done | Trained | Failed | Cancelled | Paused | Returned
AboutJob = Phase | Progress | Planned | TrainingProgress | End
Answer = Hello | Ready | Log | Taken | AboutJob

_orders: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)
_answers: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)


def encode(message: Order | Answer) -> bytes:
    """One line, newline included. Raises `ProtocolError` for text that is not Unicode (an undecodable file name)."""
    try:
        return msgspec.json.encode(message) + b"\n"
    except (UnicodeEncodeError, TypeError, ValueError) as error:
        raise ProtocolError(f"cannot be written as JSON: {error}") from error


def decode_order(line: bytes) -> Order:
    """What the daemon said. Raises `ProtocolError`."""
    try:
        return _orders.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not an order: {error}") from error


def decode_answer(line: bytes) -> Answer:
    """What the worker said. Raises `ProtocolError`."""
    try:
        return _answers.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not an answer: {error}") from error


class LineSplitter:
    """Cuts a stream into lines and never holds more than `limit` bytes of an unfinished one."""

    def __init__(self, limit: int = MAX_ANSWER_LINE) -> None:
        self._limit = limit
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines completed by `data`, without newline or blank ones. Raises `ProtocolError` if one is too long."""
        self._rest += data
        if b"\n" not in data:
            self._check(len(self._rest))
            return []
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        for line in (*lines, rest):
            self._check(len(line))
        return [line for line in lines if line.strip()]

    @property
    def pending(self) -> int:
        """Bytes of a line that has not ended."""
        return len(self._rest)

    def _check(self, length: int) -> None:
        if length > self._limit:
            self._rest.clear()
            raise ProtocolError(f"a line of more than {self._limit} bytes")
