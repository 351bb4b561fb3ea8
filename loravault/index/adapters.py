"""The adapters as rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlmodel import Session, col, func, select

from loravault.index.tables import AdapterRow

if TYPE_CHECKING:
    from loravault.library.identify import AdapterRecord


def adapters(session: Session) -> Sequence[AdapterRow]:
    """Every adapter, by name, then place."""
    return session.exec(select(AdapterRow).order_by(AdapterRow.name, AdapterRow.root, AdapterRow.rel)).all()


def adapters_of_root(session: Session, root: str) -> Sequence[AdapterRow]:
    """Every adapter of one root."""
    return session.exec(select(AdapterRow).where(AdapterRow.root == root)).all()


def adapters_by_weight_id(session: Session, weight_id: str) -> Sequence[AdapterRow]:
    """The copies of one adapter."""
    return session.exec(select(AdapterRow).where(AdapterRow.weight_id == weight_id)).all()


def store_hashes(session: Session, weight_id: str, autov2: str | None, autov3: str | None) -> None:
    """Hashes that the worker computed while it read the file."""
    for row in adapters_by_weight_id(session, weight_id):
        row.autov2 = autov2 or row.autov2
        row.autov3 = autov3 or row.autov3
        session.add(row)


def count_adapters(session: Session) -> dict[str, int]:
    """How many adapters are in each state."""
    rows = session.exec(select(AdapterRow.state, func.count()).group_by(AdapterRow.state)).all()
    return {state: int(n) for state, n in rows}


def count_families(session: Session) -> dict[str, int]:
    """How many usable adapters each family has, the largest first."""
    rows = session.exec(
        select(AdapterRow.family, func.count())
        .where(col(AdapterRow.state) == "ok")
        .group_by(AdapterRow.family)
        .order_by(func.count().desc(), AdapterRow.family)
    ).all()
    return {family: int(n) for family, n in rows}


def to_row(record: AdapterRecord, dev: int, ino: int, old: AdapterRow | None) -> AdapterRow:
    """A row from what the file told. Hashes survive only if the weights are the same, and a measured one any claim."""
    kept = old if old is not None and old.weight_id == record.weight_id else None
    claimed = record.autov2 is None  # a file that was hashed has both
    return AdapterRow(
        root=record.root,
        rel=record.rel,
        weight_id=record.weight_id,
        name=record.name,
        alias=record.alias,
        size=record.size,
        mtime_ns=record.mtime_ns,
        dev=dev,
        ino=ino,
        family=record.family,
        variant=record.variant,
        network=record.network,
        rank=record.rank,
        alpha=record.alpha,
        trigger_words=json.dumps(list(record.trigger_words), ensure_ascii=False),
        title=record.title,
        preview=record.preview,
        state=record.state,
        reason=record.reason,
        autov2=kept.autov2 if kept and claimed else record.autov2,
        autov3=(kept.autov3 if kept and claimed else None) or record.autov3,
    )
