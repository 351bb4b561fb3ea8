"""Adapters that no file holds any more: their cards tell what they were.

So a card keeps its place in the galleries while its file is away, also when the index is new and never saw the file.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlmodel import Session

from loravault.index import commands
from loravault.library.entry import Entry, Place

#: A fact: root name -> how many sound looks in a row to believe that what they did not find is gone (at most two).
_ROOTS = "roots"
#: So many looks make a file missing.
ENOUGH = 2
_FENCE = "```prompt\n"


class LostCard(NamedTuple):
    """A card of weights that no file has. Texts as its row has them."""

    weight_id: str
    path: str
    fields: str
    body: str
    said: str


def entries_of_cards(session: Session, cards: Sequence[LostCard], made: Mapping[str, int]) -> list[Entry]:
    """An entry for each of these cards that says where its file was."""
    if not cards:
        return []
    known = looks(session)
    found = (_entry(session, card, known, made.get(card.weight_id, 0)) for card in cards)
    return [entry for entry in found if entry is not None]


def remember_looks(session: Session, roots: Collection[str], sound: Collection[str]) -> set[str]:
    """A whole look is over, in which these of the `roots` of the config could be seen.

    Returns the weight ids of cards without a file if more is known of them now: that they are missing.
    """
    old = looks(session)
    new = {name: min(ENOUGH, (old or {}).get(name, 0) + (name in sound)) for name in sorted(roots)}
    if new == old:
        return set()
    commands.set_fact(session, _ROOTS, json.dumps(new, ensure_ascii=False))
    return lost(session)


def looks(session: Session) -> dict[str, int] | None:
    """Root name -> how many looks saw all of it; None before the first one."""
    found: dict[str, int] | None = json.loads(commands.fact(session, _ROOTS) or "null")
    return found


def is_seen(root: str, looks: Mapping[str, int] | None) -> bool:
    """Whether what is not found in a root is not there. A root that nobody configured has nothing in it."""
    return looks is not None and looks.get(root, ENOUGH) >= ENOUGH


def lost(session: Session) -> set[str]:
    """The weight ids of cards whose weights no file has."""
    return {row[0] for row in session.connection().execute(_LOST)}


_LOST = text(
    """
    SELECT weight_id FROM card WHERE weight_id IS NOT NULL AND problem IS NULL
        AND weight_id NOT IN (SELECT weight_id FROM adapter WHERE weight_id IS NOT NULL)
    """
)
_AT = text("SELECT weight_id, state FROM adapter WHERE root = :root AND rel = :rel")


def _entry(session: Session, card: LostCard, looks: Mapping[str, int] | None, pictures: int) -> Entry | None:
    said: dict[str, Any] = json.loads(card.said)
    own: dict[str, Any] = json.loads(card.fields)
    root, _, rel = str(said.get("lora_file") or "").partition("/")
    if not rel:
        return None
    state = _state(session, (root, rel), str(said.get("state") or "ok"), looks)
    aliases = tuple(own.get("aliases") or ())
    return Entry(
        weight_id=card.weight_id,
        name=PurePosixPath(rel).stem if rel.lower().endswith(".safetensors") else rel,
        places=(Place(root, rel, state, int(1e6 * _number(said.get("size_mb"))), _day(said.get("added"))),),
        state=state,
        family=str(said.get("family") or "unknown"),
        variant=own.get("variant"),
        network=said.get("network"),
        rank=said["rank"] if isinstance(said.get("rank"), int) else None,
        alpha=None,
        title=aliases[0] if aliases else None,
        trigger_words=tuple(own.get("trigger_words") or ()),
        weight=own.get("weight"),
        negative=own.get("negative"),
        base=own.get("base"),
        topics=tuple(own.get("topics") or ()),
        tags=tuple(own.get("tags") or ()),
        aliases=aliases,
        rating=own.get("rating"),
        favourite=bool(own.get("favourite")),
        cover=own.get("cover"),
        sha256=said.get("sha256"),
        autov2=said.get("autov2"),
        autov3=said.get("autov3"),
        facts=_facts(card.body),
        sources=dict.fromkeys(own, "card"),
        card=card.path,
        card_body=card.body,
        pictures=pictures,
        from_card=True,
    )


def _state(session: Session, place: tuple[str, str], said: str, looks: Mapping[str, int] | None) -> str:
    """What is known of the file that a card names; as long as nothing is, what the card says.

    A folder that was not looked at in full is no reason to say that anything is gone.
    """
    row = session.connection().execute(_AT, {"root": place[0], "rel": place[1]}).first()
    if row is not None and row[0] is None and row[1] in ("broken", "incomplete"):
        return "broken"
    gone = row is not None or is_seen(place[0], looks)
    return "missing" if gone else "ok" if said not in ("missing", "broken") else said


def _facts(body: str) -> dict[str, Any]:
    """The example on the card, which its page shows too."""
    _, fence, rest = body.partition(_FENCE)
    example = rest.partition("\n")[0].rpartition("<lora:")[0].strip().rstrip(",") if fence else ""
    return {"sample_prompts": [example]} if example else {}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e9 else 0.0


def _day(value: object) -> int:
    """Nanoseconds; 0 if it is no day."""
    try:
        return int(datetime.fromisoformat(str(value)).replace(tzinfo=UTC).timestamp()) * 10**9
    except (ValueError, OverflowError):
        return 0
