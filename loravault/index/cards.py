"""Cards as rows: what was last read of each."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

from sqlalchemy import text
from sqlmodel import Session, col, delete, select, update

from loravault.index import lost
from loravault.index.chunks import chunks
from loravault.index.tables import CardRow
from loravault.library.names import GivenNames


class KnownCard(NamedTuple):
    """What has to be known of every card at all times: ten thousand fit into memory."""

    path: str
    size: int
    mtime_ns: int
    weight_id: str | None
    problem: str | None
    ours: str


@dataclass
class CardRead:
    """What was read of a card: the values of its row."""

    path: str
    size: int
    mtime_ns: int
    sha: str
    weight_id: str | None
    #: JSON object.
    fields: str
    body: str
    problem: str | None = None
    ours: str = ""
    unwritten: str | None = None
    #: JSON object: our keys.
    said: str = "{}"


class AdapterPlace(NamedTuple):
    """One adapter file as far as names are concerned."""

    name: str
    alias: str | None
    root: str
    rel: str
    state: str
    weight_id: str | None


_COLUMNS = tuple(field.name for field in fields(CardRead))
_PUT = f"INSERT OR REPLACE INTO card ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"


def known_cards(session: Session) -> list[KnownCard]:
    """Every card, by path."""
    columns = (CardRow.path, CardRow.size, CardRow.mtime_ns, CardRow.weight_id, CardRow.problem, CardRow.ours)
    return [KnownCard(*row) for row in session.execute(select(*columns).order_by(CardRow.path))]  # type: ignore[call-overload]


def adapter_places(session: Session, only: Collection[str] | None = None) -> list[AdapterPlace]:
    """Every adapter file that has a weight id (one of `only`), by root and path."""
    session.flush()  # the statement is none of the session's own
    connection = session.connection()
    statement = "SELECT name, alias, root, rel, state, weight_id FROM adapter WHERE weight_id"
    if only is None:
        results = [connection.exec_driver_sql(f"{statement} IS NOT NULL")]
    else:
        results = [
            connection.exec_driver_sql(f"{statement} IN ({', '.join('?' * len(some))})", tuple(some))
            for some in chunks(sorted(only))
        ]
    rows = (row for result in results if result.cursor is not None for row in result.cursor.fetchall())
    return sorted(map(AdapterPlace._make, rows), key=place_order)


def place_order(place: AdapterPlace) -> tuple[str, str]:
    """By root and path."""
    return place.root, place.rel


def given_names(session: Session) -> GivenNames:
    """What people call the adapters of the library."""
    session.flush()  # the statements are none of the session's own
    connection = session.connection()
    given: list[tuple[str, Literal["card", "alias", "title"], str]] = []
    told = "SELECT weight_id, path, json_extract(fields, '$.aliases') FROM card WHERE weight_id IS NOT NULL"
    for weight_id, path, aliases in connection.exec_driver_sql(f"{told} AND problem IS NULL").all():
        given.append((weight_id, "card", path))
        given += [(weight_id, "alias", str(alias)) for alias in json.loads(aliases or "[]")]
    titled = "SELECT weight_id, title FROM adapter WHERE weight_id IS NOT NULL AND title IS NOT NULL"
    given += [(weight_id, "title", title) for weight_id, title in connection.exec_driver_sql(titled).all()]
    return GivenNames(given)


def card_order(path: str) -> str:
    """Of two cards of one adapter the first counts: `ink` before `ink 1`, its copy."""
    return path.removesuffix(".md")


def from_text_on(session: Session, start: str, length: int) -> list[str]:
    """Of every card whose text holds `start`: so many characters from there on."""
    rows = session.execute(
        text("SELECT substr(body, instr(body, :start), :length) FROM card WHERE instr(body, :start) > 0"),
        {"start": start, "length": length},
    )
    return [row[0] for row in rows]


def put(session: Session, read: Iterable[CardRead]) -> None:
    """Remember cards as they were read; an earlier row of the same path is replaced."""
    fresh = {card.path: tuple([getattr(card, column) for column in _COLUMNS]) for card in read}
    if not fresh:
        return
    session.flush()  # the statement is none of the session's own
    session.connection().exec_driver_sql(_PUT, list(fresh.values()))


def forget(session: Session, paths: Collection[str]) -> None:
    """These notes are gone, or are cards no longer."""
    _forget(session, paths)


def set_problem(session: Session, path: str, problem: str | None) -> None:
    """Why a card is left alone; None if it is not."""
    session.execute(update(CardRow).where(col(CardRow.path) == path).values(problem=problem))


def set_current(session: Session, path: str, ours: str, unwritten: str | None) -> None:
    """What our keys in a card say (as a hash), and why some of them cannot be written."""
    session.execute(update(CardRow).where(col(CardRow.path) == path).values(ours=ours, unwritten=unwritten))


def card_at(session: Session, path: str) -> CardRow | None:
    """The row of the card at this path."""
    return session.get(CardRow, path)


def problems(session: Session) -> list[tuple[str, str]]:
    """(path, half a sentence) for every card that is left alone or cannot be kept current, by path.

    A card whose adapter is unknown here is told, too: its file may be elsewhere, or may hold other weights now.
    """
    told = select(CardRow.path, CardRow.problem, CardRow.unwritten).where(
        col(CardRow.problem).is_not(None) | col(CardRow.unwritten).is_not(None)
    )
    found = {path: problem or unwritten or "" for path, problem, unwritten in session.exec(told).all()}
    looks = lost.looks(session)
    for path, weight_id, named, file, heir in session.connection().execute(_STRANGERS):
        if file is None and looks is not None and not lost.is_seen((named or "").partition("/")[0], looks):
            continue  # its folder is away, or was not looked at yet
        if file is None:
            found.setdefault(path, f"no file in the loras folders holds its weights any more (`lora: {weight_id}`)")
            continue
        where = f", and they have a card of their own, {heir}" if heir else ""
        words = f"{file} holds other weights now{where}: copy there what you wrote here, if it still fits"
        found.setdefault(path, words)
    return sorted(found.items())


#: Cards whose weights no file has; the file that they name if it is there with other weights, and the card of those.
_STRANGERS = text(
    """
    SELECT c.path, c.weight_id, c.file, a.root || '/' || a.rel, min(heir.path)
    FROM (SELECT path, weight_id, json_extract(said, '$.lora_file') AS file FROM card) c
        LEFT JOIN adapter a ON a.root = substr(c.file, 1, instr(c.file, '/') - 1)
            AND a.rel = substr(c.file, instr(c.file, '/') + 1)
            AND a.weight_id IS NOT NULL AND a.state IN ('ok', 'duplicate')
        LEFT JOIN card heir ON heir.weight_id = a.weight_id AND heir.problem IS NULL
    WHERE c.weight_id IS NOT NULL
        AND c.weight_id NOT IN (SELECT weight_id FROM adapter WHERE weight_id IS NOT NULL)
    GROUP BY c.path
    """
)


def _forget(session: Session, paths: Collection[str]) -> None:
    for some in chunks(sorted(paths)):
        session.execute(delete(CardRow).where(col(CardRow.path).in_(some)))
