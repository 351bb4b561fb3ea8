"""New cards: what they are called, what they say, and into the vault with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loravault.index.cards import from_text_on
from loravault.index.library import with_card
from loravault.jobs.context import Context
from loravault.keeping.cardnames import CallNames, plan_paths
from loravault.keeping.cardreading import CardReading
from loravault.keeping.notenames import NoteNames, TakenNames, key_of
from loravault.library.entry import Entry
from loravault.pages import galleries
from loravault.pages.cardfields import said
from loravault.pages.cardpages import LONGEST_EMBED, embed_start, embedded_page
from loravault.pages.cards import CardNames, NewCard, render_card
from loravault.pages.collection import Shown, shown_of
from loravault.pages.dashboard import dashboard_path, second_path


@dataclass(frozen=True)
class MadeCard:
    """A card that is in the vault now."""

    rel: str
    entry: Entry
    card: NewCard
    #: The user's fields that it says.
    fields: Mapping[str, Any]
    #: As the galleries show it now.
    shown: Shown


class CardMaking:
    """Makes cards; knows the names that are taken, as long as it is at it."""

    def __init__(
        self,
        ctx: Context,
        reading: CardReading,
        cover_of: Callable[[str], str | None],
        templates: Path,
        names: NoteNames,
    ) -> None:
        self._ctx = ctx
        self._names = names
        self._reading = reading
        self._cover_of = cover_of
        self._templates = templates
        self._calls: CallNames | None = None
        self._taken: TakenNames | None = None
        #: Weight id -> why no card can be made in its folder at the moment.
        self.refused: dict[str, str] = {}

    def library_changed(self) -> None:
        """Adapters may have come or gone: names may mean something else."""
        self._calls = None

    def rest(self) -> None:
        """Nothing is to be made for now: the names of the vault's notes are looked at again the next time."""
        self._taken = None

    def make(self, fresh: Sequence[Entry]) -> list[MadeCard]:
        """Make new cards, all at once. Leaves out those whose name somebody took meanwhile. Raises OSError.

        Those whose folder cannot be made are left out too: `refused` says why.
        """
        ctx = self._ctx
        refused: dict[str, str] = {}
        if self._taken is None:
            self._taken = self._names_taken()
        if self._calls is None:
            self._calls = CallNames(self._reading.places)
        self._taken.add(self._names_of_pages(fresh))
        paths = plan_paths(fresh, ctx.config.folder, self._taken, ctx.rules)
        planned = [self._render(entry, paths[entry.weight_id], self._calls) for entry in fresh]
        try:
            lost = set(ctx.writer.create_many(((one.rel, one.card.data) for one in planned), refused))
        except BaseException:
            self._taken = None  # the names are free, or taken by what was written before it failed
            raise
        if refused:
            self._taken = None  # their names are free
        self.refused.update({one.entry.weight_id: refused[one.rel] for one in planned if one.rel in refused})
        return [one for one in planned if one.rel not in lost and one.rel not in refused]

    def refusal(self) -> str:
        """Which folders are in the way, and of how many cards."""
        count = len(self.refused)
        reasons = sorted(set(self.refused.values()))
        more = f" (And {len(reasons) - 3} more folders.)" if len(reasons) > 3 else ""
        return f"{count} {'LoRA has no card' if count == 1 else 'LoRAs have no cards'}: " + (
            f"{' '.join(reasons[:3])}{more}"
        )

    def _names_taken(self) -> TakenNames:
        self._names.look()
        return TakenNames(self._names, self._embedded_pages)

    def _embedded_pages(self) -> list[str]:
        folder = self._ctx.config.folder
        with self._ctx.index.session() as session:
            embeds = from_text_on(session, embed_start(folder), LONGEST_EMBED)
        return [page for one in embeds if (page := embedded_page(folder, one)) is not None]

    def _names_of_pages(self, fresh: Sequence[Entry]) -> set[str]:
        """Names that pages of ours have or are about to get: on a first run none of them is there yet."""
        folder = self._ctx.config.folder
        families, categories = {entry.family for entry in fresh}, {entry.category for entry in fresh}
        pages = [
            dashboard_path(folder),
            second_path(folder),
            galleries.index_path(folder),
            *[galleries.family_path(folder, family) for family in families],
            *[galleries.category_path(folder, category) for category in categories],
        ]
        return set(map(key_of, pages))

    def _render(self, entry: Entry, rel: str, calls: CallNames) -> MadeCard:
        config, cover = self._ctx.config, self._cover_of(entry.weight_id)
        names = CardNames(config.folder, config.vault.name, rel, calls.of(entry), cover)
        card = render_card(entry, names, self._templates)
        fields = said(card.fields, card.blank)
        carded = with_card(entry, rel, fields, card.body)
        words = card.words if carded.trigger_words == entry.trigger_words else None
        return MadeCard(rel, entry, card, fields, shown_of(carded, cover, config.folder, words))
