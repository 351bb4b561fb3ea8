"""The library as entries: the rows of files and cards put together."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlmodel import Session, col, select

from loravault.index import images
from loravault.index.tables import AdapterRow, CardRow
from loravault.library.entry import Entry, Place

#: SQLite takes this many variables in one statement, whatever its build.
_CHUNK = 900


def entries(session: Session, only: Collection[str] | None = None, *, with_cards: bool = True) -> list[Entry]:
    """Every adapter (or those of the weight ids in `only`), by name, then weight id.

    Without cards it is what was known before anybody wrote into one.
    """
    files: dict[str, list[AdapterRow]] = defaultdict(list)
    for row in _files(session, only):
        if row.weight_id:
            files[row.weight_id].append(row)
    cards = {row.weight_id: row for row in reversed(_cards(session, only)) if row.weight_id} if with_cards else {}
    made = images.counts_by_adapter(session)
    found = [_entry(key, rows, cards.get(key), made.get(key, 0)) for key, rows in files.items()]
    return sorted(found, key=lambda entry: (entry.name.casefold(), entry.weight_id))


def card_paths(session: Session, weight_ids: Collection[str]) -> dict[str, str]:
    """weight id -> vault-relative path of its card, for those that have one."""
    return {str(row.weight_id): row.path for row in reversed(_cards(session, weight_ids))}


def _files(session: Session, only: Collection[str] | None) -> Iterable[AdapterRow]:
    if only is None:
        yield from session.exec(select(AdapterRow)).all()
        return
    for some in _chunks(only):
        yield from session.exec(select(AdapterRow).where(col(AdapterRow.weight_id).in_(some))).all()


def _cards(session: Session, only: Collection[str] | None) -> list[CardRow]:
    """By path: of two cards of one adapter the first counts."""
    usable = select(CardRow).where(col(CardRow.weight_id).is_not(None), col(CardRow.problem).is_(None))
    if only is None:
        found = list(session.exec(usable).all())
    else:
        found = [
            row for some in _chunks(only) for row in session.exec(usable.where(col(CardRow.weight_id).in_(some))).all()
        ]
    return sorted(found, key=lambda row: row.path)


def _chunks(values: Collection[str]) -> Iterable[Sequence[str]]:
    ordered = sorted(values)
    for start in range(0, len(ordered), _CHUNK):
        yield ordered[start : start + _CHUNK]


def order_of_use(row: AdapterRow) -> tuple[Any, ...]:
    """Which of several copies is used: one that can be, then by place."""
    return (row.state in ("missing", "broken", "incomplete"), row.root, row.rel)


def _entry(weight_id: str, rows: Sequence[AdapterRow], card: CardRow | None, pictures: int) -> Entry:
    ordered = sorted(rows, key=order_of_use)
    first = ordered[0]
    facts: dict[str, Any] = json.loads(first.facts)
    sources: dict[str, str] = json.loads(first.sources)
    own: dict[str, Any] = json.loads(card.fields) if card else {}
    sources |= dict.fromkeys(own, "card")
    hashed = next((row for row in ordered if row.hashed), first)
    return Entry(
        weight_id=weight_id,
        name=first.name,
        places=tuple(Place(row.root, row.rel, row.state, row.size, row.mtime_ns) for row in ordered),
        state="missing" if first.state == "missing" else "ok" if first.state in ("ok", "duplicate") else "broken",
        family=first.family,
        variant=_own(own, "variant", first.variant),
        network=first.network,
        rank=first.rank,
        alpha=first.alpha,
        title=first.title,
        trigger_words=tuple(_own(own, "trigger_words", json.loads(first.trigger_words)) or ()),
        weight=_own(own, "weight", facts.get("weight")),
        negative=_own(own, "negative", facts.get("negative")),
        base=_own(own, "base", None),
        topics=tuple(_own(own, "topics", facts.get("topics")) or ()),
        tags=tuple(own.get("tags") or ()),
        aliases=tuple(own.get("aliases") or ()),
        rating=_own(own, "rating", facts.get("rating")),
        favourite=bool(_own(own, "favourite", facts.get("favourite"))),
        cover=own.get("cover"),
        nsfw=int(facts.get("nsfw") or 0),
        hashed=hashed.hashed,
        sha256=hashed.sha256,
        autov2=hashed.autov2,
        autov3=hashed.autov3,
        facts=facts,
        sources=sources,
        card=card.path if card else None,
        card_body=card.body if card else "",
        preview=first.preview,
        pictures=pictures,
    )


def _own(own: Mapping[str, Any], key: str, known: Any) -> Any:
    """The card's value if the card has the key, even an empty one; else what is known otherwise."""
    return own.get(key, known)


def weight_ids(session: Session) -> list[str]:
    """The weight ids of all adapters whose weights are known, in order."""
    rows = session.exec(select(AdapterRow.weight_id).where(col(AdapterRow.weight_id).is_not(None)).distinct()).all()
    return sorted(row for row in rows if row)
