"""Before a wish is planned the cards are read: what they say of weights and trigger words goes into the picture.

A card and a note that were saved in the same moment come to rest in the same moment, and after a lost index every card
is unread; a note that was looked at first got what the card had said before, or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from loravault.jobs.context import Context
from loravault.jobs.reading import CardReader, NoteReader
from loravault.vault.walk import walk_notes

#: A card that does not come to rest for so long is not waited for (seconds): a plugin may never leave it alone.
RESTLESS_S = 10.0


class CardsFirst:
    """The notes that wait until the cards are read."""

    def __init__(self, ctx: Context, cards: CardReader | None, reader: NoteReader) -> None:
        self._ctx = ctx
        self._cards = cards
        self._reader = reader
        #: note -> since when (steady clock) it waits.
        self._waiting: dict[str, float] = {}
        #: Those that were found to wait still when they were last considered.
        self._still: set[str] = set()

    def holds(self, rel: str) -> bool:
        """Whether some card may say something else than is known of it; the note is remembered then."""
        if self._ctx.cards_unread() and not self._is_too_long(self._waiting.setdefault(rel, self._ctx.steady())):
            self._still.add(rel)
            return True
        self._waiting.pop(rel, None)
        return False

    def due(self) -> Iterator[str]:
        """Notes that wait no more. One is forgotten when the next is asked for: an error loses none."""
        if not self._waiting:
            return
        unread = self._ctx.cards_unread()
        for rel, since in list(self._waiting.items()):
            if not unread or self._is_too_long(since):
                self._still.discard(rel)
                yield rel
                if rel not in self._still:
                    self._waiting.pop(rel, None)

    def drop(self, rel: str) -> None:
        """The note is not there any more."""
        self._waiting.pop(rel, None)

    def into_index(self) -> bool:
        """What was read of cards can be asked for from here on. Whether that is anything new."""
        return self._cards is not None and self._cards.into_index()

    def now(self) -> None:
        """Whoever asks does not wait: the cards are read as they are."""
        if self._ctx.cards_unread():
            self.show_all()

    def show_all(self) -> None:
        """Hand every card of the vault to who reads them, and do nothing else."""
        for seen in walk_notes(self._ctx.config.vault, self._ctx.skip_folder):
            if self._cards is None or self._cards.is_known(seen.rel, seen.key):
                continue
            read = self._reader.read(seen.rel)
            if read is not None and self._cards.concerns(seen.rel, read.note):
                problem = self._reader.why_skipped(read) if read.names_us else None
                self._cards.card_seen(seen.rel, read.note, read.key, problem)

    def _is_too_long(self, since: float) -> bool:
        return self._ctx.steady() - since >= RESTLESS_S
