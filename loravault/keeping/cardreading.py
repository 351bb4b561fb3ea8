"""From the note of a card to its row, and from names to adapters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from loravault.index import cards as rows
from loravault.index.database import Index
from loravault.keeping.cardmemory import CardMemory
from loravault.library.names import Ambiguous, Missing, find, find_one
from loravault.pages.cardfields import OUR_KEYS, CardFields, fields_of_card, our_values, said, weight_id_of
from loravault.pages.cards import NewCard, text_of_card
from loravault.vault.note import Note
from loravault.vault.properties import EMPTY
from loravault.vault.walk import StatKey


class CardReading:
    """Reads cards for one vault; knows the adapters by name."""

    def __init__(self, index: Index, memory: CardMemory) -> None:
        self._index = index
        self._memory = memory
        self._places: list[rows.AdapterPlace] | None = None
        #: Adapters that have changed since the places were read.
        self._stale: set[str] = set()
        #: Cards that name no adapter, or one that is not known: worth another look when the library changes.
        self.unresolved: set[str] = set()

    def library_changed(self, weight_ids: Collection[str] | None = None) -> None:
        """These adapters (None: any) may have come or gone."""
        if weight_ids is None:
            self._places = None
        else:
            self._stale.update(weight_ids)

    @property
    def places(self) -> list[rows.AdapterPlace]:
        """Every adapter file."""
        if self._places is None or self._stale:
            with self._index.session() as session:
                if self._places is None:
                    self._places = rows.adapter_places(session)
                else:  # one new file among ten thousand: the others need not be read again
                    others = (place for place in self._places if place.weight_id not in self._stale)
                    self._places = sorted([*others, *rows.adapter_places(session, self._stale)], key=rows.place_order)
            self._stale = set()
        return self._places

    def row_of(
        self, rel: str, note: Note, key: StatKey, problem: str | None = None, before: str | None = None
    ) -> rows.CardRead:
        """What a card says. `problem`: why it is left alone; `before`: the adapter that it was for when last read."""
        read = fields_of_card(note)
        weight_id: str | None = None
        fields: dict[str, Any] = {}
        if isinstance(read, str) and problem in (None, read):
            # It cannot be read now, but it is still the card that it was: no second one beside it.
            weight_id, problem = weight_id_of(note) or before, read
        elif isinstance(read, str):
            pass
        elif problem is None:
            weight_id = weight_id_of(note)
            if weight_id is None:
                weight_id, problem = self._adapter_meant(read)
                if problem is not None:
                    self.unresolved.add(rel)
            fields = said(read.values, self._memory.blank(weight_id or ""))
        theirs = self._memory.theirs(weight_id or "")
        return rows.CardRead(
            path=rel,
            size=key[0],
            mtime_ns=key[1],
            sha=hashlib.sha256(note.data).hexdigest(),
            weight_id=weight_id,
            fields=_json(fields),
            body="" if note.text_problem else text_of_card(note),
            problem=problem,
            unwritten=None if isinstance(read, str) else _doubts(read.doubts),
            said=_json({name: value for name, value in our_values(note).items() if name not in theirs}),
        )

    def _adapter_meant(self, read: CardFields) -> tuple[str | None, str | None]:
        """The adapter that a card without `lora` is to be adopted for, or why it is not clear which."""
        if read.lora_file is None:
            return None, "it says `loravault: card`, but not of which LoRA: add `lora_file:` with its name"
        found = find(read.lora_file, self.places)
        if isinstance(found, Ambiguous):
            return (
                None,
                f'`lora_file` "{read.lora_file}" means several files: {", ".join(found.paths)}; write one of these',
            )
        if isinstance(found, Missing):
            near = f"; the closest names are {', '.join(found.closest)}" if found.closest else ""
            return None, f'`lora_file` "{read.lora_file}" names no LoRA of the loras folders{near}'
        return found.weight_id, None

    def named(self, name: str) -> rows.AdapterPlace:
        """The adapter of this name. Raises `UserError`."""
        return find_one(name, self.places)


def row_of_new(rel: str, key: StatKey, weight_id: str, card: NewCard, fields: Mapping[str, Any]) -> rows.CardRead:
    """The row of a card that we have just made: nobody has to read it to know what it says.

    `fields`: what it says of the user's fields.
    """
    known = card.properties
    return rows.CardRead(
        path=rel,
        size=key[0],
        mtime_ns=key[1],
        sha=hashlib.sha256(card.data).hexdigest(),
        weight_id=weight_id,
        fields=_json(fields),
        body=card.body,
        ours=card.ours,
        said=_json({key: known[key] for key in OUR_KEYS if known[key] is not EMPTY}),
    )


_quickly = msgspec.json.Encoder(order="sorted").encode


def _json(value: Mapping[str, Any]) -> str:
    try:
        return _quickly(value).decode()
    except (msgspec.MsgspecError, UnicodeError, OverflowError):  # half a character, a number beyond 64 bits
        return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _doubts(doubts: Sequence[str]) -> str | None:
    return f"{'; '.join(doubts)}; this is not used" if doubts else None
