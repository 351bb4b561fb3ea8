"""Our keys in a card that is there, kept in line with what is known; whose they are in an adopted note, remembered."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from loravault.jobs.context import Context
from loravault.keeping.cardmemory import CardMemory
from loravault.keeping.cardreading import CardReading
from loravault.keeping.cardshelf import Card, CardShelf
from loravault.library.entry import Entry
from loravault.pages.cardfields import is_card, weight_id_of
from loravault.pages.cards import CardUpdate, card_update, plan_digest
from loravault.vault.note import MAX_NOTE_BYTES, parse_note
from loravault.vault.properties import EditRefused
from loravault.vault.safewrite import NoteChanged
from loravault.vault.walk import stat_key

#: A card is written at most this often for hashes and the like; a change of `state` or cover does not wait (seconds).
SPREAD_S = 180.0
#: A note that was changed just now is looked at again after this (seconds).
AGAIN_S = 1.0


class Done(NamedTuple):
    """What became of it."""

    written: bool = False
    #: When it is to be looked at again (steady clock); None: when something changes.
    due: float | None = None


class CardUpdating:
    """Writes into cards; what it finds in them goes onto the shelf."""

    def __init__(self, ctx: Context, memory: CardMemory, reading: CardReading, shelf: CardShelf) -> None:
        self._ctx = ctx
        self._memory = memory
        self._reading = reading
        self._shelf = shelf
        #: When a card was written, and what in it then may not wait.
        self._written: dict[str, tuple[float, str, str | None]] = {}

    def bring_current(self, card: Card, entry: Entry, cover: str | None) -> Done:
        """Write our keys if they are to say something else than they do. Raises `OSError` and `UserError`."""
        digest = plan_digest(entry, cover)
        if card.ours == digest:
            return Done()
        now = self._ctx.steady()
        last = self._written.get(entry.weight_id)
        if last is not None and now - last[0] < SPREAD_S and last[1:] == (entry.state, cover):
            return Done(due=last[0] + SPREAD_S)
        try:
            return self._write(card, entry, cover, digest)
        except NoteChanged:
            return Done(due=now + self._ctx.config.write_quiet_s)
        except EditRefused as error:
            self._shelf.set_current(card.path, digest, error.message)
            return Done()

    def _write(self, card: Card, entry: Entry, cover: str | None, digest: str) -> Done:
        ctx, rel = self._ctx, card.path
        key = ctx.observe(rel)
        if key is None:
            return Done()  # gone or moved: the scan will tell
        with ctx.path(rel).open("rb") as file:
            data = file.read(MAX_NOTE_BYTES + 1)
        memory, of = self._memory, entry.weight_id
        filled, theirs = memory.cover_was_filled(of), memory.theirs(of)

        def updated(old: bytes) -> CardUpdate:
            return card_update(old, entry, cover, cover_was_filled=filled, theirs=theirs)

        update = updated(data)
        if update.data is not None:
            if not _is_still(data, of):
                return Done()  # it changed: it will be shown to us again
            if ctx.quiet_for(rel, key) < ctx.config.write_quiet_s:
                return Done(due=ctx.steady() + AGAIN_S)

            def rebase(other: bytes) -> bytes:
                self._remember(of, merged := updated(other))
                return merged.data or other

            # afterwards the note does not show any more what was the user's; and what is no longer may be again, if
            # they write at the same time
            self._remember(of, update, theirs)
            ctx.writer.replace(rel, data, update.data, rebase)
            self._remember(of, update)
            if update.cover_filled:
                memory.filled_covers([of])
            self._written[of] = ctx.steady(), entry.state, cover
            data, key = update.data, stat_key(ctx.path(rel)) or key
            ctx.troubles.pop("cards.write", None)
        elif update.adopted is None:
            self._remember(of, update)
        row = self._reading.row_of(rel, parse_note(data), key)
        row.ours, row.unwritten = digest, "; ".join([*update.told, *filter(None, [row.unwritten])]) or None
        self._shelf.put(row)
        return Done(written=update.data is not None)

    def _remember(self, weight_id: str, update: CardUpdate, still: Collection[str] = ()) -> None:
        """Whose our keys in an adopted note are. While two notes are its card, what was the user's in either stays."""
        kept = still if self._shelf.is_only(weight_id) else self._memory.theirs(weight_id)
        self._memory.adopted(weight_id, update.adopted, {*kept, *update.theirs})


def _is_still(data: bytes, weight_id: str) -> bool:
    """Whether a note that was read again is the card of this adapter, or about to be adopted for it."""
    note = parse_note(data)
    return is_card(note) and weight_id_of(note) in (weight_id, None)
