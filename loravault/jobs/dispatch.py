"""From the queue to the workers and back: claim, hand over, follow, record how each job ended."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from sqlalchemy.exc import DatabaseError

from loravault.errors import UserError
from loravault.failpoints import reach
from loravault.formats.generation import GenerationSpec
from loravault.formats.outcome import Provenance
from loravault.index import adapters, work
from loravault.index.tables import JobRow
from loravault.jobs import supervisor as sup
from loravault.jobs import trainingwords, words
from loravault.jobs.context import Context, Event, log
from loravault.jobs.crew import Crew
from loravault.jobs.lanes import Held, Lane
from loravault.jobs.publishing import Publisher, spec_of
from loravault.jobs.recovery import Recovery
from loravault.jobs.trainings import Trainings
from loravault.vault.names import image_stem
from loravault.vault.paths import VaultGone

#: After trouble that is nobody's fault in particular (disk full, images folder read-only): wait before the next job.
PAUSE_S = 60.0
#: Whether there is something to claim ahead of the work is asked this often while a worker is busy (seconds).
AHEAD_S = 0.25
#: The library is looked at for files that are not where they were at most this often (seconds).
LOOK_S = 5.0
#: What is said of a training whose adapter is made.
TAKEN_IN = "adding it to the library"


class Dispatcher:
    """Keeps the workers busy: each holds what it draws, and what comes next."""

    def __init__(self, ctx: Context, crew: Crew, only: Collection[str] | None = None) -> None:
        self._ctx = ctx
        self._only = only
        self._publisher = Publisher(ctx)
        self.trainings = Trainings(ctx, self._publisher)
        self._recovery = Recovery(ctx, self._publisher, self.trainings)
        self._crew = crew
        self._not_before = 0.0
        self._ask_ahead_at = 0.0
        self._no_look_before = 0.0
        self._events: deque[tuple[Lane, sup.Event]] = deque()
        #: Jobs came back because their notes have changed; the notes are read before anything is claimed.
        self._to_be_read = False
        #: The installed package is newer than this process.
        self.restart_wanted = False

    @property
    def lanes(self) -> Sequence[Lane]:
        """The workers with what they hold."""
        return self._crew.lanes

    @property
    def job(self) -> str | None:
        """The id of a job that is worked on, else of the next one that a worker has; None while none has any."""
        leading = [held for lane in self.lanes if (held := lane.leading) is not None]
        best = sorted(leading, key=lambda held: not held.begun)
        return best[0].id if best else None

    @property
    def shown(self) -> list[Held]:
        """The jobs that are worked on, for the dashboard and the queue; that for which a worker starts among them."""
        found = [held for lane in self.lanes for held in (lane.begun or lane.waiting[:1])]
        taken_in = [Held(job, "", 0, False, True, begun=True, phase=TAKEN_IN) for job in self.trainings.busy]
        return [*found, *taken_in]

    @property
    def staging(self) -> Path:
        """Where the workers put pictures before they are published."""
        return self._publisher.staging

    def recover(self) -> None:
        """At the start every job that a worker had has lost it, because we ended."""
        self._recovery.recover()

    def step(self) -> None:
        """Handle what the workers said, then give them the next jobs if they have room."""
        for lane in self.lanes:
            self._events.extend((lane, event) for event in lane.supervisor.poll())
        self._crew.grow()
        while self._events and self._ctx.steady() >= self._not_before:
            self._handle(*self._events[0])
            if self._ctx.steady() >= self._not_before:
                self._events.popleft()  # only now: what fails on the way is handled again
        self._pass_on_wishes()
        self.trainings.step()
        if self._to_be_read:
            self._to_be_read = False  # before that they would only be claimed again as they were
        elif not self._events and self._ctx.steady() >= self._not_before:
            self._supply()
        held = self._crew.training
        self._ctx.waiting_behind = trainingwords.behind(held.title, held.seconds_left) if held is not None else None

    def _handle(self, lane: Lane, event: sup.Event) -> None:
        """An event whose handling fails for a reason of ours costs that job a try, never the queue."""
        try:
            self._on_event(lane, event)
        except DatabaseError:
            raise
        except Exception as error:
            log.exception("what the worker said could not be handled: %r", event)
            if event.job is not None:
                self._recovery.lost(event.job, f"a bug in loravault ({type(error).__name__}: {error})")
                self._free(lane, event.job)

    def stop(self) -> None:
        """The daemon leaves: the workers are closed, what they had goes back to the queue."""
        self._crew.close()
        for lane in self.lanes:
            self._give_back(lane)

    # ---- claiming

    def _supply(self) -> None:
        """A job for each worker that has none; then, ahead of the work, what they draw next."""
        busy = all(not lane.is_free for lane in self.lanes)
        if busy and self._ctx.steady() < self._ask_ahead_at:
            return
        self._ask_ahead_at = self._ctx.steady() + AHEAD_S
        while self._claim_once():
            pass

    def _claim_once(self) -> bool:
        """One claim, for the worker that it suits best. False: nothing is left that one of them could take."""
        ctx = self._ctx
        with ctx.index.session() as session:
            waiting = work.queued(session, self._only)
        free = [lane for lane in self.lanes if lane.is_free]
        if not waiting:
            self._share(free)
            return False
        setup, background, kind = waiting[0]
        if not background and kind != "train":
            self._make_way(pause=not free and self._ctx.config.training_yields)
        able = free or [one for one in self.lanes if not any(held.training for held in one.held.values())] or self.lanes
        lane = max(able, key=lambda one: (one.room(background=background), one.fits(setup)))
        orders, pictures = lane.room(background=background)
        if not free and not (orders and pictures):
            return False
        if free:
            orders = min(orders, -(-len(waiting) // len(free)))
        with ctx.index.session() as session:
            jobs = work.claim(
                session, lane.setup, ctx.now(), self._only, orders=orders, pictures=pictures, trainings=bool(free)
            )
            for job in jobs if free else ():
                work.begin(session, job)  # nothing is before it: what the note says of it need not wait for the worker
        if not jobs:
            return False
        reach("job.claimed")
        return self._hand_over(lane, jobs)

    def _make_way(self, *, pause: bool) -> None:
        """A person waits: what nobody waits for leaves the workers again, where it is not begun.

        With `pause` a training stops at its next checkpoint, and goes on when nobody waits any more.
        """
        for lane in self.lanes:
            self._ask_back(lane, [held for held in lane.waiting if held.background])
            for held in lane.begun if pause else ():
                if held.training and not held.paused:
                    held.paused = lane.supervisor.pause(held.id)

    def _share(self, free: Sequence[Lane]) -> None:
        """A worker has nothing to do and nothing is queued: what the others are not at goes back for it."""
        for lane in self.lanes if free else ():
            if lane.begun:
                self._ask_back(lane, lane.waiting)

    @staticmethod
    def _ask_back(lane: Lane, jobs: Sequence[Held]) -> None:
        for held in jobs:
            if not held.withdrawn:
                held.withdrawn = True
                lane.supervisor.withdraw(held.id)

    def _hand_over(self, lane: Lane, jobs: Sequence[JobRow]) -> bool:
        """Give these to a worker. False: no process could be made, or none of them can be said."""
        orders = []
        for job in jobs:
            if job.kind == "train" and self.trainings.take_up(job):
                self._begun(lane, job.id)  # the index was lost after it was made: only its end is missing
                continue
            if owner := next((one for one in self.lanes if one.supervisor.holds(job.id)), None):
                owner.hold(job)  # given back by a bug of ours, not by its worker, which will answer
                continue
            try:
                orders.append(self.trainings.order(job) if job.kind == "train" else self._order(job))
            except UserError as error:  # its paths cannot be said
                self._publisher.end(job, "failed", words.failure_lines([error.message]))
                continue
            lane.hold(job)
            self._ctx.to_deliver.add(job.note)
        try:
            if orders:
                lane.supervisor.start(orders)
        except UserError as error:  # no process could be made
            log.error("jobs %s: %s", ", ".join(job.id for job in jobs), error)
            self._ctx.troubles["worker"] = error.message
            self._not_before = self._ctx.steady() + PAUSE_S
            self._give_back(lane)
            return False
        self._ctx.troubles.pop("worker", None)
        return True

    def _order(self, job: JobRow) -> sup.Order:
        return sup.order(
            job.id,
            self._with_files_that_are_there(spec_of(job)),
            self.staging / job.id,
            stem=image_stem(datetime.fromtimestamp(job.created), job.id),
            provenance=Provenance(
                job=job.id,
                block_hash=job.block_hash or "",
                fingerprint=job.fingerprint,
                stands_for=job.stands_for,
                named=job.named,
            ),
            originals=self._ctx.config.originals,
            alone=work.was_lost(job),
            background=job.background,
        )

    def _with_files_that_are_there(self, spec: GenerationSpec) -> GenerationSpec:
        """Between wish and work a drive may go, or a file be renamed: where the same weights are now does as well."""
        uses = []
        for use in spec.adapters:
            found: str | None = use.path
            if not os.path.isfile(use.path):
                found = self._copy_of(use.weight_id) or (self._looked_anew() and self._copy_of(use.weight_id)) or None
            uses.append(replace(use, path=found or use.path))
        return replace(spec, adapters=tuple(uses))

    def _copy_of(self, weight_id: str) -> str | None:
        """A file of these weights that is there."""
        roots = {root.name: root.path for root in self._ctx.config.loras}
        with self._ctx.index.session() as session:
            places = adapters.present_places(session, weight_id)
        paths = [str(roots[root] / rel) for root, rel in places if root in roots]
        return next((path for path in paths if os.path.isfile(path)), None)

    def _looked_anew(self) -> bool:
        """Look where the files are now; a queue of jobs for one that is gone makes one look, not hundreds."""
        if self._ctx.steady() < self._no_look_before:
            return False
        self._ctx.looks.briefly()
        self._no_look_before = self._ctx.steady() + LOOK_S
        return True

    # ---- what the workers are told

    def _pass_on_wishes(self) -> None:
        """Cancels, and jobs that are asked back because their note has changed."""
        for lane in self.lanes:
            for job_id in self._ctx.to_cancel & lane.held.keys():
                lane.supervisor.cancel(job_id)
            self._ask_back(lane, [lane.held[job_id] for job_id in self._ctx.to_withdraw & lane.held.keys()])

    # ---- what the workers say

    def _on_event(self, lane: Lane, event: sup.Event) -> None:
        held = lane.held.get(event.job or "")
        if isinstance(event, sup.Started):
            self._begun(lane, event.job)
        elif isinstance(event, sup.PhaseChanged):
            self._progress(held, event.name, None)
        elif isinstance(event, sup.Stepped):
            self._progress(held, f"step {event.step} of {event.steps}", event.fraction)
        elif isinstance(event, sup.TrainingPlanned):
            self.trainings.planned(event.job, event.prepared)
        elif isinstance(event, sup.TrainingStepped):
            self.trainings.stepped(event.job, event.step)
            self._progress(held, trainingwords.progress(event.step), event.step.step / max(1, event.step.steps))
            if held is not None:
                held.seconds_left = event.step.seconds_left
        elif isinstance(event, sup.VersionMismatch):
            self._upgraded(event)
        elif isinstance(event, (sup.JobReturned, sup.JobPaused)):
            self._returned(lane, event.job)
        elif isinstance(event, sup.WorkerDied):
            lane.setup = ""
            if event.job is not None:
                self._recovery.lost(event.job, event.reason)
                self._free(lane, event.job)
        else:
            self._on_end(lane, event)

    def _begun(self, lane: Lane, job_id: str) -> None:
        """The worker is at it: from here on it counts as a try."""
        ctx = self._ctx
        with ctx.index.session() as session:
            job = work.job_by_id(session, job_id)
            if job is None or job.state not in work.HELD_STATES:
                return
            if job.state == "claimed":
                work.begin(session, job)
            note, run, line = job.note, job.run, job.first_line
        reach("job.begun")
        if job_id in lane.held:
            lane.held[job_id].begun = True
        ctx.to_withdraw.discard(job_id)
        ctx.to_deliver.add(note)
        log.info("job %s starts: %s (%s)", job_id, line[:80], note)
        ctx.tell(Event("phase", f"{note}: {line[:60]}", job=job_id, run=run))

    def _progress(self, held: Held | None, phase: str, fraction: float | None) -> None:
        if held is None:
            return
        held.phase = phase
        if fraction is None:
            self._ctx.tell(Event("phase", phase, job=held.id))
            return
        held.fraction = fraction
        self._ctx.tell(Event("progress", phase, fraction, job=held.id))

    def _upgraded(self, event: sup.VersionMismatch) -> None:
        """The package was upgraded under the running daemon: give the jobs back and ask to be restarted."""
        log.warning("upgraded to %s while %s was running; restarting", event.theirs, event.ours)
        self.restart_wanted = True
        for lane in self.lanes:
            self._give_back(lane)

    def _give_back(self, lane: Lane) -> None:
        """What it has goes back to the queue and its attempts are not counted: it was not its fault."""
        for job_id in tuple(lane.held):
            self._returned(lane, job_id)

    def _returned(self, lane: Lane, job_id: str) -> None:
        if self._recovery.returned(job_id):
            self._to_be_read = True
        self._free(lane, job_id)

    def _on_end(self, lane: Lane, event: sup.Finished | sup.TrainingDone | sup.JobFailed | sup.JobCancelled) -> None:
        with self._ctx.index.session() as session:
            job = work.job_by_id(session, event.job)
        if job is None or job.state not in work.HELD_STATES:
            self._free(lane, event.job)
            return
        try:
            if isinstance(event, sup.TrainingDone):
                self.trainings.done(job, event)
            elif isinstance(event, sup.Finished):
                self._publisher.finished(job, event.outcome)
            elif job.kind == "train":
                self._end_training(job, event)
            elif isinstance(event, sup.JobCancelled):
                self._publisher.cancelled(job, event.images)
            else:
                self._publisher.end(job, "failed", words.failure_lines([event.message]))
            self._ctx.troubles.pop("publish", None)
        except VaultGone as error:
            self._cannot_publish(job, error.message)
            return
        except UserError as error:  # where the pictures should go is no place for them: waiting would not help
            self._publisher.end(job, "failed", words.failure_lines([error.message]))
        except OSError as error:
            self._cannot_publish(job, error.strerror or str(error))
            return
        self._free(lane, event.job)

    def _end_training(self, job: JobRow, event: sup.JobCancelled | sup.JobFailed) -> None:
        if isinstance(event, sup.JobCancelled):
            self.trainings.stopped(job)
        else:
            self.trainings.failed(job, event.message)

    def _cannot_publish(self, job: JobRow, reason: str) -> None:
        """The pictures are made but cannot be put into the vault: they wait, and the dashboard says why."""
        log.error("job %s: the pictures cannot be written: %s", job.id, reason)
        self._ctx.troubles["publish"] = (
            f"Pictures cannot be written into the vault: {reason}. The queue waits a minute."
        )
        self._not_before = self._ctx.steady() + PAUSE_S

    def _free(self, lane: Lane, job_id: str) -> None:
        self._ctx.to_cancel.discard(job_id)
        self._ctx.to_withdraw.discard(job_id)
        lane.held.pop(job_id, None)
        self._ask_ahead_at = 0.0
