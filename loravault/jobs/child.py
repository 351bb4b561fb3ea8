"""The worker: `python -m loravault.jobs.child`. Owns the device, takes jobs on stdin, answers on stdout.

Torch is imported after the hello, so that a wrong version is noticed before seconds are spent. Several jobs may wait
here; what can be drawn together is. End of stdin means that the daemon is gone or done with us: leave at once, whatever
runs (files appear whole or not at all).
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from loravault import __version__
from loravault.engine.ends import OutOfMemory, Stopped
from loravault.engine.wish import End, Wish
from loravault.errors import UserError
from loravault.formats.generation import GenerationSpec
from loravault.formats.outcome import GenerationOutcome, StepReport
from loravault.jobs.protocol import (
    MAX_ORDER_LINE,
    PROTOCOL,
    Answer,
    Cancel,
    Cancelled,
    Done,
    Failed,
    Hello,
    Job,
    Leave,
    LineSplitter,
    Log,
    Order,
    Pause,
    Phase,
    Progress,
    ProtocolError,
    Ready,
    Returned,
    Taken,
    Train,
    decode_order,
    encode,
)
from loravault.jobs.trainingchild import Trainer, train
from loravault.jobs.waitinglist import WaitingList
from loravault.osdep import parent_death_signal

#: Importing torch and diffusers from a cold disk.
START_DEADLINE_S = 300.0
#: How long a running step may finish after stdin ended.
LAST_STEP_S = 1.0


class Engine(Trainer, Protocol):
    """What the worker needs of an engine."""

    def device_name(self) -> str:
        """The device in words."""

    def versions(self) -> dict[str, str]:
        """Library name → version."""

    def cards(self) -> int:
        """NVIDIA cards that can be used, its own included; 0 if it draws on something else."""

    def pictures_at_once(self, spec: GenerationSpec) -> int:
        """How many pictures of this kind are denoised at the same time."""

    def expect(self, specs: Sequence[GenerationSpec]) -> None:
        """What is likely to be asked for next, in this order. Returns at once; called from any thread."""

    def mark_of(self, spec: GenerationSpec) -> Hashable:
        """Jobs of one mark can be worked on together."""

    def generate_together(self, wishes: Sequence[Wish]) -> None:
        """Makes the pictures of jobs of one mark. Each is told its own end."""


class Channel:
    """Our end of the pipes. The first thing made in the process: whatever prints afterwards prints to stderr."""

    def __init__(self) -> None:
        self._answers = os.dup(1)
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        self._orders = os.dup(0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        self._lock = threading.Lock()

    def say(self, message: Answer) -> None:
        """Writes one line; a daemon that is gone ends the process."""
        self.write(encode(message))

    def write(self, line: bytes) -> None:
        """Writes bytes as they are."""
        view = memoryview(line)
        with self._lock:
            try:
                while view:
                    view = view[os.write(self._answers, view) :]
            except OSError:
                os._exit(0)

    def read(self) -> bytes:
        """The next piece; empty at the end."""
        try:
            return os.read(self._orders, 1 << 16)
        except OSError:
            return b""


class Worker:
    """One engine, one batch of jobs at a time on the main thread; a second thread listens for orders."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._waiting = WaitingList()
        self._cancelled: set[str] = set()
        self._paused: set[str] = set()
        self._leaving = threading.Event()
        self._engine: Engine | None = None

    def run(self, make_engine: Callable[[], Engine]) -> None:
        """Greets, loads the engine, works until told to leave."""
        say = self._channel.say
        say(Hello(PROTOCOL, __version__, os.getpid()))
        threading.Thread(target=self._listen, name="orders", daemon=True).start()
        say(Phase(job=None, name="start", deadline_s=START_DEADLINE_S))
        engine = self._engine = make_engine()
        say(Ready(device=engine.device_name(), versions=engine.versions(), cards=engine.cards()))
        while jobs := self._waiting.take(engine.pictures_at_once, engine.mark_of):
            say(Taken(tuple(job.id for job in jobs)))
            if isinstance(lesson := jobs[0], Train):
                self._teach(engine, lesson)
            else:
                engine.expect(self._waiting.next_specs())
                self._work(engine, [job for job in jobs if isinstance(job, Job)])

    def _listen(self) -> None:
        lines = LineSplitter(MAX_ORDER_LINE)
        while data := self._channel.read():
            try:
                self._obey([decode_order(line) for line in lines.feed(data)])
            except ProtocolError as error:
                self._channel.say(Log(level="error", text=f"the daemon sent nonsense: {error}"))
                break
        self._leaving.set()
        self._waiting.close()
        # The main thread may be inside a step, an import or a kernel that never returns.
        timer = threading.Timer(LAST_STEP_S, os._exit, (0,))
        timer.daemon = True
        timer.start()

    def _obey(self, orders: Sequence[Order]) -> None:
        """In their order; the jobs of one piece are seen together, so that they can be drawn so."""
        new: dict[str, Job | Train] = {}
        for order in orders:
            if isinstance(order, Job | Train):
                # A cancel that crossed the answer of an earlier try must not stop this one.
                self._cancelled.discard(order.id)
                self._paused.discard(order.id)
                new[order.id] = order
            elif isinstance(order, Leave):
                self._waiting.close()
            elif isinstance(order, Pause):
                self._paused.add(order.id)
            elif new.pop(order.id, None) is not None or self._waiting.remove(order.id):
                gone = Cancelled(job=order.id) if isinstance(order, Cancel) else Returned(order.id)
                self._channel.say(gone)
            elif isinstance(order, Cancel):
                self._cancelled.add(order.id)
        self._waiting.put(new.values())
        if self._engine is not None:
            self._engine.expect(self._waiting.next_specs())

    def _teach(self, engine: Engine, order: Train) -> None:
        """One training, which is answered once, whatever the engine does."""
        try:
            answer: Answer = train(
                engine,
                order,
                self._channel.say,
                cancelled=lambda: order.id in self._cancelled or self._leaving.is_set(),
                paused=lambda: order.id in self._paused,
            )
        except Exception as error:  # an exception is an answer
            answer = _answer(order.id, error)
        self._cancelled.discard(order.id)
        self._paused.discard(order.id)
        self._channel.say(answer)

    def _work(self, engine: Engine, jobs: Sequence[Job]) -> None:
        """Every one of them is answered once, whatever the engine does."""
        open_jobs = {job.id for job in jobs}

        def end(job_id: str, what: End) -> None:
            if job_id in open_jobs:
                open_jobs.remove(job_id)
                self._cancelled.discard(job_id)
                self._channel.say(_answer(job_id, what))

        try:
            engine.generate_together([self._wish(job, partial(end, job.id)) for job in jobs])
            bug: Exception = RuntimeError("the engine has forgotten the job")
        except Exception as error:  # an exception is an answer
            bug = error
        for job in jobs:
            end(job.id, bug)

    def _wish(self, job: Job, on_end: Callable[[End], None]) -> Wish:
        return Wish(
            spec=job.spec,
            out_dir=Path(job.out_dir),
            stem=job.stem,
            provenance=job.provenance,
            originals=Path(job.originals) if job.originals else None,
            on_phase=partial(self._phase, job.id),
            on_step=partial(self._step, job.id),
            cancelled=lambda: job.id in self._cancelled or self._leaving.is_set(),
            on_end=on_end,
        )

    def _phase(self, job: str, name: str, deadline_s: float) -> None:
        self._channel.say(Phase(job=job, name=name, deadline_s=deadline_s))

    def _step(self, job: str, report: StepReport) -> None:
        self._channel.say(
            Progress(
                job=job,
                image=report.image,
                batch=report.batch,
                images=report.images,
                step=report.step,
                steps=report.steps,
                deadline_s=report.deadline_s,
            )
        )


def _answer(job_id: str, end: End) -> Answer:
    """What became of a job, as it is said to the daemon."""
    if isinstance(end, GenerationOutcome):
        return Done(job_id, end)
    if isinstance(end, Stopped):
        return Cancelled(job=job_id, images=end.images)
    if isinstance(end, UserError):
        return Failed(job=job_id, message=end.message, kind="oom" if isinstance(end, OutOfMemory) else "user")
    traceback.print_exception(end)
    return Failed(job=job_id, message=_in_words(end), kind="internal")


def _in_words(error: Exception) -> str:
    text = " ".join(str(error).split())[:300] or "no reason given"
    return f"A bug in loravault or its libraries: {type(error).__name__}: {text}. The worker's log has the details."


def real_engine() -> Engine:
    """Imports torch."""
    from loravault.engine.generate import Engine as RealEngine  # noqa: PLC0415 - seconds, and only after the hello

    said = os.environ.get
    return RealEngine(
        said("LORAVAULT_DEVICE", "auto"),
        dtype=said("LORAVAULT_DTYPE", "auto"),
        offload=said("LORAVAULT_OFFLOAD", "auto"),
        compiled=said("LORAVAULT_COMPILE", "0") == "1",
        adapters=said("LORAVAULT_ADAPTERS", "auto"),
        adapter_bytes=int(said("LORAVAULT_ADAPTER_MEMORY_MB", "1024")) << 20,
    )


def main(make_engine: Callable[[], Engine] = real_engine) -> None:
    """Runs the worker and ends the process."""
    channel = Channel()
    faulthandler.enable()
    parent_death_signal()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon
    try:
        Worker(channel).run(make_engine)
    except Exception:  # the engine could not be made; the last line of the log says why
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    # Not sys.exit: tearing down torch takes a second and may crash, and nothing is left to be written.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
