"""What the ledger remembers of cards: which were made or adopted, which their owner deleted. It survives the index.

A card is made once. One that was made and is not there was deleted, whether anybody saw it happen or not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from loravault.vault.ledger import Ledger


class CardMemory:
    """The cards of the ledger, by weight id."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._blank: dict[str, tuple[str, ...]] = {}
        self._covered: set[str] = set()
        self._deleted: set[str] = set()
        self._adopted: dict[str, tuple[str, ...]] = {}
        self._theirs: dict[str, frozenset[str]] = {}
        for record in ledger.read():
            self._take(record)

    @property
    def all(self) -> set[str]:
        """Every adapter that has or had a card."""
        return self._blank.keys() | self._deleted

    def may_make(self, weight_id: str) -> bool:
        """Whether a card may be made: it never was, and nobody deleted one."""
        return weight_id not in self._blank and weight_id not in self._deleted

    def is_deleted(self, weight_id: str) -> bool:
        """Whether a card's deletion was seen."""
        return weight_id in self._deleted

    def blank(self, weight_id: str) -> tuple[str, ...]:
        """Keys that its new card left empty because nothing was known."""
        return self._blank.get(weight_id, ())

    def cover_was_filled(self, weight_id: str) -> bool:
        """Whether we have once filled `cover`."""
        return weight_id in self._covered

    def had(self, weight_id: str) -> tuple[str, ...] | None:
        """Which keys of ours stood in a note of the user's when it was adopted as this card; None: it never was."""
        return self._adopted.get(weight_id)

    def theirs(self, weight_id: str) -> frozenset[str]:
        """Keys of ours that hold something of the user's since then."""
        return self._theirs.get(weight_id, frozenset())

    def adopted(self, weight_id: str, had: Collection[str] | None, theirs: Collection[str]) -> None:
        """A note of the user's, which `had` these keys of ours, becomes a card (None: it is one); `theirs` as of now.

        Nothing is written if that is known, nor for a card that we made ourselves.
        """
        had = self._adopted.get(weight_id) if had is None else tuple(had)
        if had is not None and (had, frozenset(theirs)) != (self._adopted.get(weight_id), self.theirs(weight_id)):
            self._write([{"op": "card-adopted", "lora": weight_id, "had": list(had), "theirs": sorted(theirs)}])

    def made(self, cards: Mapping[str, tuple[str, ...]], covered: Collection[str]) -> None:
        """New cards are on disk: weight id -> keys left empty; `covered` are those with a cover."""
        groups: dict[tuple[tuple[str, ...], bool], list[str]] = {}
        for weight_id, blank in cards.items():
            groups.setdefault((blank, weight_id in covered), []).append(weight_id)
        self._write(
            {"op": "cards", "lora": sorted(ids), "blank": list(blank), "cover": cover}
            for (blank, cover), ids in groups.items()
        )

    def filled_covers(self, weight_ids: Iterable[str]) -> None:
        """`cover` was filled in these cards."""
        ids = sorted(weight_ids)
        self._write([{"op": "card-cover", "lora": ids}] if ids else [])

    def deleted(self, weight_ids: Iterable[str]) -> None:
        """The user has deleted these cards."""
        self._write({"op": "card-deleted", "lora": weight_id} for weight_id in sorted(weight_ids))

    def back(self, weight_id: str) -> None:
        """A card that was deleted is there again."""
        self._write([{"op": "card-back", "lora": weight_id}])

    def wanted(self, weight_ids: Iterable[str]) -> None:
        """The user asks for these cards anew."""
        self._write({"op": "card-wanted", "lora": weight_id} for weight_id in sorted(weight_ids))

    def _write(self, records: Iterable[Mapping[str, Any]]) -> None:
        written = list(records)
        self._ledger.append_many(written)
        for record in written:
            self._take(record)

    def _take(self, record: Mapping[str, Any]) -> None:
        found = record.get("lora")
        ids = found if isinstance(found, list) else [found]
        op = record.get("op")
        for weight_id in ids:
            if not isinstance(weight_id, str):
                continue
            if op == "cards":
                self._blank[weight_id] = tuple(str(key) for key in record.get("blank") or ())
                if record.get("cover"):
                    self._covered.add(weight_id)
                self._disown(weight_id)
            elif op == "card-adopted":
                self._adopted[weight_id] = tuple(str(key) for key in record.get("had") or ())
                self._theirs[weight_id] = frozenset(str(key) for key in record.get("theirs") or ())
            elif op == "card-cover":
                self._covered.add(weight_id)
            elif op == "card-deleted":
                self._deleted.add(weight_id)
            elif op == "card-back":
                self._deleted.discard(weight_id)
            elif op == "card-wanted":
                self._deleted.discard(weight_id)
                self._blank.pop(weight_id, None)
                self._covered.discard(weight_id)
                self._disown(weight_id)

    def _disown(self, weight_id: str) -> None:
        """Its card is one that we made. (One that was only deleted may come back as it was.)"""
        self._adopted.pop(weight_id, None)
        self._theirs.pop(weight_id, None)
