"""All that is kept for the library, in the order in which one builds on the other:

    files ─▶ index ─▶ hashes, covers ─▶ cards ─▶ galleries, search

Each keeper is told what changed and works in slices; nothing here waits, and nothing happens while nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from loravault.index import covers as cover_rows
from loravault.index.refresh import Refreshed
from loravault.jobs.context import Context
from loravault.jobs.libraryboard import Keeping
from loravault.keeping.cards import CardKeeper
from loravault.keeping.covers import CoverKeeper
from loravault.keeping.exporting import ExportKeeper
from loravault.keeping.galleries import GalleryKeeper
from loravault.keeping.hashes import HashKeeper
from loravault.keeping.search import SearchKeeper
from loravault.vault.walk import stat_key

#: A tick gives each keeper so long (seconds): requests are answered in between.
SLICE_S = 0.1


class Keepers:
    """The keepers of one open vault. `notes_read`: whether every note was handed to the cards since the start."""

    def __init__(
        self,
        ctx: Context,
        *,
        wake: Callable[[], None],
        notes_read: Callable[[], bool],
        note_paths: Callable[[], Collection[str]],
    ) -> None:
        self._ctx = ctx
        self._notes_read = notes_read
        with ctx.index.session() as session:
            self._covers_known = {key: row.path for key, row in cover_rows.covers(session).items() if row.path}
        self.hashes = HashKeeper(ctx, wake=wake, on_changed=self._tell_cards, notes_read=notes_read)
        self.covers = CoverKeeper(ctx, wake=wake, on_changed=self._covers_changed)
        self.exports = ExportKeeper(ctx, wake=wake)
        self.cards = CardKeeper(
            ctx, notes_read=notes_read, cover_of=self._covers_known.get, on_hashes=self.hashes.claimed,
            on_read=self.exports.card_read, note_paths=note_paths,
        )  # fmt: skip
        self.galleries = GalleryKeeper(
            ctx, may_remove=self._all_is_there, names=self.cards.names, made=self.cards.take_made
        )
        self.search = SearchKeeper(ctx)
        #: A whole look at the files is over: before it nothing is made or taken away.
        self._complete = False
        self._sound = False
        #: What cards say flows into generation: set when some card changed, for whoever reads them.
        self.fields_changed = False
        #: Cards or galleries were worked on in the last step.
        self.worked = False

    def refreshed(self, result: Refreshed) -> None:
        """A look at the files found this."""
        self._sound = not result.troubles
        if not result.unfinished and not self._complete:
            self._complete = True
            self.everything_changed()
        elif result.weights:
            self.library_changed(set(result.weights))
        if result.unreadable:
            self.search.library_changed(None)

    def cards_unread(self, changing: Iterable[str]) -> bool:
        """Whether one of these notes is a card that was edited; after the start, until every note was looked at."""
        path, cards = self._ctx.path, self.cards
        return not self._notes_read() or any(
            cards.was_card(rel) and not cards.is_known(rel, stat_key(path(rel))) for rel in changing
        )

    def everything_changed(self) -> None:
        """Compare all of it with the disk: at the start, and when somebody asks for it."""
        self.library_changed(None)
        self.exports.covers_changed(None)

    def library_changed(self, weight_ids: set[str] | None) -> None:
        """These adapters (None: perhaps any) are not what they were."""
        self.hashes.library_changed(weight_ids)
        self.covers.library_changed(weight_ids)
        self.cards.library_changed(weight_ids)
        self.galleries.library_changed(weight_ids)
        self.search.library_changed(weight_ids)

    def _covers_changed(self, weight_ids: set[str]) -> None:
        with self._ctx.index.session() as session:
            rows = cover_rows.covers(session, weight_ids)
        for weight_id in weight_ids:
            path = rows[weight_id].path if weight_id in rows else None
            if path:
                self._covers_known[weight_id] = path
            else:
                self._covers_known.pop(weight_id, None)
        self._tell_cards(weight_ids)
        self.exports.covers_changed(weight_ids)
        self.search.library_changed(weight_ids)

    def _tell_cards(self, weight_ids: set[str]) -> None:
        self.cards.library_changed(weight_ids)
        self.galleries.library_changed(weight_ids)

    def step(self, *, working: bool, slice_s: float = SLICE_S) -> bool:
        """One slice of each. True: more can be done at once. `working`: a job has the disk."""
        self.worked = False
        if not self._complete or "vault" in self._ctx.troubles:
            return False  # files were not looked through yet, or the vault's own notes are gone
        self.hashes.step(working=working)
        if self._ctx.pictures_changed:
            self.galleries.images_changed(set(self._ctx.pictures_changed))
            self._ctx.pictures_changed.clear()
        more = self.covers.step(slice_s)
        if self._ctx.config.cards:
            more = self.cards.step(slice_s) or more
            changed = self.cards.take_changed()
            if changed:
                self.fields_changed = self.worked = True
                self.galleries.library_changed(changed)
                self.search.library_changed(changed)
        more = self.exports.step(slice_s) or more
        # A picture is embedded by a card that is there; the first round waits for the first cards.
        if not more or not self._ctx.config.cards:
            self.worked = self.worked or self.galleries.is_due
            more = self.galleries.step(slice_s) or more
        return self.search.step(slice_s) or more

    @property
    def waiting(self) -> int:
        """How many covers and cards are still to be made or looked at, as far as is known."""
        return self.covers.waiting + self.cards.waiting

    def keeping(self) -> Keeping:
        """What is being done, for the dashboard."""
        hashes = self.hashes.progress
        return Keeping(
            hashing=(hashes.done, hashes.total, int(100 * hashes.fraction)) if hashes.busy else None,
            covers=self.covers.waiting,
            notices=tuple(sorted(self.galleries.notices.items())),
        )

    def close(self) -> None:
        """Leave. What is not done is found again at the next start."""
        self.covers.close()
        self.exports.close()
        self.hashes.close()

    def _all_is_there(self) -> bool:
        return self._sound and self._notes_read()
