"""What is wrong with files of the library, for whoever shows it: lists that are cut, and how long they really are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import text
from sqlmodel import Session, col, func, select

from loravault.index import commands, covers
from loravault.index.library import card_paths
from loravault.index.tables import AdapterRow


class Unusable(NamedTuple):
    """A file that cannot be used."""

    #: `root/path`.
    place: str
    reason: str


class Uncovered(NamedTuple):
    """An adapter with pictures of which some cannot be shown."""

    #: Vault-relative path of its card, if it has one.
    card: str | None
    words: str


def unusable(session: Session, limit: int) -> list[Unusable]:
    """Broken and incomplete files, by place."""
    rows = session.exec(
        select(AdapterRow)
        .where(col(AdapterRow.state).in_(("broken", "incomplete")))
        .order_by(AdapterRow.root, AdapterRow.rel)
        .limit(limit)
    ).all()
    return [Unusable(f"{row.root}/{row.rel}", row.reason or row.state) for row in rows]


def uncovered(session: Session, limit: int) -> tuple[list[Uncovered], int]:
    """Adapters whose pictures are damaged or films only, by what is wrong; and how many there are in all."""
    problems = sorted(covers.problems(session).items(), key=lambda item: (item[1].casefold(), item[0]))
    cards = card_paths(session, [weight_id for weight_id, _ in problems[:limit]])
    return [Uncovered(cards.get(weight_id), words) for weight_id, words in problems[:limit]], len(problems)


def pickles(session: Session) -> list[str]:
    """Files (`root/path`) that are left alone because opening them can run code, as the last look found them."""
    told = json.loads(commands.fact(session, "pickles") or "[]")
    return [str(place) for place in told] if isinstance(told, list) else []


def elsewhere(session: Session) -> list[str]:
    """Links in the roots that are not followed because they lead out of all roots, each with where it leads."""
    return [f"{place} (to {to})" for place, to in json.loads(commands.fact(session, "elsewhere") or "[]")]


_WORDLESS = text(
    """
    SELECT count(*) FROM adapter a WHERE a.state = 'ok' AND '[]' = COALESCE(
        (SELECT json_extract(c.fields, '$.trigger_words') FROM card c
            WHERE c.weight_id = a.weight_id AND c.problem IS NULL
            ORDER BY substr(c.path, 1, length(c.path) - 3) LIMIT 1),
        a.trigger_words)
    """
)


def without_trigger_words(session: Session) -> int:
    """How many usable adapters neither say any nor have any on their card."""
    return int(session.connection().execute(_WORDLESS).scalar_one())


def hashing(session: Session) -> tuple[int, int]:
    """(hashed, all) of the files that can be hashed."""
    can_be: Sequence[tuple[bool, int]] = session.exec(
        select(AdapterRow.hashed, func.count())
        .where(col(AdapterRow.state).in_(("ok", "duplicate")))
        .group_by(col(AdapterRow.hashed))
    ).all()
    return sum(n for hashed, n in can_be if hashed), sum(n for _, n in can_be)
