"""The daemon's side of the worker: spawns it, hands it jobs, watches it, ends it. Never imports the engine or torch.

Nothing here blocks: a reader thread feeds a bounded queue, `poll` empties it and looks at the clocks. A worker is
killed only when it said nothing for longer than it asked for and used neither processor nor disk meanwhile.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loravault import __version__
from loravault.errors import UserError
from loravault.formats.generation import GenerationSpec
from loravault.formats.outcome import Provenance
from loravault.jobs import protocol
from loravault.jobs.events import (
    Event,
    Finished,
    JobCancelled,
    JobFailed,
    PhaseChanged,
    Started,
    Stepped,
    VersionMismatch,
    WorkerDied,
)
from loravault.jobs.process import Activity, End, Garbage, WorkerProcess, activity, death_in_words

__all__ = [
    "Event",
    "Finished",
    "JobCancelled",
    "JobFailed",
    "PhaseChanged",
    "Started",
    "Stepped",
    "Supervisor",
    "VersionMismatch",
    "WorkerDied",
]

#: What is switched off in a worker: it may not talk to the network, draw bars or start helpers of its own.
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    # `python -m` would otherwise find modules in the current folder, which may hold files of strangers.
    "PYTHONSAFEPATH": "1",
}

#: What a user may set otherwise. Threads that spin while they wait for each other are ten times slower as soon as
#: anything else uses the processor (measured: 56 s instead of 5 s beside one busy process on two cores).
GENTLE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}

#: Noise on stdout before the hello that is forgiven (a site hook that prints), in lines.
NOISE_LINES = 50


@dataclass
class _Task:
    order: protocol.Job
    line: bytes
    sent: bool = False
    cancelled_at: float | None = None


@dataclass
class _Worker:
    process: WorkerProcess
    deadline: float
    greeted: bool = False
    noise: int = 0
    phase: str = "start"
    #: Set once we decided that it has to go: the moment of SIGTERM.
    term_at: float | None = None
    #: Why we ended it, in words; empty when it was asked to leave.
    fault: str = ""
    #: First look at its clocks after the deadline passed: (when, what was used until then).
    look: tuple[float, Activity | None] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    device: str = ""


class Supervisor:
    """Owner of at most one worker with at most one job.

    Call from one thread that lives as long as the supervisor: on Linux a child asks to be killed when the thread that
    spawned it ends. `wake` is called from another thread whenever `poll` has something to do.
    """

    def __init__(
        self,
        command: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        *,
        idle_exit_s: float = 120.0,
        log_path: Path | None = None,
        now: Callable[[], float] = time.monotonic,
        wake: Callable[[], None] | None = None,
        start_deadline_s: float = 120.0,
        stall_s: float = 5.0,
        term_grace_s: float = 5.0,
        cancel_grace_s: float = 30.0,
    ) -> None:
        self._command = list(command) if command is not None else [sys.executable, "-m", "loravault.jobs.child"]
        self._env = {**GENTLE, **(os.environ if env is None else env), **QUIET}
        self._idle_exit_s = idle_exit_s
        self._log_path = log_path
        self._now = now
        self._wake = wake or (lambda: None)
        self._start_deadline_s = start_deadline_s
        self._stall_s = stall_s
        self._term_grace_s = term_grace_s
        self._cancel_grace_s = cancel_grace_s
        self._worker: _Worker | None = None
        self._leaving: list[_Worker] = []
        self._task: _Task | None = None
        self._idle_since = now()
        self._events: list[Event] = []

    # ---- what the daemon asks for

    @property
    def busy(self) -> str | None:
        """The id of the job that has no answer yet."""
        return self._task.order.id if self._task else None

    @property
    def pid(self) -> int | None:
        """The process id of the worker, while there is one."""
        return self._worker.process.pid if self._worker else None

    @property
    def device(self) -> str:
        """The device in words, once the worker has chosen one."""
        return self._worker.device if self._worker else ""

    def warm_up(self) -> None:
        """Starts the worker before there is a job: its imports take seconds."""
        if self._worker is None:
            self._spawn()

    def start_job(
        self,
        job_id: str,
        spec: GenerationSpec,
        out_dir: Path,
        *,
        stem: str | None = None,
        provenance: Provenance | None = None,
        originals: Path | None = None,
    ) -> None:
        """Hands one job to the worker, which is started if need be.

        Image n is written to `out_dir/<stem>-<n>.<ext>` (n from 1; the default stem is the job id).
        Raises `RuntimeError` while another job runs, `UserError` if a path cannot be said in JSON or no process can
        be made.
        """
        if self._task is not None:
            raise RuntimeError(f"the worker is busy with {self._task.order.id}")
        order = protocol.Job(
            id=job_id,
            spec=spec,
            out_dir=str(out_dir),
            stem=stem or job_id,
            provenance=provenance or Provenance(job=job_id),
            originals=str(originals) if originals else None,
        )
        try:
            line = protocol.encode(order)
        except protocol.ProtocolError as error:
            raise UserError(f"The name of a file of this job is not readable text; rename it ({error}).") from error
        if self._worker is None:
            self._spawn()
        self._task = _Task(order=order, line=line)
        self._send_task()

    def cancel(self, job_id: str) -> bool:
        """Asks the worker to stop the job between two steps. False if it does not run here."""
        task = self._task
        if task is None or task.order.id != job_id:
            return False
        if task.cancelled_at is not None:
            return True
        task.cancelled_at = self._now()
        if not task.sent:
            self._answer(JobCancelled(job_id))
            self._wake()
        elif self._worker is not None:
            self._worker.process.send(protocol.encode(protocol.Cancel(job_id)))
        return True

    def poll(self) -> list[Event]:
        """What happened since the last call. Never waits."""
        for worker in (*self._leaving, *([self._worker] if self._worker else [])):
            for item in worker.process.received():
                self._take(worker, item)
        self._look_at_clocks()
        events, self._events = self._events, []
        return events

    def due_in(self) -> float | None:
        """Seconds until `poll` has to be called although nothing wakes the caller; None = no need."""
        times = [worker.term_at + self._term_grace_s for worker in self._leaving if worker.term_at is not None]
        worker = self._worker
        if worker is not None and (self._task is not None or not worker.greeted):
            times.append(worker.look[0] + self._stall_s if worker.look else worker.deadline)
            if self._task is not None and self._task.cancelled_at is not None:
                times.append(self._task.cancelled_at + self._cancel_grace_s)
        elif worker is not None:
            times.append(self._idle_since + self._idle_exit_s)
        return max(0.0, min(times) - self._now()) if times else None

    def close(self, timeout_s: float = 5.0) -> None:
        """Ends every worker: asks, then SIGTERM, then SIGKILL. Waits for it, at most about `timeout_s`."""
        self._dismiss()
        self._task = None
        give_up = time.monotonic() + timeout_s
        for worker in self._leaving:
            worker.process.end(give_up)
        self._leaving.clear()

    # ---- spawning and sending

    def _spawn(self) -> None:
        process = WorkerProcess(self._command, self._env, self._log_path, self._wake)
        self._worker = _Worker(process=process, deadline=self._now() + self._start_deadline_s)
        self._idle_since = self._now()

    def _send_task(self) -> None:
        task, worker = self._task, self._worker
        if task is None or worker is None or task.sent or not worker.greeted:
            return
        task.sent = True
        worker.deadline = self._now() + self._start_deadline_s
        worker.look = None
        worker.process.send(task.line)
        self._events.append(Started(task.order.id, worker.process.pid))

    def _answer(self, event: Event) -> None:
        self._task = None
        self._idle_since = self._now()
        self._events.append(event)

    # ---- what the worker says

    def _take(self, worker: _Worker, item: bytes | Garbage | End) -> None:
        if isinstance(item, End):
            self._ended(worker, item)
        elif worker is not self._worker:
            return  # what a dismissed worker still says answers nothing
        elif isinstance(item, Garbage):
            self._accuse(worker, f"The worker sent {item.reason}.")
        else:
            try:
                message = protocol.decode_answer(item)
            except protocol.ProtocolError:
                self._nonsense(worker, item)
                return
            self._understand(worker, message)

    def _nonsense(self, worker: _Worker, line: bytes) -> None:
        worker.noise += 1
        text = line[:200].decode("utf-8", "replace")
        worker.process.log(f"not a message: {text}")
        if worker.greeted or worker.noise > NOISE_LINES:
            self._accuse(worker, f"The worker sent something that is not a message: {text[:80]!r}.")

    def _understand(self, worker: _Worker, message: protocol.Answer) -> None:
        if isinstance(message, protocol.Hello):
            self._greet(worker, message)
        elif isinstance(message, protocol.Log):
            worker.process.log(f"{message.level}: {message.text}")
        elif isinstance(message, protocol.Ready):
            worker.device, worker.versions = message.device, message.versions
            worker.process.log(f"ready on {message.device}, {message.versions}")
        elif message.job is None or (self._task is not None and message.job == self._task.order.id):
            self._work(worker, message)
        elif isinstance(message, protocol.Done | protocol.Failed | protocol.Cancelled):
            self._accuse(worker, f"The worker answered the job {message.job[:40]!r}, which it was not given.")

    def _greet(self, worker: _Worker, hello: protocol.Hello) -> None:
        theirs = f"{hello.version} (protocol {hello.protocol})"
        ours = f"{__version__} (protocol {protocol.PROTOCOL})"
        if theirs != ours:
            job = self.busy
            self._dismiss()
            self._answer(VersionMismatch(job, theirs, ours))
            return
        worker.greeted = True
        worker.deadline, worker.look = self._now() + self._start_deadline_s, None
        self._idle_since = self._now()
        self._send_task()

    def _work(self, worker: _Worker, message: protocol.AboutWork) -> None:
        worker.look = None
        if isinstance(message, protocol.Phase):
            worker.deadline, worker.phase = self._now() + message.deadline_s, message.name
            if self._task is not None:
                self._events.append(PhaseChanged(self._task.order.id, message.name))
        elif isinstance(message, protocol.Progress):
            worker.deadline = self._now() + message.deadline_s
            step = (message.image, message.images, message.step, message.steps, message.fraction)
            self._events.append(Stepped(message.job, *step))
        elif isinstance(message, protocol.Done):
            self._answer(Finished(message.job, message.outcome))
        elif isinstance(message, protocol.Cancelled):
            self._answer(JobCancelled(message.job, message.images))
        else:
            self._answer(JobFailed(message.job, message.message, message.kind))
            if message.kind != "user":
                self._dismiss()  # after running out of memory, or after a bug, nobody knows what state it is in

    # ---- how a worker ends

    def _ended(self, worker: _Worker, end: End) -> None:
        worker.process.end(time.monotonic())  # it is gone: gives back its threads and its log
        if worker is not self._worker:
            if worker in self._leaving:
                self._leaving.remove(worker)
            return
        self._worker = None
        self._lost(death_in_words(end, worker.phase if worker.greeted else "start"))

    def _accuse(self, worker: _Worker, fault: str) -> None:
        worker.fault = fault
        worker.process.log(fault)
        self._terminate()
        self._lost(fault)

    def _lost(self, reason: str) -> None:
        task = self._task
        if task is not None and task.cancelled_at is not None:
            self._answer(JobCancelled(task.order.id))
        else:
            self._answer(WorkerDied(task.order.id if task else None, reason))

    def _dismiss(self) -> None:
        """Asks the worker to leave; it is forgotten as soon as it is gone."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.process.dismiss()
            worker.term_at = self._now()
            self._leaving.append(worker)

    def _terminate(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.process.terminate()
            worker.term_at = self._now()
            self._leaving.append(worker)

    def _look_at_clocks(self) -> None:
        now = self._now()
        for leaving in self._leaving:
            if leaving.term_at is not None and now >= leaving.term_at + self._term_grace_s:
                leaving.process.kill()
        worker, task = self._worker, self._task
        if worker is None:
            return
        if task is not None and task.cancelled_at is not None and now >= task.cancelled_at + self._cancel_grace_s:
            self._accuse(worker, "The worker did not stop when it was asked to and was ended.")
        elif task is not None or not worker.greeted:
            self._look_for_stall(worker, now)
        elif now >= self._idle_since + self._idle_exit_s:
            self._dismiss()

    def _look_for_stall(self, worker: _Worker, now: float) -> None:
        if now < worker.deadline:
            return
        if worker.look is None:
            worker.look = (now, activity(worker.process.pid))
            return
        since, before = worker.look
        if now < since + self._stall_s:
            return
        used = activity(worker.process.pid)
        if before is not None and used is not None and used.since(before):
            worker.look = (now, used)
            return
        late = f"{now - worker.deadline:.0f} s past its time"
        self._accuse(worker, f"The worker hung in the phase “{worker.phase}” and was ended, {late}.")
