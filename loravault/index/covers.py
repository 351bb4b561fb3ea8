"""Covers as rows, and the pictures that were made to stand for an adapter."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import text
from sqlmodel import Session, col, select

from loravault.index.chunks import chunks
from loravault.index.tables import AdapterRow, CoverRow, ImageRow
from loravault.library.covers import Rendered


def covers(session: Session, only: Collection[str] | None = None) -> dict[str, CoverRow]:
    """Weight id -> what is known of its cover; of all adapters or of some."""
    if only is None:
        return {row.weight_id: row for row in session.exec(select(CoverRow)).all()}
    found: dict[str, CoverRow] = {}
    for some in chunks(sorted(only)):
        rows = session.exec(select(CoverRow).where(col(CoverRow.weight_id).in_(some))).all()
        found |= {row.weight_id: row for row in rows}
    return found


def store(session: Session, rows: Iterable[CoverRow]) -> None:
    """Remember covers; their files are durably in place."""
    for row in rows:
        session.merge(row)


def problems(session: Session) -> dict[str, str]:
    """Weight id -> what was wrong with the pictures of an adapter."""
    rows = session.exec(select(CoverRow).where(col(CoverRow.problem).is_not(None))).all()
    return {row.weight_id: row.problem or "" for row in rows}


@dataclass(frozen=True)
class Bare:
    """An adapter without any picture of its own."""

    weight_id: str
    family: str
    variant: str | None


_BARE = text(
    """
    SELECT a.weight_id, a.family, a.variant FROM adapter a LEFT JOIN cover c ON c.weight_id = a.weight_id
    WHERE a.state = 'ok' AND a.weight_id IS NOT NULL AND (
        (a.preview IS NULL AND json_extract(a.facts, '$.stills') IS NULL
            AND json_extract(a.facts, '$.embedded_preview') IS NULL)
        OR (c.path IS NULL AND c.problem IS NOT NULL))
    GROUP BY a.weight_id ORDER BY a.name, a.weight_id
    """
)


def bare(session: Session) -> list[Bare]:
    """Adapters with no picture beside them or in them that can be read, by name. Rendered pictures do not count."""
    return [Bare(*row) for row in session.connection().execute(_BARE)]


def rendered(
    session: Session, only: Collection[str] | None = None, *, but: Callable[[ImageRow], bool] = lambda _row: False
) -> dict[str, Rendered]:
    """Weight id -> the newest picture that was made to stand for it; pictures that `but` is true of do not count."""
    found: dict[str, tuple[tuple[str, int], Rendered]] = {}
    for row in _made_to_stand(session, only):
        if but(row):
            continue
        # Names begin with the time; of one job the first picture counts.
        order = (row.path.rpartition("/")[2].rpartition("-")[0], -row.n)
        if row.stands_for not in found or order > found[row.stands_for][0]:
            found[row.stands_for] = order, Rendered(row.path, row.named)
    return {weight_id: picture for weight_id, (_, picture) in found.items()}


def standing(session: Session) -> list[ImageRow]:
    """Every picture that was made to stand for an adapter."""
    return list(_made_to_stand(session, None))


def variants(session: Session, only: Collection[str]) -> dict[str, str | None]:
    """Weight id -> variant of its family, of these adapters."""
    found: dict[str, str | None] = {}
    for some in chunks(sorted(only)):
        rows = session.exec(select(AdapterRow.weight_id, AdapterRow.variant).where(col(AdapterRow.weight_id).in_(some)))
        found |= {str(weight_id): variant for weight_id, variant in rows}
    return found


def rendered_fingerprints(session: Session, only: Collection[str]) -> set[str]:
    """Fingerprints of the pictures that were made to stand for these adapters."""
    return {row.fingerprint for row in _made_to_stand(session, only)}


def _made_to_stand(session: Session, only: Collection[str] | None) -> Iterable[ImageRow]:
    if only is None:
        yield from session.exec(select(ImageRow).where(ImageRow.stands_for != "")).all()
        return
    for some in chunks(sorted(only)):
        yield from session.exec(select(ImageRow).where(col(ImageRow.stands_for).in_(some))).all()
