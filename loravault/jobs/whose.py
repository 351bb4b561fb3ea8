"""Which note a run belongs to, when notes are renamed, copied or put back between the tick and the answer."""

from __future__ import annotations

import json

from sqlmodel import Session

from loravault.index import notes, work
from loravault.index.tables import JobRow, NoteRow, RunRow
from loravault.jobs.context import Context, log
from loravault.jobs.planning import Plan
from loravault.jobs.reading import ReadNote
from loravault.vault.ignore import conflict_original
from loravault.vault.note import MAX_NOTE_BYTES, parse_note

#: `lv_status` of a note that waits for an answer.
WAITING = ("queued", "running")


def is_renamed(ctx: Context, session: Session, read: ReadNote) -> bool:
    """Whether a ticked note was renamed before its receipt was written: the same edge under another name."""
    for run in work.unaccepted_runs(session):
        same = (run.note_dev, run.note_ino) == (read.key[2], read.key[3]) or run.note_sha == read.sha
        if run.note != read.rel and same and not ctx.path(run.note).exists():
            notes.auto_move(session, run.note, read.rel)
            notes.forget_note(session, run.note)
            work.move_run(session, run, read.rel)
            ctx.to_deliver.add(read.rel)
            return True
    return False


def original_waits(ctx: Context, read: ReadNote) -> bool:
    """Whether this is `X 1.md` beside an `X.md` that waits for the same run: the answer is for that one."""

    def job_of(rel: str) -> str | None:
        try:
            with ctx.path(rel).open("rb") as file:
                front = parse_note(file.read(MAX_NOTE_BYTES + 1)).frontmatter
        except OSError:
            return None
        return str(front.get("lv_job")) if front is not None and front.get("lv_status") in WAITING else None

    return conflict_original(read.rel, job_of, read.note) is not None


def answer_once_more(ctx: Context, session: Session, run: RunRow) -> bool:
    """A sync tool or an editor put an older text over the answer. Nothing is drawn again; what still stands stays.

    An answer whose pictures are gone by now is not given again. Whether there is anything to say.
    """
    run.closed = False
    session.add(run)
    for job in work.jobs_of(session, run.id):
        job.delivered = not _pictures_are_there(ctx, job)
        session.add(job)
    log.info("%s shows run %s as waiting although it was answered: answered once more", run.note, run.id)
    ctx.to_deliver.add(run.note)
    return True


def _pictures_are_there(ctx: Context, job: JobRow) -> bool:
    return all(ctx.path(rel).is_file() for rel in json.loads(job.pictures))


def nothing_for_a_copy(original: str) -> Plan:
    """What is said in a note that was copied while the other one waited for its answer."""
    said = f"this was copied while {original} waited for its answer, which is there; tick `run` to run this note too"
    return Plan(message=said, status="cancelled")


def followers(session: Session, run: RunRow) -> list[NoteRow]:
    """Other notes that name this run: where its own went, most likely first, or copies of it."""
    own = notes.note_at(session, run.note)
    file = (own.dev, own.ino) if own is not None else (run.note_dev, run.note_ino)
    found = [row for row in notes.notes_with_job(session, run.id) if row.path != run.note]
    return sorted(found, key=lambda row: ((row.dev, row.ino) != file, row.path))
