"""One note for every adapter: makes those that are missing, keeps our keys current in the others, and no more.

A card is made once. It is found again by its `lora` wherever its owner moves it; one that was deleted stays deleted
until somebody asks for it. Nothing here decides what a card says (`pages.cards`) or is called (`keeping.cardnames`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from loravault import resources
from loravault.collecting import without_collecting
from loravault.errors import UserError
from loravault.index.cards import CardRead
from loravault.index.library import entries
from loravault.index.refresh import is_gone
from loravault.jobs.context import Context, log
from loravault.keeping.cardmaking import CardMaking
from loravault.keeping.cardmemory import CardMemory
from loravault.keeping.cardreading import CardReading, row_of_new
from loravault.keeping.cardsgone import GoneCards
from loravault.keeping.cardshelf import Card, CardShelf
from loravault.keeping.cardupdating import CardUpdating
from loravault.keeping.notenames import NoteNames
from loravault.library.entry import Entry
from loravault.pages.cardfields import HASH_KEYS, CardHashes, hashes_of_card, is_card
from loravault.pages.collection import Shown
from loravault.vault.note import MAX_NOTE_BYTES, Note, parse_note
from loravault.vault.walk import StatKey, stat_key, walk_notes

#: A card that is looked at again within so long still counts as waiting (seconds).
SOON_S = 10.0
#: After an error of the disk (seconds).
TROUBLE_S = 60.0
#: Adapters that are looked at in one go, and cards that are made in one.
CHUNK, BATCH = 250, 500
#: A command waits so long for the cards it asked for; the others are made after it (seconds).
RECREATE_S = 5.0


class CardKeeper:
    """Looks after the cards of one vault, for the holder of its lock.

    `notes_read` says whether every note of the vault has been handed to us since the start: before that, no card is
    made and none counts as deleted. `cover_of` tells the vault-relative path of an adapter's cover; `on_hashes` is told
    what a card that is new to the index says of its file, `on_read` what a known one says now, before it is remembered.
    `note_paths`: every note of the vault as far as is known; None: the vault is walked to know.
    """

    def __init__(
        self,
        ctx: Context,
        *,
        notes_read: Callable[[], bool] = lambda: True,
        cover_of: Callable[[str], str | None] = lambda _weight_id: None,
        on_hashes: Callable[[CardHashes], None] = lambda _hashes: None,
        on_read: Callable[[CardRead], None] = lambda _read: None,
        templates: Path | None = None,
        note_paths: Callable[[], Collection[str]] | None = None,
    ) -> None:
        self._ctx = ctx
        self._notes_read = notes_read
        self._cover_of = cover_of
        self._on_hashes, self._on_read = on_hashes, on_read
        self._memory = CardMemory(ctx.ledger)
        self._reading = CardReading(ctx.index, self._memory)
        with ctx.index.session() as session:
            self._shelf = CardShelf(session)
        notes = note_paths or self._walked
        #: The names of the vault's notes, those of cards that were just made among them.
        self.names = NoteNames(lambda: {*notes(), *self._shelf.paths()}, ctx.config.folder)
        self._making = CardMaking(ctx, self._reading, cover_of, templates or resources.templates(), self.names)
        self._updating = CardUpdating(ctx, self._memory, self._reading, self._shelf)
        self._gone = GoneCards(ctx, self._memory, self._shelf.paths())
        self._look_at_all = True
        self._adopts = False
        self._changed: set[str] = set()
        self._todo: dict[str, None] = {}
        #: Adapters that get a card as soon as every note was read.
        self._awaiting: dict[str, None] = {}
        self._later: dict[str, float] = {}
        #: New cards as galleries show them, as long as nothing about them has changed since.
        self._made: dict[str, Shown] = {}

    # ---- what the loop tells us

    def is_known(self, rel: str, key: StatKey | None) -> bool:
        """Whether a note is a card that has not changed since it was last read: then nobody has to open it."""
        card = self._shelf.get(rel)
        if card is None or key is None or (card.size, card.mtime_ns) != key[:2] or card.weight_id is None:
            return False
        self._gone.is_there(rel)
        return True

    def concerns(self, rel: str, note: Note) -> bool:
        """Whether a note that was read is to be shown to `card_seen`: a card, or one that was a card."""
        return self._shelf.get(rel) is not None or is_card(note)

    def card_seen(self, rel: str, note: Note, key: StatKey, problem: str | None = None) -> None:
        """A note that concerns us was read. `problem`: why it is left alone (a template, a conflict copy)."""
        self._gone.is_there(rel)
        if not note.data.strip():
            return  # an editor that writes in place, or a sync that is not done: never trust an empty file
        front = note.frontmatter
        if not note.text_problem and not is_card(note) and not (front is not None and front.problem):
            self.card_gone(rel)
            return
        before = self._shelf.get(rel)
        hashes = hashes_of_card(note) if before is None and problem is None else None
        if hashes is not None and not self._memory.theirs(hashes.weight_id).intersection(HASH_KEYS):
            self._on_hashes(hashes)
        read = self._reading.row_of(rel, note, key, problem, before.weight_id if before else None)
        if before is not None and before.weight_id == read.weight_id:
            self._on_read(read)
        self._shelf.put(read)
        card = self._shelf.get(rel)
        if card is not None and card.weight_id is not None:
            self._moved_from(card)
            if self._memory.is_deleted(card.weight_id):
                self._memory.back(card.weight_id)
            self._later.pop(card.weight_id, None)
            self._todo[card.weight_id] = None
            self._has_changed(card.weight_id)

    def _moved_from(self, card: Card) -> None:
        """A card that is not at its old place any more and is seen at a new one was moved: it is not a second one."""
        for path in self._shelf.paths_of(card.weight_id or ""):
            if path != card.path and not os.path.lexists(self._ctx.path(path)):
                self._shelf.drop(path)

    def card_gone(self, rel: str) -> None:
        """Two scans did not find the note, or it is a card no longer."""
        self._gone.is_there(rel)
        if self._shelf.get(rel) is None:
            return
        card = self._shelf.get(rel)
        bereft = self._shelf.drop(rel)
        if bereft is not None:
            self._gone.bereft(bereft)
        if card is not None and card.weight_id is not None:
            self._todo[card.weight_id] = None  # a second card may be the card now
            self._has_changed(card.weight_id)

    def into_index(self) -> bool:
        """Write what was read into the index: whoever asks there waits for it. Whether that is anything new."""
        is_new = self._shelf.is_dirty and self._ctx.config.cards
        if is_new:
            self._flush()
        return is_new

    def library_changed(self, weight_ids: Collection[str] | None) -> None:
        """These adapters (None: perhaps any) are not what they were; also for covers that came or changed."""
        self._reading.library_changed(weight_ids)
        self._making.library_changed()
        self._adopts = True
        if weight_ids is None:
            self._look_at_all = True
            self._made.clear()
        else:
            for weight_id in weight_ids:
                self._made.pop(weight_id, None)
            self._todo.update(dict.fromkeys(sorted(weight_ids)))

    def step(self, budget_s: float) -> bool:
        """Do what is due for about so long. True: more is waiting."""
        with without_collecting():
            return self._step(budget_s)

    def _step(self, budget_s: float) -> bool:
        give_up = time.monotonic() + budget_s
        if self._notes_read():
            self._todo.update(self._awaiting)
            self._awaiting = {}
            for path in self._gone.unseen_for_long():
                self.card_gone(path)
            self._gone.bury(self._shelf)
        if self._adopts:
            self._adopts = False
            self._adopt_again()
        self._flush()
        if self._look_at_all:
            self._look_at_all = False
            self._todo.update(dict.fromkeys(place.weight_id for place in self._reading.places if place.weight_id))
            self._todo.update(dict.fromkeys(self._shelf.weight_ids()))  # also those whose file is away
        now = self._ctx.steady()
        for weight_id in [key for key, due in self._later.items() if due <= now]:
            del self._later[weight_id]
            self._todo[weight_id] = None
        fresh: list[Entry] = []
        while self._todo and len(fresh) < BATCH and time.monotonic() < give_up:
            fresh += self._work(give_up)
        if fresh:
            self._make(fresh)
        self._tell_refused()
        self._flush()
        if not self._todo:
            self._making.rest()
        return bool(self._todo)

    def paths(self) -> list[str]:
        """Every note that is known as a card."""
        return self._shelf.paths()

    def was_card(self, rel: str) -> bool:
        """Whether the note at this path was a card when it was last read."""
        return self._shelf.get(rel) is not None

    @property
    def waiting(self) -> int:
        """How many adapters are still to be looked at, as far as is known: now, or as soon as their cards are quiet."""
        soon = self._ctx.steady() + SOON_S
        return len(self._todo) + sum(due < soon for due in self._later.values())

    def take_changed(self) -> set[str]:
        """The adapters whose card came, went or was read anew since the last call."""
        changed, self._changed = self._changed, set()
        return changed

    def take_made(self, weight_id: str) -> Shown | None:
        """An adapter whose card is new, if the index would say the same of it: then nobody has to ask there."""
        return self._made.pop(weight_id, None)

    def recreate(self, target: str | None, *, everything: bool = False) -> dict[str, Any]:
        """Make deleted cards anew: of the adapter called so, or all. Raises `UserError`.

        Returns `message` and `cards`, the paths of those that are there already when this returns.
        """
        places = self._reading.places
        known = {place.weight_id for place in places if place.weight_id and place.state not in ("missing", "broken")}
        self._notice_deleted(None if everything else {self._reading.named(target or "").weight_id or ""})
        if everything:
            wanted = sorted(w for w in self._memory.all if w in known and not self._shelf.has(w))
            if not wanted:
                return {"message": "Every LoRA has its card; no card was deleted.", "cards": []}
        else:
            wanted = [self._without_card(target or "")]
        self._memory.wanted(wanted)
        self._ctx.troubles.pop("cards.deleted", None)
        self._todo.update(dict.fromkeys(wanted))
        give_up = time.monotonic() + RECREATE_S
        while self.step(0.5) and time.monotonic() < give_up:
            pass
        made = [card.path for w in wanted if (card := self._shelf.card_of(w)) is not None]
        more = self._of_the_rest(len(wanted) - len(made))
        return {"message": f"Made {len(made)} {'card' if len(made) == 1 else 'cards'}.{more}", "cards": made}

    def _notice_deleted(self, weight_ids: Collection[str] | None) -> None:
        """Who asks for a card (None: for all) says that it was deleted: what is not there now needs no second look.

        Only after every note was read, so that a card that was moved is known at its new place.
        """
        if not self._notes_read() or "vault" in self._ctx.troubles or not self._ctx.config.vault.is_dir():
            return
        paths = self.paths() if weight_ids is None else [p for w in weight_ids for p in self._shelf.paths_of(w)]
        for path in paths:
            if is_gone(self._ctx.path(path)):
                self.card_gone(path)
        self._gone.bury(self._shelf)

    def _of_the_rest(self, waiting: int) -> str:
        """What becomes of the cards that were asked for and are not there yet."""
        if not waiting:
            return ""
        if self._making.refused:
            return f" {self._making.refusal()}"
        if not self._notes_read():
            when = "as soon as all notes are read"
        else:
            when = "soon" if self._todo else "as soon as their files can be used"
        return f" {waiting} more {'follows' if waiting == 1 else 'follow'} {when}."

    def _without_card(self, name: str) -> str:
        """The adapter of this name, which must have no card. Raises `UserError`."""
        found = self._reading.named(name)
        card = self._shelf.card_of(found.weight_id or "")
        if card is not None:
            raise UserError(f"{found.name} has its card: {card.path}.")
        card = self._shelf.troubled_card_of(found.weight_id or "")
        if card is not None:
            raise UserError(
                f"{found.name} has a card, {card.path}, but it cannot be used: {card.problem}. Mend it there; or "
                "delete it, and ask again for a new one."
            )
        return found.weight_id or ""

    def _has_changed(self, weight_id: str) -> None:
        self._changed.add(weight_id)
        self._made.pop(weight_id, None)

    # ---- reading

    def _adopt_again(self) -> None:
        """Cards that named no adapter we knew: perhaps we know it now."""
        waiting, self._reading.unresolved = self._reading.unresolved, set()
        for path in sorted(waiting):
            key = stat_key(self._ctx.path(path))
            if key is None or self._shelf.get(path) is None:
                continue
            try:
                with self._ctx.path(path).open("rb") as file:
                    data = file.read(MAX_NOTE_BYTES + 1)
            except OSError:
                self._reading.unresolved.add(path)
            else:
                self.card_seen(path, parse_note(data), key)

    # ---- working

    def _work(self, give_up: float) -> list[Entry]:
        """Look at some adapters. Returns those that are to get a card."""
        chunk = list(self._todo)[:CHUNK]
        with self._ctx.index.session() as session:
            found = {entry.weight_id: entry for entry in entries(session, chunk)}
        fresh: list[Entry] = []
        for weight_id in chunk:
            if time.monotonic() >= give_up and weight_id != chunk[0]:
                break
            del self._todo[weight_id]
            self._making.refused.pop(weight_id, None)
            entry = found.get(weight_id)
            if entry is None:
                continue
            card = self._shelf.card_of(weight_id)
            if card is not None:
                self._bring_current(card, entry)
            elif entry.state == "ok" and not self._shelf.has(weight_id) and self._memory.may_make(weight_id):
                fresh.append(entry)
        if self._notes_read():
            return fresh
        self._awaiting.update(dict.fromkeys(entry.weight_id for entry in fresh))
        return []

    def _bring_current(self, card: Card, entry: Entry) -> None:
        """Write our keys if they are to say something else than they do."""
        try:
            done = self._updating.bring_current(card, entry, self._cover_of(entry.weight_id))
        except (OSError, UserError) as error:
            self._fail(card.path, error, [entry.weight_id])
            return
        if done.due is not None:
            self._later[entry.weight_id] = done.due
        if done.written:
            self._has_changed(entry.weight_id)

    def _make(self, fresh: Sequence[Entry]) -> None:
        """Make new cards, all at once."""
        try:
            made = self._making.make(fresh)
        except (OSError, UserError) as error:
            self._fail(f"{self._ctx.config.folder}/LoRAs", error, [entry.weight_id for entry in fresh])
            return
        self._ctx.troubles.pop("cards.write", None)
        self._memory.made(
            {card.entry.weight_id: card.card.blank for card in made},
            {card.entry.weight_id for card in made if card.card.fields.get("cover")},
        )
        for one in made:
            key = stat_key(self._ctx.path(one.rel))
            self._changed.add(one.entry.weight_id)
            if key is not None and key[0] == len(one.card.data):  # else somebody was faster: it will be shown to us
                self._shelf.put(row_of_new(one.rel, key, one.entry.weight_id, one.card, one.fields))
                self._made[one.entry.weight_id] = one.shown
        there = {one.entry.weight_id for one in made} | self._making.refused.keys()
        self._later.update(dict.fromkeys(self._making.refused, self._ctx.steady() + TROUBLE_S))
        # a name that was not free after all: another one, next time
        self._todo.update(dict.fromkeys(entry.weight_id for entry in fresh if entry.weight_id not in there))

    def _tell_refused(self) -> None:
        """A folder that cannot be made costs its own cards only; they are tried again."""
        self._ctx.troubles.pop("cards.folders", None)
        if self._making.refused:
            self._ctx.troubles["cards.folders"] = self._making.refusal()

    def _fail(self, where: str, error: OSError | UserError, weight_ids: Iterable[str]) -> None:
        reason = error.message if isinstance(error, UserError) else (error.strerror or str(error))
        log.warning("%s cannot be written: %s", where, reason)
        self._ctx.troubles["cards.write"] = f"{where} cannot be written ({reason.rstrip('.')}); it is tried again."
        due = self._ctx.steady() + TROUBLE_S
        self._later.update(dict.fromkeys(weight_ids, due))

    def _walked(self) -> set[str]:
        """Every note of the vault, where nobody else knows them."""
        return {seen.rel for seen in walk_notes(self._ctx.config.vault, lambda _rel: False)}

    def _flush(self) -> None:
        if self._shelf.is_dirty:
            with self._ctx.index.session() as session:
                self._shelf.flush(session)
            self._shelf.flushed()
