"""Every card of the vault as far as it is needed at all times, and the rows that wait to be written. No files."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from sqlmodel import Session

from loravault.index import cards as rows
from loravault.index.adapters import mark_duplicates
from loravault.index.chunks import chunks

_SECOND = "it is a second card of a LoRA"


@dataclass
class Card:
    """One card."""

    path: str
    size: int
    mtime_ns: int
    weight_id: str | None
    #: Why it is left alone, apart from there being two of them.
    problem: str | None
    #: Hash of what our keys in it say; empty: not known.
    ours: str = ""
    #: The problem as the index has it.
    told: str | None = None


class CardShelf:
    """The cards by path and by adapter. Of two cards of one adapter the first is its card (`card_order`)."""

    def __init__(self, session: Session) -> None:
        self._cards: dict[str, Card] = {}
        self._by_id: dict[str, set[str]] = defaultdict(set)
        self._rows: dict[str, rows.CardRead] = {}
        self._gone: set[str] = set()
        self._current: dict[str, tuple[str, str | None]] = {}
        self._doubtful: set[str] = set()
        for known in rows.known_cards(session):
            problem = None if (known.problem or "").startswith(_SECOND) else known.problem
            self._add(Card(known.path, known.size, known.mtime_ns, known.weight_id, problem, known.ours, known.problem))

    def __len__(self) -> int:
        return len(self._cards)

    def get(self, path: str) -> Card | None:
        """The card at this path."""
        return self._cards.get(path)

    def paths(self) -> list[str]:
        """All of them."""
        return list(self._cards)

    def weight_ids(self) -> list[str]:
        """Every adapter that has a card."""
        return sorted(self._by_id)

    def paths_of(self, weight_id: str) -> list[str]:
        """Every note that is a card of this adapter."""
        return sorted(self._by_id.get(weight_id, ()), key=rows.card_order)

    def has(self, weight_id: str) -> bool:
        """Whether any note is a card of this adapter, be it one that is left alone."""
        return bool(self._by_id.get(weight_id))

    def is_only(self, weight_id: str) -> bool:
        """Whether no second note is a card of this adapter."""
        return len(self._by_id.get(weight_id, ())) < 2

    def card_of(self, weight_id: str) -> Card | None:
        """The card of an adapter."""
        found = [self._cards[path] for path in self.paths_of(weight_id)]
        return next((card for card in found if card.problem is None), None)

    def troubled_card_of(self, weight_id: str) -> Card | None:
        """A card of an adapter that is left alone because of what is wrong with it."""
        found = [self._cards[path] for path in sorted(self._by_id.get(weight_id, ()))]
        return next((card for card in found if card.problem is not None), None)

    def put(self, row: rows.CardRead) -> None:
        """A card was read, or written by us. The row's `problem` is its own; that of a second card is found here."""
        self._remove(row.path)
        self._gone.discard(row.path)
        self._current.pop(row.path, None)
        self._rows[row.path] = row
        self._add(Card(row.path, row.size, row.mtime_ns, row.weight_id, row.problem, row.ours, row.problem))
        self._doubt(row.weight_id)

    def set_current(self, path: str, ours: str, unwritten: str | None) -> None:
        """What our keys in a card say, and why some could not be set."""
        self._cards[path].ours = ours
        if path in self._rows:
            self._rows[path].ours, self._rows[path].unwritten = ours, unwritten
        else:
            self._current[path] = ours, unwritten

    def drop(self, path: str) -> str | None:
        """The note is gone or is a card no longer. Returns the adapter that has none now, if there is one."""
        weight_id = self._remove(path)
        self._rows.pop(path, None)
        self._current.pop(path, None)
        self._gone.add(path)
        self._doubt(weight_id)
        return weight_id if weight_id is not None and not self.has(weight_id) else None

    def flush(self, session: Session) -> None:
        """Write what has changed."""
        rows.forget(session, self._gone)
        self._judge()
        rows.put(session, self._rows.values())
        read = sorted({row.weight_id for row in self._rows.values() if row.weight_id})
        for some in chunks(read):  # of several copies that is used which its card names
            mark_duplicates(session, some)
        for path, (ours, unwritten) in self._current.items():
            rows.set_current(session, path, ours, unwritten)
        for path in self._doubtful & self._cards.keys() - self._rows.keys():
            rows.set_problem(session, path, self._cards[path].told)

    def flushed(self) -> None:
        """What was written is durable."""
        self._rows, self._gone, self._current, self._doubtful = {}, set(), {}, set()

    @property
    def is_dirty(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._rows or self._gone or self._current or self._doubtful)

    def _judge(self) -> None:
        """Say of every second card that it is one, and no longer of one that is the only one now."""
        for path in self._doubtful & self._cards.keys():
            card = self._cards[path]
            first = self.card_of(card.weight_id) if card.weight_id else None
            card.told = card.problem or (None if first is None or first is card else _second_of(first.path))
            if path in self._rows:
                self._rows[path].problem = card.told

    def _doubt(self, weight_id: str | None) -> None:
        if weight_id is not None:
            self._doubtful |= self._by_id.get(weight_id, set())

    def _add(self, card: Card) -> None:
        self._cards[card.path] = card
        if card.weight_id is not None:
            self._by_id[card.weight_id].add(card.path)

    def _remove(self, path: str) -> str | None:
        card = self._cards.pop(path, None)
        if card is None or card.weight_id is None:
            return None
        self._by_id[card.weight_id].discard(path)
        if not self._by_id[card.weight_id]:
            del self._by_id[card.weight_id]
        self._doubt(card.weight_id)
        return card.weight_id


def _second_of(first: str) -> str:
    return f"{_SECOND}; its card is {first}: delete the one that you do not want, and the other is its card"
