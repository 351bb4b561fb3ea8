"""Runs and jobs: every statement that changes what is asked, running or answered."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, func, text, update
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from loravault.index.tables import JobRow, RunRow

#: A job whose worker died is given this many tries before it is failed in words.
MAX_ATTEMPTS = 3
#: A job that was begun so often and every time ended with the daemon may well be what ends it.
MAX_INTERRUPTIONS = 10

#: Of a long queue only so many are looked at to decide who takes what.
QUEUED_MOST = 64

#: How a run ends of which something was not made.
FAILED = ("failed", "partial")
#: A job that has no answer yet.
OPEN_STATES = ("queued", "claimed", "running")
#: A job that a worker has.
HELD_STATES = ("claimed", "running")

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


def last_made(session: Session, limit: int) -> Sequence[RunRow]:
    """The newest runs that made all they were asked for, newest first; not those for which nothing was to be made."""
    had_work = select(JobRow.id).where(col(JobRow.run) == RunRow.id).exists()
    query = select(RunRow).where(col(RunRow.closed).is_(True), RunRow.status == "done", had_work)
    return session.exec(query.order_by(col(RunRow.finished).desc(), col(RunRow.id)).limit(limit)).all()


def unmended_runs(session: Session, limit: int) -> Sequence[RunRow]:
    """The last runs of notes, where those failed or made only a part; newest first."""
    query = select(RunRow).where(*_unmended())
    return session.exec(query.order_by(col(RunRow.finished).desc(), col(RunRow.id)).limit(limit)).all()


def unmended_count(session: Session) -> int:
    """How many these are altogether."""
    return session.exec(select(func.count()).select_from(RunRow).where(*_unmended())).one()


def _unmended() -> tuple[ColumnElement[bool], ...]:
    later = aliased(RunRow)
    mended = select(later.id).where(col(later.note) == RunRow.note, col(later.created) > RunRow.created).exists()
    return col(RunRow.closed).is_(True), col(RunRow.status).in_(FAILED), ~mended


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
    """Jobs without an answer in the order in which they were asked for."""
    return session.exec(
        select(JobRow)
        .where(col(JobRow.state).in_(OPEN_STATES))
        .order_by(col(JobRow.created), col(JobRow.run), col(JobRow.seq))
    ).all()


def fingerprints_tried(session: Session, note: str) -> set[str]:
    """Fingerprints of every job this note ever had: `auto` never repeats one."""
    return set(session.exec(select(JobRow.fingerprint).where(JobRow.note == note)).all())


#: The one statement of a claim: the job whose turn it is, and companions that can be drawn with it.
_CLAIM = text(
    """
    WITH waiting AS (
        SELECT *, attempts > interrupted AS lost FROM job
        WHERE state = 'queued' AND (:notes IS NULL OR note IN (SELECT value FROM json_each(:notes)))
            AND (kind <> 'train' OR :trainings)
    ),
    head AS (
        SELECT * FROM waiting
        ORDER BY background, kind = 'train', (created < :tired) DESC, (setup = :setup AND created >= :tired) DESC,
            (substr(setup, 1, 16) = substr(:setup, 1, 16) AND created >= :tired) DESC, created, run, seq
        LIMIT 1
    ),
    together AS (
        SELECT one.id, ROW_NUMBER() OVER line AS number, SUM(one.count) OVER line AS pictures
        FROM waiting AS one, head
        WHERE one.id = head.id OR (
            NOT head.lost AND NOT one.lost AND one.alike = head.alike AND one.setup = head.setup
            AND one.background = head.background
        )
        WINDOW line AS (ORDER BY one.id <> head.id, one.created, one.run, one.seq ROWS UNBOUNDED PRECEDING)
    )
    UPDATE job SET state = 'claimed'
    WHERE id IN (SELECT id FROM together WHERE number = 1 OR (number <= :orders AND pictures <= :pictures))
    RETURNING id
    """
)


def claim(
    session: Session,
    loaded_setup: str,
    now: float,
    only: Collection[str] | None = None,
    *,
    orders: int = 1,
    pictures: int = 1,
    trainings: bool = True,
) -> list[JobRow]:
    """Take the next job and its companions, in one statement, so that two claimers can never take the same.

    Jobs of the loaded setup go first, then those of its base (switching costs), but nobody waits longer than
    `PATIENCE_S` for that. Pictures go before trainings (which are left out unless asked for), and what nobody waits for
    comes last. Companions are alike, at most `orders` jobs with `pictures`
    pictures in all; a job over which a worker was lost has none.
    `only` limits it to some notes: `loravault run NOTE` without a daemon starts nothing else that waits.
    """
    notes = None if only is None else json.dumps(sorted(only))
    values = {
        "setup": loaded_setup,
        "tired": now - PATIENCE_S,
        "notes": notes,
        "orders": orders,
        "pictures": pictures,
        "trainings": trainings,
    }
    taken = [row[0] for row in session.execute(_CLAIM, values)]
    rows = [session.get(JobRow, job_id, populate_existing=True) for job_id in taken]
    return sorted((row for row in rows if row is not None), key=lambda row: (row.created, row.run, row.seq))


def queued(session: Session, only: Collection[str] | None = None) -> Sequence[tuple[str, bool, str]]:
    """Setup of jobs that nobody has claimed, whether nobody waits for it, and kind; the first ones of the queue."""
    query = select(JobRow.setup, JobRow.background, JobRow.kind).where(JobRow.state == "queued")
    if only is not None:
        query = query.where(col(JobRow.note).in_(sorted(only)))
    order = (col(JobRow.background), col(JobRow.kind) == "train", col(JobRow.created), col(JobRow.run), col(JobRow.seq))
    return session.exec(query.order_by(*order).limit(QUEUED_MOST)).all()


def begin(session: Session, job: JobRow) -> None:
    """A worker is at it now: from here on it counts as a try."""
    job.state = "running"
    job.attempts += 1
    session.add(job)


def was_lost(job: JobRow) -> bool:
    """Whether a worker was lost over it, before the try that may be under way."""
    return job.attempts - (job.state == "running") > job.interrupted


def requeue(session: Session, job: JobRow) -> None:
    """Give a job back whose worker is gone; its attempt stays counted."""
    job.state = "queued"
    session.add(job)


def give_back(session: Session, job: JobRow) -> None:
    """Give a job back through no fault of its own: as if it had not been begun."""
    job.attempts -= job.state == "running"
    job.state = "queued"
    session.add(job)


def orphans(session: Session) -> Sequence[JobRow]:
    """Jobs that a worker had: at the start of the lock's holder, every one has lost it."""
    return session.exec(select(JobRow).where(col(JobRow.state).in_(("claimed", "running")))).all()


def finish(
    session: Session, job: JobRow, state: str, answer: Sequence[str], *, now: float, pictures: Sequence[str] = ()
) -> None:
    """A job has ended; its answer waits to be delivered."""
    job.state = state
    job.answer = json.dumps(list(answer), ensure_ascii=False)
    job.pictures = json.dumps(list(pictures), ensure_ascii=False)
    job.finished = now
    session.add(job)
