"""Runs and jobs: every statement that changes what is asked, running or answered."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from sqlalchemy import text, update
from sqlmodel import Session, col, select

from loravault.index.tables import JobRow, RunRow

#: A job whose worker died is given this many tries before it is failed in words.
MAX_ATTEMPTS = 3
#: A job that was begun so often and every time ended with the daemon may well be what ends it.
MAX_INTERRUPTIONS = 10

#: The queue prefers jobs of the setup that is loaded, unless another has waited this long (seconds).
PATIENCE_S = 60.0


def insert_run(session: Session, run: RunRow, jobs: Sequence[JobRow]) -> None:
    """Record one tick with its jobs, in one transaction: there is never a run without its jobs."""
    session.add(run)
    session.add_all(jobs)


def run_by_id(session: Session, run_id: str) -> RunRow | None:
    """The run of this id."""
    return session.get(RunRow, run_id)


def unaccepted_run_of(session: Session, note: str) -> RunRow | None:
    """The run whose receipt is not yet in the note; while there is one, `run: true` is the same edge."""
    return session.exec(
        select(RunRow).where(RunRow.note == note, col(RunRow.accepted).is_(False), col(RunRow.closed).is_(False))
    ).first()


def unaccepted_runs(session: Session) -> Sequence[RunRow]:
    """All runs without a receipt on disk."""
    return session.exec(select(RunRow).where(col(RunRow.accepted).is_(False), col(RunRow.closed).is_(False))).all()


def open_runs(session: Session, note: str | None = None) -> Sequence[RunRow]:
    """Runs that are not closed, oldest first; of one note or of all."""
    query = select(RunRow).where(col(RunRow.closed).is_(False)).order_by(col(RunRow.created), col(RunRow.id))
    if note is not None:
        query = query.where(RunRow.note == note)
    return session.exec(query).all()


def last_runs(session: Session, limit: int, status: str | None = None) -> Sequence[RunRow]:
    """The newest closed runs, newest first; of one status or of all."""
    query = select(RunRow).where(col(RunRow.closed).is_(True)).order_by(col(RunRow.finished).desc(), col(RunRow.id))
    if status is not None:
        query = query.where(RunRow.status == status)
    return session.exec(query.limit(limit)).all()


def latest_run_of(session: Session, note: str) -> RunRow | None:
    """The newest run of a note, open or closed."""
    return session.exec(select(RunRow).where(RunRow.note == note).order_by(col(RunRow.created).desc())).first()


def delete_run(session: Session, run_id: str) -> None:
    """Forget a run that never started (it is planned again from a newer text)."""
    for job in jobs_of(session, run_id):
        session.delete(job)
    run = session.get(RunRow, run_id)
    if run is not None:
        session.delete(run)


def move_run(session: Session, run: RunRow, note: str) -> None:
    """The note was renamed: its run and jobs follow it."""
    run.note = note
    session.add(run)
    session.exec(update(JobRow).where(col(JobRow.run) == run.id).values(note=note))


def jobs_of(session: Session, run_id: str) -> Sequence[JobRow]:
    """The jobs of a run in the order of their blocks."""
    return session.exec(select(JobRow).where(JobRow.run == run_id).order_by(col(JobRow.seq))).all()


def job_by_id(session: Session, job_id: str) -> JobRow | None:
    """The job of this id."""
    return session.get(JobRow, job_id)


def open_jobs(session: Session) -> Sequence[JobRow]:
    """Queued and running jobs in the order in which they were asked for."""
    return session.exec(
        select(JobRow)
        .where(col(JobRow.state).in_(("queued", "running")))
        .order_by(col(JobRow.created), col(JobRow.run), col(JobRow.seq))
    ).all()


def fingerprints_tried(session: Session, note: str) -> set[str]:
    """Fingerprints of every job this note ever had: `auto` never repeats one."""
    return set(session.exec(select(JobRow.fingerprint).where(JobRow.note == note)).all())


def claim(session: Session, loaded_setup: str, now: float, only: Collection[str] | None = None) -> JobRow | None:
    """Take the next job, in one statement, so that two claimers can never take the same.

    Jobs of the loaded setup go first (switching costs), but nobody waits longer than `PATIENCE_S` for that. What
    nobody waits for comes last.
    `only` limits it to some notes: `loravault run NOTE` without a daemon starts nothing else that waits.
    """
    row = session.execute(
        text(
            """
            UPDATE job SET state = 'running', attempts = attempts + 1
            WHERE id = (
                SELECT id FROM job
                WHERE state = 'queued' AND (:notes IS NULL OR note IN (SELECT value FROM json_each(:notes)))
                ORDER BY background, (created < :tired) DESC, (setup = :setup AND created >= :tired) DESC,
                    created, run, seq
                LIMIT 1
            )
            RETURNING id
            """
        ),
        {"setup": loaded_setup, "tired": now - PATIENCE_S, "notes": None if only is None else json.dumps(sorted(only))},
    ).first()
    return None if row is None else session.get(JobRow, row[0], populate_existing=True)


def requeue(session: Session, job: JobRow) -> None:
    """Give a job back whose worker is gone; its attempt stays counted."""
    job.state = "queued"
    session.add(job)


def orphans(session: Session) -> Sequence[JobRow]:
    """Jobs marked running: at the start of the lock's holder, every one has lost its worker."""
    return session.exec(select(JobRow).where(JobRow.state == "running")).all()


def finish(
    session: Session, job: JobRow, state: str, answer: Sequence[str], *, now: float, pictures: Sequence[str] = ()
) -> None:
    """A job has ended; its answer waits to be delivered."""
    job.state = state
    job.answer = json.dumps(list(answer), ensure_ascii=False)
    job.pictures = json.dumps(list(pictures), ensure_ascii=False)
    job.finished = now
    session.add(job)
