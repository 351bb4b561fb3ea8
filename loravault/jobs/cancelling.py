"""Stopping what was asked for: by a note's `cancel`, by a command, or because a note asks for something else now."""

from __future__ import annotations

from sqlmodel import Session

from loravault.index import work
from loravault.index.tables import JobRow, NoteRow
from loravault.jobs import trainingwords
from loravault.jobs.context import Context
from loravault.jobs.trainings import spec_of


class Cancelling:
    """What waits is closed at once; what a worker has is told to it."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def note(self, session: Session, rel: str, row: NoteRow, *, also_run: bool, waited: bool = False) -> None:
        """`cancel` beats `run`: nothing starts, both boxes are reset. `waited`: it had not come to be a run."""
        jobs = [job for job in work.open_jobs(session) if job.note == rel]
        for job in jobs:
            self.job(session, job)
        if not row.cancel_ack:
            row.cancel_ack = True
            row.ack_message = (
                "cancelled" if jobs or waited else "nothing was waiting or running, so there was nothing to cancel"
            )
        row.run_ack = row.run_ack or also_run
        session.add(row)
        self._ctx.to_deliver.add(rel)

    def job(self, session: Session, job: JobRow) -> None:
        """One that waits is over; one that a worker has is over when the worker says so."""
        if job.state == "queued":
            begun = job.kind == "train" and job.plan is not None
            lines = trainingwords.stopped_lines(spec_of(job), job.now_at, job.steps) if begun else []
            work.finish(session, job, "cancelled", lines, now=self._ctx.now())
        else:
            job.cancel = True  # for the case that the worker or we die before it is obeyed
            session.add(job)
            self._ctx.to_cancel.add(job.id)
        self._ctx.to_deliver.add(job.note)

    def training(self, session: Session, rel: str) -> None:
        """A note has one training: what it asked for before, and asks otherwise now, is stopped; its state is kept."""
        for job in work.open_jobs(session):
            if job.note == rel and job.kind == "train":
                self.job(session, job)

    def named(self, session: Session, target: str | None) -> str:
        """Stop a note, a run or a job by name; everything when none is given. Returns what happened, in words."""
        jobs = [job for job in work.open_jobs(session) if target is None or _is_called(job, target)]
        for job in jobs:
            self.job(session, job)
        if not jobs:
            return f"Nothing waits or runs{'' if target is None else f' for {target}'}, so there is nothing to cancel."
        where = sorted({job.note for job in jobs})
        return f"Cancelled {len(jobs)} {'block' if len(jobs) == 1 else 'blocks'} in {', '.join(where)}."


def _is_called(job: JobRow, target: str) -> bool:
    return target in (job.id, job.run, job.note, job.note.removesuffix(".md"))
