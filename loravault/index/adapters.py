"""The adapters as rows."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import not_, text
from sqlmodel import Session, col, func, or_, select

from loravault.index.chunks import chunks
from loravault.index.tables import AdapterRow
from loravault.library.copies import in_order_of_use
from loravault.vault.inert import inert_value

if TYPE_CHECKING:
    from loravault.formats.hashes import FileHashes
    from loravault.library.identify import AdapterRecord

#: The reason of a duplicate that is no copy at all.
SAME_FILE = "the same file as "


def adapters(session: Session) -> Sequence[AdapterRow]:
    """Every adapter, by name, then place."""
    return session.exec(select(AdapterRow).order_by(AdapterRow.name, AdapterRow.root, AdapterRow.rel)).all()


class NamedAdapter(NamedTuple):
    """What of an adapter file a name or hash is looked up by, and what its use needs: ten thousand fit into memory."""

    name: str
    alias: str | None
    root: str
    rel: str
    state: str
    weight_id: str | None
    family: str
    variant: str | None
    reason: str | None
    #: JSON list, in the form of the card.
    trigger_words: str
    weight: float | None
    negative: str | None
    sha256: str | None
    autov1: str | None
    autov2: str | None
    autov3: str | None
    blake3: str | None
    crc32: str | None
    #: JSON object: what other files claim to be its hashes.
    claims: str | None
    #: JSON object: the user's fields on its card.
    fields: str | None


_NAMED = text(
    """
    SELECT a.name, a.alias, a.root, a.rel, a.state, a.weight_id, a.family, a.variant, a.reason, a.trigger_words,
        json_extract(a.facts, '$.weight'), json_extract(a.facts, '$.negative'),
        a.sha256, a.autov1, a.autov2, a.autov3, a.blake3, a.crc32, json_extract(a.facts, '$.hashes'),
        (SELECT c.fields FROM card c WHERE c.weight_id = a.weight_id AND c.problem IS NULL
            ORDER BY substr(c.path, 1, length(c.path) - 3) LIMIT 1)
    FROM adapter a ORDER BY a.name, a.root, a.rel
    """
)


def named_adapters(session: Session) -> list[NamedAdapter]:
    """Every adapter file by name, then place."""
    return [NamedAdapter(*row) for row in session.connection().execute(_NAMED)]


def adapters_of_root(session: Session, root: str) -> Sequence[AdapterRow]:
    """Every adapter of one root."""
    return session.exec(select(AdapterRow).where(AdapterRow.root == root)).all()


#: Of one file: size, mtime_ns, dev, ino, beside, in the order of `library.scan.Found`.
FileKey = tuple[int, int, int, int, str]


@dataclass(frozen=True)
class Known:
    """What a look at a root compares with; plain tuples, because ten thousand are read at every look."""

    #: Path inside the root -> key of the file there. Missing ones are left out.
    present: dict[str, FileKey]
    #: Some file was not seen the last time.
    doubts: bool


def known_files(session: Session, root: str) -> Known:
    """What is known of the files of one root."""
    rows = session.connection().exec_driver_sql(
        "SELECT rel, size, mtime_ns, dev, ino, beside, unseen FROM adapter WHERE root = ? AND state != 'missing'",
        (root,),
    )
    found = rows.cursor.fetchall() if rows.cursor is not None else []
    return Known({row[0]: row[1:6] for row in found}, any(row[6] for row in found))


def adapter_at(session: Session, root: str, rel: str) -> AdapterRow | None:
    """The row of one file."""
    return session.get(AdapterRow, (root, rel))


def same_file(session: Session, weight_id: str, size: int, mtime_ns: int, inode: tuple[int, int]) -> AdapterRow | None:
    """A file that was hashed and is surely this one under another name: moved, linked, or copied with its time."""
    rows = session.exec(
        select(AdapterRow).where(
            AdapterRow.weight_id == weight_id, AdapterRow.size == size, col(AdapterRow.hashed).is_(True)
        )
    ).all()
    return next((row for row in rows if row.mtime_ns == mtime_ns or (row.dev, row.ino) == inode), None)


def forget_left_places(session: Session, root: str, found: Collection[str]) -> set[str]:
    """Places of a root where a file is no more although its weights are elsewhere: it was moved, or was a copy.

    `found` are the paths that the last look found. Returns the weight ids.
    """
    unseen = select(AdapterRow).where(
        AdapterRow.root == root, AdapterRow.unseen > 0, col(AdapterRow.weight_id).is_not(None)
    )
    gone = [row for row in session.exec(unseen).all() if row.rel not in found]
    left: set[str] = set()
    for row in gone:
        here = (row.root, row.rel)
        others = adapters_by_weight_id(session, str(row.weight_id))
        if any((o.root, o.rel) != here and o.state in ("ok", "duplicate") and not o.unseen for o in others):
            left.add(str(row.weight_id))
            session.delete(row)
    return left


def other_roots(session: Session, names: Collection[str]) -> list[str]:
    """Roots of which adapters are known although they are not among these."""
    return sorted(set(session.exec(select(AdapterRow.root).distinct()).all()) - set(names))


def leave_roots(session: Session, names: Collection[str], reason: str) -> list[str | None]:
    """Only these roots are configured: what is known of others is missing. Returns the weight ids of what became so."""
    left: list[str | None] = []
    for root in other_roots(session, names):
        for row in adapters_of_root(session, root):
            if row.state != "missing":
                left.append(row.weight_id)
            if row.reason != reason:
                row.state, row.reason, row.unseen = "missing", reason, 2
                session.add(row)
    return left


def mark_duplicates(session: Session, only: Collection[str] | None = None) -> set[str]:
    """Of several files with the same weights one is used, the others are its duplicates; see `library.copies`.

    Returns the weight ids (`only` these are looked at) in which something changed.
    """
    present = col(AdapterRow.state).in_(("ok", "duplicate"))
    several = (
        select(AdapterRow.weight_id)
        .where(present, col(AdapterRow.weight_id).is_not(None))
        .group_by(col(AdapterRow.weight_id))
        .having(or_(func.count() > 1, func.max(AdapterRow.state) != "ok", func.min(AdapterRow.state) != "ok"))
    )
    if only is not None:
        several = several.where(col(AdapterRow.weight_id).in_(list(only)))
    copies: dict[str, list[AdapterRow]] = defaultdict(list)
    for row in session.exec(select(AdapterRow).where(present, col(AdapterRow.weight_id).in_(several))).all():
        copies[str(row.weight_id)].append(row)
    on_card = _files_on_cards(session, copies) if copies else {}
    changed: set[str] = set()
    for weight_id, rows in copies.items():
        (first, *others), again = in_order_of_use(rows, on_card.get(weight_id))
        told: list[tuple[AdapterRow, str, str | None]] = [(first, "ok", None)]
        told += [(row, "duplicate", f"the same weights as {first.root}/{first.rel}") for row in others]
        told += [(row, "duplicate", f"{SAME_FILE}{one.root}/{one.rel}") for row, one in again]
        for row, state, reason in told:
            if (row.state, row.reason) != (state, reason):
                row.state, row.reason = state, reason
                session.add(row)
                changed.add(weight_id)
    return changed


def _files_on_cards(session: Session, weight_ids: Collection[str]) -> dict[str, str]:
    """Weight id -> the file that its card names."""
    connection = session.connection()
    found: dict[str, str] = {}
    for some in chunks(sorted(weight_ids)):
        statement = (
            "SELECT weight_id, json_extract(said, '$.lora_file') FROM card "
            f"WHERE problem IS NULL AND weight_id IN ({', '.join('?' * len(some))}) ORDER BY path DESC"
        )
        rows = connection.exec_driver_sql(statement, tuple(some))
        found.update({weight_id: file for weight_id, file in rows if isinstance(file, str)})
    return found


def unreadable(session: Session) -> Sequence[AdapterRow]:
    """Files that never could be read: they have no weight id."""
    return session.exec(select(AdapterRow).where(col(AdapterRow.weight_id).is_(None))).all()


def adapters_by_weight_id(session: Session, weight_id: str) -> Sequence[AdapterRow]:
    """The copies of one adapter."""
    return session.exec(select(AdapterRow).where(AdapterRow.weight_id == weight_id)).all()


def store_hashes(session: Session, weight_id: str, place: tuple[str, str] | None, autov2: str, autov3: str) -> None:
    """Hashes that the worker computed while it read the file at `place` (root, path in it).

    Copies have the same weights, but perhaps another header: only the hash of the weights is theirs too. What was
    measured of a file itself stays.
    """
    for row in adapters_by_weight_id(session, weight_id):
        if row.hashed:
            continue
        if (row.root, row.rel) == place:
            row.autov2 = autov2
        row.autov3 = autov3
        session.add(row)


def present_places(session: Session, weight_id: str) -> list[tuple[str, str]]:
    """(root, path in it) of every file of these weights that can be used, the one that is used first in front."""
    usable = [row for row in adapters_by_weight_id(session, weight_id) if row.state in ("ok", "duplicate")]
    return [(row.root, row.rel) for row in sorted(usable, key=lambda row: (row.state != "ok", row.root, row.rel))]


class Unhashed(NamedTuple):
    """A file whose hashes were not measured yet."""

    root: str
    rel: str
    size: int
    mtime_ns: int
    #: A picture was made with it.
    used: bool


def without_hashes(session: Session) -> list[Unhashed]:
    """Every file that can be hashed and was not."""
    rows = session.connection().execute(
        text(
            """
            SELECT root, rel, size, mtime_ns, EXISTS (SELECT 1 FROM made WHERE made.weight_id = adapter.weight_id)
            FROM adapter WHERE NOT hashed AND state IN ('ok', 'duplicate')
            """
        )
    )
    return [Unhashed(*row) for row in rows]


def store_file_hashes(
    session: Session, place: tuple[str, str], version: tuple[int, int], hashes: FileHashes
) -> str | None:
    """Hashes of one file (root, path in it) in one version (size, mtime_ns). Returns the weight id if they were stored.

    The weights of a copy are the same, so it gets the hash of the weights; its header may be another.
    """
    row = session.get(AdapterRow, place)
    if row is None or (row.size, row.mtime_ns) != version:
        return None
    row.hashed = True
    row.sha256, row.autov1, row.autov2 = hashes.sha256, hashes.autov1, hashes.autov2
    row.autov3, row.blake3, row.crc32 = hashes.autov3[:12], hashes.blake3, hashes.crc32
    session.add(row)
    return row.weight_id


def trust_hashes(
    session: Session, weight_id: str, shown: str, hashes: tuple[str, str, str], size_mb: float | None = None
) -> bool:
    """After a rebuild: what the card of these weights says of the file at `shown` (root/path) need not be measured.

    `hashes`: SHA256, AutoV2, AutoV3 (12 digits). `size_mb`: as on the card; an edited header mostly changes it.
    A card does not say AutoV1, BLAKE3 and CRC32: they stay unknown.
    """
    sha256, autov2, autov3 = hashes
    for row in adapters_by_weight_id(session, weight_id):
        place = f"{row.root}/{row.rel}"  # on a card its active signs are broken
        if shown not in (place, inert_value(place)) or row.hashed or row.state not in ("ok", "duplicate"):
            continue
        if size_mb is not None and abs(row.size / 1e6 - size_mb) > (0.051 if row.size >= 1e6 else 0.00051):
            continue
        row.hashed, row.sha256, row.autov2, row.autov3 = True, sha256, autov2, autov3
        session.add(row)
        return True
    return False


def count_adapters(session: Session) -> dict[str, int]:
    """How many adapters are in each state. A file that is seen at several places is one."""
    again = col(AdapterRow.reason).startswith(SAME_FILE)
    counted = select(AdapterRow.state, func.count()).where(or_(col(AdapterRow.reason).is_(None), not_(again)))
    rows = session.exec(counted.group_by(AdapterRow.state)).all()
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


def to_row(record: AdapterRecord, dev: int, ino: int, old: AdapterRow | None, beside: str = "") -> AdapterRow:
    """A row from what the file told. Hashes survive only if the weights are the same, and a measured one any claim.

    Hashes of the whole file survive only if its size is the same too: an edited header changes it nearly always.
    """
    kept = old if old is not None and old.weight_id == record.weight_id and record.weight_id else None
    whole = kept if kept is not None and kept.size == record.size else None
    claimed = record.autov2 is None  # a file that was hashed has both
    if record.weight_id is None and old is not None and old.weight_id is not None:
        return _damaged(record, dev, ino, old, beside)
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
        sources=json.dumps(dict(record.sources), ensure_ascii=False),
        facts=record.facts,
        beside=beside,
        hashed=record.hashed or (whole is not None and whole.hashed),
        sha256=record.sha256 or (whole.sha256 if whole else None),
        autov1=record.autov1 or (whole.autov1 if whole else None),
        autov2=whole.autov2 if whole and claimed else record.autov2,
        autov3=(kept.autov3 if kept and claimed else None) or record.autov3,
        blake3=record.blake3 or (whole.blake3 if whole else None),
        crc32=record.crc32 or (whole.crc32 if whole else None),
    )


def _damaged(record: AdapterRecord, dev: int, ino: int, old: AdapterRow, beside: str) -> AdapterRow:
    """A file that could be read once and cannot any more: what was known of it stays, for its card and its pictures.

    Its hashes were those of the whole file; it is hashed again when it is whole again.
    """
    now = {"dev": dev, "ino": ino, "beside": beside, "size": record.size, "mtime_ns": record.mtime_ns}
    told = {"state": record.state, "reason": record.reason, "unseen": 0, "hashed": False}
    return AdapterRow(**{**old.model_dump(), **now, **told})
