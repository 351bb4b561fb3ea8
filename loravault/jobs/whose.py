"""Which note a run belongs to, when notes are renamed between the tick and the answer."""

from __future__ import annotations

from sqlmodel import Session

from loravault.index import notes, work
from loravault.jobs.context import Context
from loravault.jobs.reading import ReadNote


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
