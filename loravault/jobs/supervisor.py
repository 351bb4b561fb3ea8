"""The daemon's side of a worker: spawns it, hands it jobs, watches it, ends it. Never imports the engine or torch.

Nothing here blocks: a reader thread feeds a bounded queue, `poll` empties it and looks at the clocks. A worker is
killed only when it said nothing for longer than it asked for and used neither processor nor disk meanwhile.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from loravault import __version__
from loravault.formats.generation import GenerationSpec
from loravault.formats.outcome import Provenance
from loravault.jobs import protocol
from loravault.jobs.events import (
    Event,
    Finished,
    JobCancelled,
    JobFailed,
    JobPaused,
    JobReturned,
    PhaseChanged,
    Started,
    Stepped,
    TrainingDone,
    TrainingPlanned,
    TrainingStepped,
    VersionMismatch,
    WorkerDied,
    end_of,
    progress_of,
)
from loravault.jobs.orderwindow import Order, OrderWindow, order, training_order
from loravault.jobs.process import End, Garbage, Spawned, WorkerProcess, death_in_words
from loravault.jobs.silence import Silence
from loravault.jobs.workerenv import environment

__all__ = [
    "Event",
    "Finished",
    "JobCancelled",
    "JobFailed",
    "JobPaused",
    "JobReturned",
    "Order",
    "PhaseChanged",
    "Started",
    "Stepped",
    "Supervisor",
    "TrainingDone",
    "TrainingPlanned",
    "TrainingStepped",
    "VersionMismatch",
    "WorkerDied",
    "order",
    "training_order",
]

#: Noise on stdout before the hello that is forgiven (a site hook that prints), in lines.
NOISE_LINES = 50


class Supervisor:
    """Owner of at most one worker, which may hold several jobs; each gets exactly one answer.

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
        self._env = environment(os.environ if env is None else env)
        self._idle_exit_s = idle_exit_s
        self._log_path = log_path
        self._now = now
        self._wake = wake or (lambda: None)
        self._start_deadline_s = start_deadline_s
        self._stall_s = stall_s
        self._term_grace_s = term_grace_s
        self._cancel_grace_s = cancel_grace_s
        self._worker: Spawned | None = None
        self._leaving: list[Spawned] = []
        self._window = OrderWindow()
        self._idle_since = now()
        self._events: list[Event] = []
        #: NVIDIA cards that the last worker saw; None: none has been ready yet.
        self.cards: int | None = None

    # ---- what the daemon asks for

    @property
    def busy(self) -> str | None:
        """The id of the job that is worked on, else of the next one; None while nothing waits for an answer."""
        return self._window.leading

    @property
    def pid(self) -> int | None:
        """The process id of the worker, while there is one."""
        return self._worker.process.pid if self._worker else None

    @property
    def device(self) -> str:
        """The device in words, once the worker has chosen one."""
        return self._worker.device if self._worker else ""

    def set_environment(self, env: Mapping[str, str]) -> None:
        """For the next worker that is started; the present one is what it is."""
        self._env = environment(env)

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
        """Hands one job to the worker; arguments and errors are those of `order` and `start`."""
        self.start([order(job_id, spec, out_dir, stem=stem, provenance=provenance, originals=originals)])

    def start(self, orders: Sequence[Order]) -> None:
        """Hands jobs to the worker, all at once, so that it can draw them together; starts one if need be.

        Raises `RuntimeError` if one of them has no answer yet, `UserError` if no process can be made.
        """
        if self._worker is None:
            self._spawn()
        self._window.add(orders)
        self._send_orders()

    def holds(self, job_id: str) -> bool:
        """Whether it was handed over and has no answer."""
        return job_id in self._window

    def cancel(self, job_id: str) -> bool:
        """Asks the worker to stop the job between two steps. False if it is not held here."""
        held = self._window.get(job_id)
        if held is None or held.cancelled_at is not None:
            return held is not None
        held.cancelled_at = self._now()
        if not held.sent:
            self._answer(job_id, JobCancelled(job_id))
            self._wake()
        elif self._worker is not None:
            self._worker.process.send(protocol.encode(protocol.Cancel(job_id)))
        return True

    def pause(self, job_id: str) -> bool:
        """Asks a training to make way at its next checkpoint (`JobPaused`). False if the worker is not at it."""
        held = self._window.get(job_id)
        if held is None or not held.begun or self._worker is None:
            return False
        self._worker.process.send(protocol.encode(protocol.Pause(job_id)))
        return True

    def withdraw(self, job_id: str) -> bool:
        """Asks for the job back (`JobReturned`) if the worker is not at it. False if it is, or is not held here."""
        held = self._window.get(job_id)
        if held is None or held.begun:
            return False
        if not held.sent:
            self._answer(job_id, JobReturned(job_id))
            self._wake()
        elif self._worker is not None:
            self._worker.process.send(protocol.encode(protocol.Withdraw(job_id)))
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
        if worker is not None and (self._window or not worker.greeted):
            times.append(worker.silence.due)
            if (cancelled_at := self._window.due_cancel()) is not None:
                times.append(cancelled_at + self._cancel_grace_s)
        elif worker is not None:
            times.append(self._idle_since + self._idle_exit_s)
        return max(0.0, min(times) - self._now()) if times else None

    def close(self, timeout_s: float = 5.0) -> None:
        """Ends every worker: asks, then SIGTERM, then SIGKILL. Waits for it, at most about `timeout_s`."""
        self._dismiss()
        self._window.clear()
        give_up = time.monotonic() + timeout_s
        for worker in self._leaving:
            worker.process.end(give_up)
        self._leaving.clear()

    # ---- spawning and sending

    def _spawn(self) -> None:
        process = WorkerProcess(self._command, self._env, self._log_path, self._wake)
        self._worker = Spawned(process=process, silence=Silence(self._now() + self._start_deadline_s, self._stall_s))
        self._idle_since = self._now()

    def _send_orders(self) -> None:
        worker, unsent = self._worker, self._window.unsent()
        if worker is None or not unsent or not worker.greeted:
            return
        if len(unsent) == len(self._window):
            self._expect(worker, self._start_deadline_s)  # else it is at something, and has said for how long
        for one in unsent:
            one.sent = True
        worker.process.send(b"".join(one.line for one in unsent))

    def _expect(self, worker: Spawned, seconds: float) -> None:
        """It may be silent for so long from now on."""
        worker.silence.expect(self._now() + seconds)

    def _answer(self, job_id: str, event: Event) -> None:
        self._window.answered(job_id)
        self._idle_since = self._now()
        self._events.append(event)

    # ---- what the worker says

    def _take(self, worker: Spawned, item: bytes | Garbage | End) -> None:
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

    def _nonsense(self, worker: Spawned, line: bytes) -> None:
        worker.noise += 1
        text = line[:200].decode("utf-8", "replace")
        worker.process.log(f"not a message: {text}")
        if worker.greeted or worker.noise > NOISE_LINES:
            self._accuse(worker, f"The worker sent something that is not a message: {text[:80]!r}.")

    def _understand(self, worker: Spawned, message: protocol.Answer) -> None:
        if isinstance(message, protocol.Hello):
            self._greet(worker, message)
        elif isinstance(message, protocol.Log):
            worker.process.log(f"{message.level}: {message.text}")
        elif isinstance(message, protocol.Ready):
            worker.device, worker.versions, self.cards = message.device, message.versions, message.cards
            worker.process.log(f"ready on {message.device}, {message.versions}")
        elif isinstance(message, protocol.Taken):
            self._begun(worker, message)
        elif message.job is None or message.job in self._window:
            self._work(worker, message)
        elif isinstance(message, protocol.End):
            self._accuse(worker, f"The worker answered the job {message.job[:40]!r}, which it was not given.")

    def _greet(self, worker: Spawned, hello: protocol.Hello) -> None:
        theirs = f"{hello.version} (protocol {hello.protocol})"
        ours = f"{__version__} (protocol {protocol.PROTOCOL})"
        if theirs != ours:
            orders = self._window.clear()
            self._dismiss()
            self._let_go(orders[1:])
            self._events.append(VersionMismatch(orders[0].id if orders else None, theirs, ours))
            return
        worker.greeted = True
        self._expect(worker, self._start_deadline_s)
        self._idle_since = self._now()
        self._send_orders()

    def _begun(self, worker: Spawned, message: protocol.Taken) -> None:
        self._expect(worker, self._start_deadline_s)
        for job_id in message.jobs:
            held = self._window.get(job_id)
            if held is None:
                self._accuse(worker, f"The worker began the job {job_id[:40]!r}, which it was not given.")
                return
            held.begun = True
            self._events.append(Started(job_id, worker.process.pid))

    def _work(self, worker: Spawned, message: protocol.AboutJob) -> None:
        if isinstance(message, protocol.Returned):
            self._answer(message.job, end_of(message))  # by who listens there; it says nothing of the work
        elif isinstance(message, protocol.End):
            self._ended_job(worker, message)
        else:
            told = message.step if isinstance(message, protocol.TrainingProgress) else message
            self._expect(worker, told.deadline_s)
            if isinstance(message, protocol.Phase):
                worker.phase = message.name
            about = message.job or self._window.leading
            if about is not None:
                self._events.append(progress_of(message, about))

    def _ended_job(self, worker: Spawned, message: protocol.End) -> None:
        held = self._window.get(message.job)
        if held is not None and held.begun:  # else it was called off while it waited, which says nothing of the work
            self._expect(worker, max(worker.silence.deadline - self._now(), self._start_deadline_s))
        self._answer(message.job, end_of(message))
        if isinstance(message, protocol.Failed) and message.kind != "user":
            self._dismiss()  # after running out of memory, or after a bug, nobody knows what state it is in
            self._let_go(self._window.clear())

    # ---- how a worker ends

    def _ended(self, worker: Spawned, end: End) -> None:
        worker.process.end(time.monotonic())  # it is gone: gives back its threads and its log
        if worker is not self._worker:
            if worker in self._leaving:
                self._leaving.remove(worker)
            return
        self._worker = None
        self._lost(death_in_words(end, worker.phase if worker.greeted else "start"))

    def _accuse(self, worker: Spawned, fault: str) -> None:
        worker.fault = fault
        worker.process.log(fault)
        self._terminate()
        self._lost(fault)

    def _lost(self, reason: str) -> None:
        """Those it was at count a try; if it was at none, the one whose turn it was: it may be what ends workers."""
        orders = self._window.clear()
        at = [one for one in orders if one.begun] or orders[:1]
        self._let_go([one for one in orders if one not in at])
        for one in at:
            died = one.cancelled_at is None
            self._events.append(WorkerDied(one.id, reason) if died else JobCancelled(one.id))
        if not at:
            self._events.append(WorkerDied(None, reason))

    def _let_go(self, orders: Sequence[Order]) -> None:
        """They were not begun, or lost their worker through no fault of theirs."""
        for one in orders:
            self._events.append(JobReturned(one.id) if one.cancelled_at is None else JobCancelled(one.id))

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
        worker, cancelled_at = self._worker, self._window.due_cancel()
        if worker is None:
            return
        if cancelled_at is not None and now >= cancelled_at + self._cancel_grace_s:
            self._accuse(worker, "The worker did not stop when it was asked to and was ended.")
        elif self._window or not worker.greeted:
            if worker.silence.is_hung(now, worker.process.pid):
                late = f"{now - worker.silence.deadline:.0f} s past its time"
                self._accuse(worker, f"The worker hung in the phase “{worker.phase}” and was ended, {late}.")
        elif now >= self._idle_since + self._idle_exit_s:
            self._dismiss()
