"""From the queue to the worker and back: claim, run, publish the pictures, record how the job ended."""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import msgspec
from sqlalchemy.exc import DatabaseError

from loravault.errors import UserError
from loravault.failpoints import reach
from loravault.formats.generation import GenerationSpec
from loravault.formats.outcome import AdapterHashes, GenerationOutcome, MadeImage, Provenance
from loravault.index import adapters, images, work
from loravault.index.library import card_paths
from loravault.index.tables import ImageRow, JobRow
from loravault.jobs import planning, words
from loravault.jobs import supervisor as sup
from loravault.jobs.context import Context, Event, log
from loravault.vault.attachments import Attachments, NoAttachments
from loravault.vault.names import image_stem
from loravault.vault.paths import VaultGone

#: After trouble that is nobody's fault in particular (disk full, images folder read-only): wait before the next job.
PAUSE_S = 60.0


class Dispatcher:
    """Keeps the worker busy. One job at a time: one device."""

    def __init__(self, ctx: Context, supervisor: sup.Supervisor, only: Collection[str] | None = None) -> None:
        self._ctx = ctx
        self._only = only
        self._supervisor = supervisor
        self._job: str | None = None
        self._setup = ""
        self._not_before = 0.0
        self._events: deque[sup.Event] = deque()
        #: What the running job does now, for the dashboard and the queue.
        self.phase = ""
        self.fraction: float | None = None
        #: The installed package is newer than this process.
        self.restart_wanted = False

    @property
    def job(self) -> str | None:
        """The id of the running job."""
        return self._job

    @property
    def staging(self) -> Path:
        """Where the worker puts pictures before they are published."""
        return self._ctx.config.state_dir / "staging"

    def recover(self) -> None:
        """At the start every job marked running has lost its worker, because we ended.

        It is answered with the pictures that it had made already, else queued again; and that is no try of its own, or
        whoever kills us three times would make it fail.
        """
        shutil.rmtree(self.staging, ignore_errors=True)
        with self._ctx.index.session() as session:
            orphans = [(job.id, _spec_of(job)) for job in work.orphans(session)]
        for job_id, spec in orphans:
            cards = self._cards(spec)
            with self._ctx.index.session() as session:
                job = work.job_by_id(session, job_id)
                if job is None:
                    continue
                job.interrupted += 1
                job.state = "queued"
                if not planning.adopt_pictures(job, images.images_of_job(session, job_id), cards):
                    job.state = "running"
                session.add(job)
                self._ctx.to_deliver.add(job.note)
            self._lost(job_id, "loravault was stopped while it ran")

    def step(self) -> None:
        """Handle what the worker said, then give it the next job if it is free."""
        self._events.extend(self._supervisor.poll())
        while self._events and self._ctx.steady() >= self._not_before:
            self._handle(self._events[0])
            if self._ctx.steady() >= self._not_before:
                self._events.popleft()  # only now: what fails on the way is handled again
        if self._job is not None:
            self._pass_on_cancel()
        elif not self._events and self._ctx.steady() >= self._not_before:
            self._start_next()

    def _handle(self, event: sup.Event) -> None:
        """An event whose handling fails for a reason of ours costs that job a try, never the queue."""
        try:
            self._on_event(event)
        except DatabaseError:
            raise
        except Exception as error:
            log.exception("what the worker said could not be handled: %r", event)
            job = getattr(event, "job", None)
            if job is not None:
                self._lost(job, f"a bug in loravault ({type(error).__name__}: {error})")
                self._free(job)

    def stop(self) -> None:
        """The daemon leaves: the worker is closed, a running job goes back to the queue."""
        self._supervisor.close()
        self._give_back()

    def _start_next(self) -> None:
        ctx = self._ctx
        with ctx.index.session() as session:
            job = work.claim(session, self._setup, ctx.now(), self._only)
        if job is None:
            return
        reach("job.claimed")
        self._job, self._setup, self.phase, self.fraction = job.id, job.setup, "starting", None
        spec = self._with_files_that_are_there(_spec_of(job))
        log.info("job %s starts: %s (%s)", job.id, job.first_line[:80], job.note)
        ctx.to_deliver.add(job.note)
        try:
            self._hand_over(job, spec)
        except UserError as error:  # no process could be made, or a path cannot be said
            log.error("job %s: %s", job.id, error)
            ctx.troubles["worker"] = error.message
            self._not_before = ctx.steady() + PAUSE_S
            self._give_back()
            return
        ctx.troubles.pop("worker", None)
        ctx.tell(Event("phase", f"{job.note}: {job.first_line[:60]}", job=job.id, run=job.run))

    def _with_files_that_are_there(self, spec: GenerationSpec) -> GenerationSpec:
        """Between wish and work a drive may have gone: a copy of the same weights that is there does as well."""
        uses = []
        for use in spec.adapters:
            paths = [use.path]
            if not os.path.isfile(use.path):
                roots = {root.name: root.path for root in self._ctx.config.loras}
                with self._ctx.index.session() as session:
                    places = adapters.present_places(session, use.weight_id)
                paths = [str(roots[root] / rel) for root, rel in places if root in roots]
            found = next((path for path in paths if os.path.isfile(path)), use.path)
            uses.append(replace(use, path=found))
        return replace(spec, adapters=tuple(uses))

    def _place(self, path: str) -> tuple[str, str] | None:
        """The root and the path in it of an adapter file; None if it is in none."""
        for root in self._ctx.config.loras:
            if Path(path).is_relative_to(root.path):
                return root.name, Path(path).relative_to(root.path).as_posix()
        return None

    def _hand_over(self, job: JobRow, spec: GenerationSpec) -> None:
        self._supervisor.start_job(
            job.id,
            spec,
            out_dir=self.staging / job.id,
            stem=image_stem(datetime.fromtimestamp(job.created), job.id),
            provenance=Provenance(
                job=job.id,
                block_hash=job.block_hash or "",
                fingerprint=job.fingerprint,
                stands_for=job.stands_for,
                named=job.named,
            ),
            originals=self._ctx.config.originals,
        )

    def _upgraded(self, event: sup.VersionMismatch) -> None:
        """The package was upgraded under the running daemon: give the job back and ask to be restarted."""
        log.warning("upgraded to %s while %s was running; restarting", event.theirs, event.ours)
        self.restart_wanted = True
        self._give_back()

    def _give_back(self) -> None:
        """The running job goes back to the queue and its attempt is not counted: it was not its fault."""
        if self._job is None:
            return
        with self._ctx.index.session() as session:
            job = work.job_by_id(session, self._job)
            if job is not None and job.state == "running":
                job.attempts -= 1
                work.requeue(session, job)
        self._free(self._job)

    def _pass_on_cancel(self) -> None:
        if self._job in self._ctx.to_cancel:
            self._supervisor.cancel(self._job)

    def _on_event(self, event: sup.Event) -> None:
        if isinstance(event, sup.PhaseChanged):
            self.phase = event.name
            self._ctx.tell(Event("phase", event.name, job=self._job))
        elif isinstance(event, sup.Stepped):
            self.phase, self.fraction = f"step {event.step} of {event.steps}", event.fraction
            self._ctx.tell(Event("progress", self.phase, event.fraction, job=self._job))
        elif isinstance(event, sup.VersionMismatch):
            self._upgraded(event)
        elif isinstance(event, sup.WorkerDied):
            if event.job is not None:
                self._lost(event.job, event.reason)
                self._free(event.job)
        elif isinstance(event, (sup.Finished, sup.JobFailed, sup.JobCancelled)):
            self._on_end(event)

    def _on_end(self, event: sup.Finished | sup.JobFailed | sup.JobCancelled) -> None:
        with self._ctx.index.session() as session:
            job = work.job_by_id(session, event.job)
        if job is None or job.state != "running":
            self._free(event.job)
            return
        try:
            if isinstance(event, sup.Finished):
                self._finished(job, event.outcome)
            elif isinstance(event, sup.JobCancelled):
                self._cancelled(job, event.images)
            else:
                self._end(job, "failed", words.failure_lines([event.message]))
            self._ctx.troubles.pop("publish", None)
        except VaultGone as error:
            self._cannot_publish(job, error.message)
            return
        except UserError as error:  # where the pictures should go is no place for them: waiting would not help
            self._end(job, "failed", words.failure_lines([error.message]))
        except OSError as error:
            self._cannot_publish(job, error.strerror or str(error))
            return
        self._free(event.job)

    def _finished(self, job: JobRow, outcome: GenerationOutcome) -> None:
        spec = _spec_of(job)
        remarks = (*json.loads(job.remarks), *outcome.warnings)
        published = self._publish(job, spec, outcome.images, remarks)
        if not published:
            self._end(job, "failed", words.failure_lines(list(outcome.warnings) or ["No picture came out."]))
            return
        made = words.Made(spec, published, outcome.seconds, remarks, self._cards(spec))
        lines = words.made_lines(made, sheet=job.sheet)
        self._end(job, "done", lines, pictures=published, seconds=outcome.seconds, hashes=outcome.adapter_hashes)

    def _cancelled(self, job: JobRow, made: Sequence[MadeImage]) -> None:
        spec = _spec_of(job)
        published = self._publish(job, spec, made, json.loads(job.remarks))
        if not published:
            self._end(job, "cancelled", [])
            return
        remark = f"Cancelled after {words.images_phrase(len(published))} of {len(spec.seeds)}."
        remarks = (*json.loads(job.remarks), remark)
        lines = words.made_lines(words.Made(spec, published, None, remarks, self._cards(spec)), sheet=job.sheet)
        self._end(job, "cancelled", lines, pictures=published)

    def _cards(self, spec: GenerationSpec) -> dict[str, str]:
        """Name of each adapter that has a card -> where the card is."""
        with self._ctx.index.session() as session:
            paths = card_paths(session, [use.weight_id for use in spec.adapters])
        return {use.name: paths[use.weight_id] for use in spec.adapters if use.weight_id in paths}

    def _publish(
        self, job: JobRow, spec: GenerationSpec, made: Sequence[MadeImage], remarks: Sequence[str]
    ) -> tuple[str, ...]:
        """Move finished pictures into the vault: durable file first, then its row. Returns their vault-relative paths.

        `remarks` is what is to be said of them: it becomes durable with their rows, for whoever answers after a crash.
        Names come from the job, so a second try after a crash replaces its own file instead of leaving two.
        """
        ctx = self._ctx
        folder = self._folder_of(job)
        published = []
        for image in made:
            source = Path(image.path)
            rel = f"{folder}/{source.name}" if folder else source.name
            ctx.writer.publish(rel, source.read_bytes())
            published.append(rel)
        reach("job.images-durable")
        with ctx.index.session() as session:
            for image, rel in zip(made, published, strict=True):
                images.remember_image(session, image_row(job, spec, image, rel, ctx.path(rel)))
            row = work.job_by_id(session, job.id)
            if row is not None:
                row.remarks = json.dumps(list(remarks), ensure_ascii=False)
                session.add(row)
        reach("job.images-recorded")
        ctx.pictures_changed.update(published)
        if job.stands_for and published:
            ctx.covers_due.add(job.stands_for)
        return tuple(published)

    def _folder_of(self, job: JobRow) -> str:
        """The vault-relative folder for the pictures of a job; the vault's root is `""`."""
        ctx = self._ctx
        ctx.troubles.pop("attachments", None)
        if ctx.config.images == "obsidian":
            try:
                return Attachments.read(ctx.config.vault).folder_for(job.note)
            except NoAttachments as problem:
                ctx.troubles["attachments"] = problem.message
        return f"{ctx.config.folder}/Images/{datetime.fromtimestamp(job.created):%Y-%m}"

    def _end(
        self,
        job: JobRow,
        state: str,
        lines: Sequence[str],
        *,
        pictures: Sequence[str] = (),
        seconds: float = 0.0,
        hashes: Sequence[AdapterHashes] = (),
    ) -> None:
        ctx = self._ctx
        with ctx.index.session() as session:
            row = work.job_by_id(session, job.id)
            if row is None:
                return
            row.seconds = seconds
            work.finish(session, row, state, lines, now=ctx.now(), pictures=pictures)
            if hashes:
                read = {use.weight_id: self._place(use.path) for use in _spec_of(job).adapters}
                for known in hashes:
                    place = read.get(known.weight_id)
                    adapters.store_hashes(session, known.weight_id, place, known.autov2, known.autov3)
        reach("job.finished")
        shutil.rmtree(self.staging / job.id, ignore_errors=True)
        log.info("job %s %s", job.id, state)
        ctx.to_deliver.add(job.note)
        if state == "failed" and len(lines) > 1:
            ctx.tell(Event("note", lines[1], job=job.id, run=job.run))

    def _lost(self, job_id: str, reason: str) -> None:
        """A worker died or hung: the job is tried again, at most twice, then failed in words."""
        with self._ctx.index.session() as session:
            job = work.job_by_id(session, job_id)
            if job is None or job.state != "running":
                return
            if job.cancel:
                self._ctx.to_deliver.add(job.note)
                work.finish(session, job, "cancelled", [], now=self._ctx.now())
                return
            survived = job.attempts - job.interrupted < work.MAX_ATTEMPTS
            if survived and job.interrupted < work.MAX_INTERRUPTIONS:
                work.requeue(session, job)
                log.warning("job %s is queued again: %s", job_id, reason)
                return
        message = f"It was tried {job.attempts} times and never came to its end: {reason}."
        self._end(
            job, "failed", words.failure_lines([message, "`loravault retry` tries again; the worker's log says more."])
        )

    def _cannot_publish(self, job: JobRow, reason: str) -> None:
        """The pictures are made but cannot be put into the vault: they wait, and the dashboard says why."""
        log.error("job %s: the pictures cannot be written: %s", job.id, reason)
        self._ctx.troubles["publish"] = (
            f"Pictures cannot be written into the vault: {reason}. The queue waits a minute."
        )
        self._not_before = self._ctx.steady() + PAUSE_S

    def _free(self, job_id: str) -> None:
        self._ctx.to_cancel.discard(job_id)
        if self._job == job_id:
            self._job, self.phase, self.fraction = None, "", None


def _spec_of(job: JobRow) -> GenerationSpec:
    return msgspec.json.decode(job.spec, type=GenerationSpec)


def image_row(job: JobRow, spec: GenerationSpec, image: MadeImage, rel: str, path: Path) -> ImageRow:
    """The row of a published picture: what its own chunk says."""
    status = os.stat(path)
    return ImageRow(
        path=rel,
        job=job.id,
        block_hash=job.block_hash or "",
        fingerprint=job.fingerprint,
        seed=image.seed,
        n=image.index,
        adapters=json.dumps([use.weight_id for use in spec.adapters]),
        base=spec.base.name,
        stands_for=job.stands_for,
        named=job.named,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
    )
