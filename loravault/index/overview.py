"""The library in numbers, and its duplicates, from the rows; what counts is decided in `library/overview.py`."""

from __future__ import annotations

from sqlmodel import Session, col, select

from loravault.index import images
from loravault.index.covers import covers
from loravault.index.library import entries
from loravault.index.tables import AdapterRow
from loravault.library import overview
from loravault.library.entry import Place
from loravault.library.overview import Duplicate, Statistics


def duplicates(session: Session) -> list[Duplicate]:
    """Adapters whose weights lie at several places, those that waste the most space first."""
    return overview.duplicates(entries(session), _inodes(session))


def statistics(session: Session) -> Statistics:
    """The library in numbers."""
    unread = session.exec(select(AdapterRow).where(col(AdapterRow.weight_id).is_(None))).all()
    return overview.statistics(
        entries(session),
        [Place(row.root, row.rel, row.state, row.size, row.mtime_ns) for row in unread],
        images.count_images(session),
        covers={key for key, row in covers(session).items() if row.path},
        inodes=_inodes(session),
    )


def _inodes(session: Session) -> dict[tuple[str, str], tuple[int, int]]:
    rows = session.exec(select(AdapterRow.root, AdapterRow.rel, AdapterRow.dev, AdapterRow.ino)).all()
    return {(root, rel): (dev, ino) for root, rel, dev, ino in rows}
