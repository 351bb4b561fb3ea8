"""What becomes of a job that a worker had and has not answered: taken in if it was made, queued again, or failed."""

from __future__ import annotations

import shutil

from sqlmodel import Session

from loravault.index import images, work
from loravault.index.tables import JobRow
from loravault.jobs import planning, trainingwords, words
from loravault.jobs.context import Context, log
from loravault.jobs.publishing import Publisher, spec_of
from loravault.jobs.trainings import Trainings


class Recovery:
    """For jobs whose worker died, hung, gave them back, or ended with us."""

    def __init__(self, ctx: Context, publisher: Publisher, trainings: Trainings) -> None:
        self._ctx = ctx
        self._publisher = publisher
        self._trainings = trainings

    def recover(self) -> None:
        """At the start every job that a worker had has lost it, because we ended.

        One that was begun is answered with the pictures that it had made already, else queued again; and that is no
        try of its own, or whoever kills us three times would make it fail.
        """
        shutil.rmtree(self._publisher.staging, ignore_errors=True)
        trainings = []
        with self._ctx.index.session() as session:
            orphans = []
            for job in work.orphans(session):
                if job.state == "claimed":
                    work.give_back(session, job)
                elif job.kind == "train":
                    trainings.append(job.id)
                else:
                    orphans.append((job.id, spec_of(job)))
        for job_id in trainings:
            self._recover_training(job_id)
        for job_id, spec in orphans:
            cards = self._publisher.cards(spec)
            with self._ctx.index.session() as session:
                found = work.job_by_id(session, job_id)
                if found is None:
                    continue
                found.interrupted += 1
                found.state = "queued"
                if not planning.adopt_pictures(found, images.images_of_job(session, job_id), cards):
                    found.state = "running"
                session.add(found)
                self._ctx.to_deliver.add(found.note)
            self.lost(job_id, "loravault was stopped while it ran")

    def _recover_training(self, job_id: str) -> None:
        """What it has made is taken in; else it goes on from its state."""
        with self._ctx.index.session() as session:
            job = work.job_by_id(session, job_id)
            if job is None or self._trainings.take_up(job):
                return
            job.interrupted += 1
            session.add(job)
        self.lost(job_id, "loravault was stopped while it ran")

    def lost(self, job_id: str, reason: str) -> None:
        """A worker died or hung over it: the job is tried again, at most twice, then failed in words."""
        with self._ctx.index.session() as session:
            job = work.job_by_id(session, job_id)
            if job is None or job.state not in work.HELD_STATES:
                return
            if job.cancel:
                self._call_off(session, job)
                return
            if job.state == "claimed":  # the worker died before it could say what it was at
                work.begin(session, job)
            if job.kind == "train" and self._trainings.has_moved(job):
                job.attempts = job.interrupted = 0  # it goes on from where it was: that is no failure
            survived = job.attempts - job.interrupted < work.MAX_ATTEMPTS
            if survived and job.interrupted < work.MAX_INTERRUPTIONS:
                work.requeue(session, job)
                log.warning("job %s is queued again: %s", job_id, reason)
                return
        message = f"It was tried {job.attempts} times and never came to its end: {reason}."
        told = [message, "`loravault retry` tries again; the worker's log says more."]
        lines = trainingwords.failure_lines(told) if job.kind == "train" else words.failure_lines(told)
        self._publisher.end(job, "failed", lines)

    def returned(self, job_id: str) -> bool:
        """A worker gave it back, or left through no fault of the job's.

        True: it was asked back because its note has changed, which has to be read before anything is claimed.
        """
        ctx = self._ctx
        with ctx.index.session() as session:
            job = work.job_by_id(session, job_id)
            if job is None or job.state not in work.HELD_STATES:
                return False
            ctx.to_deliver.add(job.note)
            if job.cancel:
                self._call_off(session, job)
            else:
                work.give_back(session, job)
            note = job.note
        if job_id not in ctx.to_withdraw:
            return False
        ctx.look(note)
        return True

    def _call_off(self, session: Session, job: JobRow) -> None:
        """It was cancelled and nobody is at it any more."""
        self._ctx.to_deliver.add(job.note)
        lines = self._trainings.stopped_lines(job) if job.kind == "train" else []
        work.finish(session, job, "cancelled", lines, now=self._ctx.now())
