"""All that galleries are made of, held in memory, and which galleries a change concerns. Pure: no files, no index."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Container, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from loravault.library.entry import Entry
from loravault.pages import galleries
from loravault.pages.cardpages import Claim, claim, pictures_pages
from loravault.pages.galleries import Page, Shelf, View
from loravault.pages.tiles import Picture, Tile, label_of, month_label, tile_of

#: A gallery: what it is by (`family`, `folder`, `month`, `adapter`, `index`), and which one.
Key = tuple[str, str]

INDEX: Key = ("index", "")

#: What is written although galleries are switched off: cards embed these pages.
EMBEDDED = "adapter"

_category_key = lru_cache(maxsize=4096)(galleries.category_key)


class Shown(NamedTuple):
    """An adapter as galleries show it. One without a card claims no page."""

    tile: Tile
    claim: Claim | None


def shown_of(entry: Entry, cover: str | None, folder: str, words: str | None = None) -> Shown:
    """`cover`: its cover file; `folder`: ours; `words`: see `Example`, if known."""
    said = claim(folder, entry.weight_id, entry.card, entry.card_body) if entry.card else None
    return Shown(tile_of(entry, cover, words), said)


class Held:
    """Adapters and pictures by the galleries they are in. Everything that changes is noted until `take_changed`."""

    def __init__(self, view: View, taken: Container[str] = ()) -> None:
        self._view = view
        #: `name_key`s of notes elsewhere in the vault.
        self.taken = taken
        self._tiles: dict[str, Tile] = {}
        #: Name -> the adapters that are called so.
        self._named: dict[str, set[str]] = defaultdict(set)
        #: Weight id -> what decides where its page is; only those with a card.
        self._claims: dict[str, Claim] = {}
        self._page_of: dict[str, str] = {}
        #: The pages of `_page_of`, in one case.
        self._pages: set[str] = set()
        self._made_with: dict[str, tuple[str, ...]] = {}
        #: Gallery -> weight ids or paths of pictures.
        self._members: dict[Key, set[str]] = defaultdict(set)
        self._changed: set[Key] = set()
        #: Adapters whose card is new here; and whether another one changed, so that all pages are given out anew.
        self._new_claims: set[str] = set()
        self._claims_changed = False

    # ---- what there is

    @property
    def weight_ids(self) -> set[str]:
        """Every adapter that is held."""
        return set(self._tiles)

    @property
    def pictures(self) -> set[str]:
        """Every picture that is held."""
        return set(self._made_with)

    def all_keys(self) -> set[Key]:
        """Every gallery that has something in it."""
        own = {key for key, members in self._members.items() if members and key[0] != EMBEDDED}
        return own | {(EMBEDDED, weight_id) for weight_id in self._page_of} | {INDEX}

    def take_changed(self) -> set[Key]:
        """The galleries that may look different now, and forget them."""
        changed, self._changed = self._changed, set()
        return changed

    # ---- what changes

    def put_entries(self, found: Iterable[Entry], asked: Collection[str], covers: Mapping[str, str]) -> None:
        """Take in these entries; those `asked` for that were not found are gone. `covers`: weight id -> cover file."""
        entries = {entry.weight_id: entry for entry in found}
        for weight_id in sorted({*asked, *entries}):
            entry = entries.get(weight_id)
            self.put(weight_id, shown_of(entry, covers.get(weight_id), self._view.folder) if entry else None)

    def put(self, weight_id: str, shown: Shown | None) -> None:
        """Take in one adapter as it is shown; None: it is gone."""
        self._place(weight_id, self._tiles.get(weight_id), shown.tile if shown else None)
        said, before = shown.claim if shown else None, self._claims.get(weight_id)
        if said == before:
            return
        if before is None:
            self._new_claims.add(weight_id)
        else:
            self._claims_changed = True
        if said is None:
            del self._claims[weight_id]
        else:
            self._claims[weight_id] = said

    def settle_pages(self) -> None:
        """Find out which adapter has which page: a card keeps the one it embeds. To be called after `put_entries`."""
        new, self._new_claims = self._new_claims, set()
        if self._claims_changed or not self._settle_new(new):
            self._claims_changed = False
            pages = pictures_pages(self._claims.values())
            other = pages.items() ^ self._page_of.items()
            self._changed |= {(EMBEDDED, weight_id) for weight_id, _ in other}
            self._page_of = pages
            self._pages = {page.casefold() for page in pages.values()}

    def _settle_new(self, new: set[str]) -> bool:
        """Give new cards the pages they want, if nobody else is concerned: all pages of a library take their time."""
        wanted = {
            weight_id: claim.wanted or claim.default for weight_id in new if (claim := self._claims.get(weight_id))
        }
        pages = {page.casefold() for page in wanted.values()}
        if len(pages) < len(wanted) or not pages.isdisjoint(self._pages):
            return False
        self._page_of.update(wanted)
        self._pages |= pages
        self._changed |= {(EMBEDDED, weight_id) for weight_id in wanted}
        return True

    def put_pictures(self, found: Mapping[str, tuple[str, ...]], asked: Collection[str]) -> None:
        """Take in these pictures (path -> weight ids); those `asked` for that were not found are gone."""
        for path in sorted({*asked, *found}):
            old, new = self._made_with.get(path), found.get(path)
            if old == new:
                continue
            month: Key = ("month", Picture(path).month)
            before = {(EMBEDDED, weight_id) for weight_id in old} | {month} if old is not None else set()
            after = {(EMBEDDED, weight_id) for weight_id in new} | {month} if new is not None else set()
            self._move(path, before, after)
            self._changed |= before | after | {INDEX}
            if new is None:
                del self._made_with[path]
            else:
                self._made_with[path] = new

    def _place(self, weight_id: str, old: Tile | None, new: Tile | None) -> None:
        if old == new:
            return
        before, after = (_catalogues(tile) if tile else set() for tile in (old, new))
        self._move(weight_id, before, after)
        self._changed |= before | after | {INDEX, (EMBEDDED, weight_id)}
        self._rename(weight_id, old.name if old else None, new.name if new else None)
        if new is None:
            del self._tiles[weight_id]
        else:
            self._tiles[weight_id] = new

    def _rename(self, weight_id: str, old: str | None, new: str | None) -> None:
        """An adapter whose name another one got or gave up is called differently in prompts."""
        if old == new:
            return
        if old is not None:
            self._named[old].discard(weight_id)
            self._changed |= {(EMBEDDED, other) for other in self._named[old]}
        if new is not None:
            self._changed |= {(EMBEDDED, other) for other in self._named[new]}
            self._named[new].add(weight_id)

    def _move(self, member: str, before: set[Key], after: set[Key]) -> None:
        for key in before - after:
            self._members[key].discard(member)
            if not self._members[key]:
                del self._members[key]
        for key in after:
            self._members[key].add(member)

    # ---- what it looks like

    def plan(self, key: Key) -> list[Page]:
        """The pages of one gallery; none if there is nothing in it."""
        kind, name = key
        members = self._members.get(key, ())
        if key == INDEX:
            return [self._index()]
        if kind == EMBEDDED:
            page, tile = self._page_of.get(name), self._tiles.get(name)
            if page is None or tile is None:
                return []
            call = tile.place if len(self._named[tile.name]) > 1 else tile.name
            return galleries.of_adapter(self._view, page, tile, map(Picture, members), call)
        if kind == "month":
            return galleries.month(self._view, self._path(key), name, map(Picture, members))
        return galleries.catalogue(self._view, self._path(key), self._label(key), (self._tiles[m] for m in members))

    def _path(self, key: Key) -> str:
        kind, name = key
        folder = self._view.folder
        if kind == "month":
            return galleries.month_path(folder, name, self.taken)
        if kind == "family":
            return galleries.family_path(folder, name, self.taken)
        return galleries.category_path(folder, self._category(key), self.taken)

    def _label(self, key: Key) -> str:
        if key[0] == "month":
            return month_label(key[1])
        return label_of(key[1]) if key[0] == "family" else self._category(key) or "Top folder"

    def _category(self, key: Key) -> str:
        """Of several spellings that are one name, the first."""
        return min((self._tiles[member].category for member in self._members.get(key, ())), default=key[1])

    def _index(self) -> Page:
        shelves: dict[str, list[Shelf]] = {"Base models": [], "Folders": [], "Months": []}
        for heading, kind in zip(shelves, ("family", "folder", "month"), strict=True):
            for key in sorted((key for key in self._members if key[0] == kind), reverse=kind == "month"):
                shelves[heading].append(self._shelf(key))
        for some in (shelves["Base models"], shelves["Folders"]):
            some.sort(key=lambda shelf: (shelf.label.casefold(), shelf.path))
        return galleries.index(self._view, shelves, len(self._tiles), len(self._made_with))

    def _shelf(self, key: Key) -> Shelf:
        members = self._members[key]
        if key[0] != "family":
            return Shelf(self._label(key), self._path(key), len(members))
        return galleries.shelf(self._label(key), self._path(key), [self._tiles[member] for member in members])


def _catalogues(tile: Tile) -> set[Key]:
    return {("family", tile.family), ("folder", _category_key(tile.category))}
