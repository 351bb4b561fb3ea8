"""The library as entries: the rows of files and cards put together."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
from sqlmodel import Session, col, select

from loravault.index import images, lost
from loravault.index.cards import card_order
from loravault.index.chunks import chunks
from loravault.index.tables import AdapterRow
from loravault.library.copies import in_order_of_use
from loravault.library.entry import USER_FIELDS, Entry, Place


class _File(NamedTuple):
    """The columns of an adapter file that an entry is made of; plain tuples, because ten thousand are read at once."""

    weight_id: str
    root: str
    rel: str
    name: str
    size: int
    mtime_ns: int
    dev: int
    ino: int
    family: str
    variant: str | None
    network: str | None
    rank: int | None
    alpha: float | None
    trigger_words: str
    title: str | None
    preview: str | None
    state: str
    sources: str
    facts: str
    hashed: int
    sha256: str | None
    autov2: str | None
    autov3: str | None


_Card = lost.LostCard


def entries(session: Session, only: Collection[str] | None = None, *, with_cards: bool = True) -> list[Entry]:
    """Every adapter (or those of the weight ids in `only`), by name, then weight id.

    Weights that no file holds are known by their card. Without cards it is what was known before anybody wrote into
    one.
    """
    files: dict[str, list[_File]] = defaultdict(list)
    statement = f"SELECT {', '.join(_File._fields)} FROM adapter WHERE weight_id IS NOT NULL"
    for file in map(_File._make, _rows(session, statement, only)):
        if file.weight_id:
            files[file.weight_id].append(file)
    cards = {card.weight_id: card for card in reversed(_cards(session, only))}
    made = images.counts_by_adapter(session)
    for key, rows in files.items():
        if len(rows) > 1:
            files[key] = in_order_of_use(rows, _file_of(cards.get(key)))[0]
    cards = cards if with_cards else {}
    found = [_entry(key, rows, cards.get(key), made.get(key, 0)) for key, rows in files.items()]
    found += lost.entries_of_cards(session, [card for key, card in cards.items() if key not in files], made)
    return sorted(found, key=lambda entry: (entry.name.casefold(), entry.weight_id))


def sums(session: Session, only: Collection[str]) -> dict[str, str]:
    """Weight id -> a sum of all that its entry is made of, its pictures apart; of those that a file holds.

    Equal sums, equal entries: it takes a tenth of the time to see that there is nothing to do.
    """
    statement = f"SELECT {', '.join(_File._fields)} FROM adapter WHERE weight_id IS NOT NULL"
    rows: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for file in sorted(_rows(session, statement, only), key=itemgetter(0, 1, 2)):
        rows[file[0]].append(file)
    for card in _cards(session, only):
        if card.weight_id in rows:
            rows[card.weight_id].append(tuple(card))
    return {
        key: hashlib.blake2b(repr(some).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
        for key, some in rows.items()
    }


def card_paths(session: Session, weight_ids: Collection[str]) -> dict[str, str]:
    """weight id -> vault-relative path of its card, for those that have one."""
    return {card.weight_id: card.path for card in reversed(_cards(session, weight_ids))}


def _cards(session: Session, only: Collection[str] | None) -> list[_Card]:
    """By path: of two cards of one adapter the first counts."""
    statement = f"SELECT {', '.join(_Card._fields)} FROM card WHERE weight_id IS NOT NULL AND problem IS NULL"
    return sorted(map(_Card._make, _rows(session, statement, only)), key=lambda card: card_order(card.path))


def _rows(session: Session, statement: str, only: Collection[str] | None) -> Iterator[tuple[Any, ...]]:
    """What the statement finds, of all weight ids or of these only."""
    session.flush()  # the statement is none of the session's own
    connection = session.connection()
    if only is None:
        yield from _fetched(connection.exec_driver_sql(statement))
        return
    for some in chunks(sorted(only)):
        marks = ", ".join("?" * len(some))
        yield from _fetched(connection.exec_driver_sql(f"{statement} AND weight_id IN ({marks})", tuple(some)))


def _fetched(result: Any) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = result.cursor.fetchall()
    return found


_quickly: Callable[[str], Any] = msgspec.json.Decoder().decode


def _read(text: str) -> Any:
    """A value that was stored as JSON."""
    try:
        return _quickly(text)
    except (msgspec.MsgspecError, UnicodeError):  # a number without bounds, half a character: `json` wrote it
        return json.loads(text)


_BLANK = Entry("", "", (), "", "", None, None, None, None, None, ())


def _entry(weight_id: str, rows: Sequence[_File], card: _Card | None, pictures: int) -> Entry:
    first = rows[0]
    facts: dict[str, Any] = _read(first.facts)
    hashed = first if first.hashed else next((row for row in rows if row.hashed), first)
    entry = _BLANK.changed(  # the constructor goes through all the fields
        weight_id=weight_id,
        name=first.name,
        places=tuple([Place(row.root, row.rel, row.state, row.size, row.mtime_ns) for row in rows]),
        state="missing" if first.state == "missing" else "ok" if first.state in ("ok", "duplicate") else "broken",
        family=first.family,
        variant=first.variant,
        network=first.network,
        rank=first.rank,
        alpha=first.alpha,
        title=first.title,
        trigger_words=tuple(_read(first.trigger_words) or ()),
        weight=facts.get("weight"),
        negative=facts.get("negative"),
        topics=tuple(facts.get("topics") or ()),
        rating=facts.get("rating"),
        favourite=bool(facts.get("favourite")),
        nsfw=int(facts.get("nsfw") or 0),
        hashed=bool(hashed.hashed),
        sha256=hashed.sha256,
        autov2=hashed.autov2,
        autov3=hashed.autov3,
        facts=facts,
        sources=_read(first.sources),
        preview=first.preview,
        pictures=pictures,
    )
    return with_card(entry, card.path, _read(card.fields), card.body) if card else entry


def with_card(entry: Entry, path: str, fields: Mapping[str, Any], body: str) -> Entry:
    """What is known without a card, and what a card says: its value where it has the key, even an empty one."""
    own: dict[str, Any] = {key: value for key, value in fields.items() if key in USER_FIELDS}
    for key in ("trigger_words", "topics", "tags", "aliases"):
        if key in own:
            own[key] = tuple(own[key] or ())
    if "favourite" in own:
        own["favourite"] = bool(own["favourite"])
    sources = entry.sources | dict.fromkeys(fields, "card")
    return entry.changed(**own, sources=sources, card=path, card_body=body)


def _file_of(card: _Card | None) -> str | None:
    """The file that a card names."""
    file = _read(card.said).get("lora_file") if card else None
    return file if isinstance(file, str) else None


def weight_ids(session: Session) -> list[str]:
    """The weight ids of all adapters whose weights are known, in order."""
    rows = session.exec(select(AdapterRow.weight_id).where(col(AdapterRow.weight_id).is_not(None)).distinct()).all()
    return sorted(row for row in rows if row)


def all_weight_ids(session: Session) -> list[str]:
    """Those, and the weight ids that only a card tells of."""
    return sorted({*weight_ids(session), *lost.lost(session)})
