"""What is known of the notes that concern us."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlmodel import Session, col, delete, or_, select

from loravault.index.tables import AutoRow, NoteRow


def note_at(session: Session, path: str) -> NoteRow | None:
    """The row of the note at this path."""
    return session.get(NoteRow, path)


def was_seen_unticked(session: Session, path: str) -> bool:
    """Whether the note at this path was ever read with its `run` not ticked."""
    row = note_at(session, path)
    return row is not None and row.seen_unticked


def note_or_new(session: Session, path: str) -> NoteRow:
    """The row of the note at this path, made when there is none."""
    row = session.get(NoteRow, path)
    if row is None:
        row = NoteRow(path=path, sha="")
        session.add(row)
    return row


def notes_with_job(session: Session, run_id: str) -> Sequence[NoteRow]:
    """Notes whose `lv_job` names this run (on whatever machine)."""
    return session.exec(
        select(NoteRow).where(or_(col(NoteRow.lv_job) == run_id, col(NoteRow.lv_job).startswith(run_id + "@")))
    ).all()


def paths(session: Session) -> Sequence[str]:
    """The paths of all rows."""
    return session.exec(select(NoteRow.path)).all()


def notes_with_acks(session: Session) -> Sequence[NoteRow]:
    """Notes in which a checkbox of the user's waits to be reset."""
    return session.exec(
        select(NoteRow).where(or_(col(NoteRow.cancel_ack).is_(True), col(NoteRow.run_ack).is_(True)))
    ).all()


def notes_with_problems(session: Session) -> Sequence[NoteRow]:
    """Notes that the dashboard must tell about, by path."""
    return session.exec(
        select(NoteRow)
        .where(or_(col(NoteRow.problem).is_not(None), col(NoteRow.write_problem).is_not(None)))
        .order_by(NoteRow.path)
    ).all()


def forget_note(session: Session, path: str) -> None:
    """The note is gone, or no longer concerns us."""
    row = session.get(NoteRow, path)
    if row is not None:
        session.delete(row)


def auto_known(session: Session, note: str) -> set[str]:
    """The fingerprints that `auto` has met in this note."""
    return set(session.exec(select(AutoRow.fingerprint).where(AutoRow.note == note)).all())


def auto_remember(session: Session, note: str, fingerprints: Sequence[str]) -> None:
    """`auto` has met these."""
    for fingerprint in fingerprints:
        session.merge(AutoRow(note=note, fingerprint=fingerprint))


def auto_forget(session: Session, note: str, fingerprints: Collection[str]) -> None:
    """`auto` has not met these."""
    session.exec(delete(AutoRow).where(col(AutoRow.note) == note, col(AutoRow.fingerprint).in_(fingerprints)))


def auto_move(session: Session, old: str, new: str) -> None:
    """A note was renamed; what `auto` has met goes with it."""
    auto_remember(session, new, sorted(auto_known(session, old)))
    session.exec(delete(AutoRow).where(col(AutoRow.note) == old))
