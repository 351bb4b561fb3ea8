"""What a gallery shows of one adapter or of one picture. Everything strangers wrote is inert from here on. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from loravault.formats.families import FAMILY_TITLES
from loravault.library.entry import Entry, without_ending
from loravault.pages.examples import example, lora_tag
from loravault.vault.inert import inert
from loravault.vault.links import embed, parse_wikilink
from loravault.vault.names import name_key, safe_stem

_UNKNOWN = "Unknown base"
_IMAGES = (".webp", ".png", ".jpg", ".jpeg", ".avif", ".gif", ".bmp", ".svg")
_PICTURE = re.compile(r"lv-(\d{4})(\d{2})(\d{2})-(\d{6})-(.*)-(\d+)\.[a-zA-Z0-9]+\Z")
_UNUSABLE = re.compile(r'[<>"`\\\[\]|]|^/|:')
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
#: How much of the trigger words a tile shows, in characters.
_MOST_WORDS = 160
#: How much of a name stands below a thumbnail, and how much where it is one end of a range.
_CAPTION, _SPAN = 32, 20
#: Thumbnails that stand together: three rows on a desktop, six on a phone.
GROUP = 12
#: How a card is called whose file has the name of a temporary file (`keeping.cardnames`).
_NAMED_BY_WEIGHTS = "LoRA "


@dataclass(frozen=True, slots=True)
class Tile:
    """One adapter in a catalogue."""

    weight_id: str
    #: As a request names it.
    name: str
    #: Its title, else its name; inert.
    headline: str
    #: Vault-relative path of the card; None: it has none, so nothing is linked.
    card: str | None
    #: Vault-relative path (or name) of the cover; without one, a tile is text: the next two are about that.
    cover: str | None
    #: `SDXL · pony · rank 16`; inert.
    details: str
    #: Trigger words on one line; inert.
    words: str
    favourite: bool
    #: `missing`, `broken`, or nothing.
    trouble: str
    family: str
    category: str
    #: Where its file is (root and path), which names it if several adapters have its name.
    place: str = ""
    #: An example of a prompt, without the adapter's tag; only where there is a page for it.
    example: str = ""
    #: Preferred weight.
    weight: float | None = None

    @property
    def caption(self) -> str:
        """What stands below its thumbnail."""
        short = self.headline[: _CAPTION - 1].rstrip(" <({[+-–·¦,")
        text = self.headline if len(self.headline) <= _CAPTION else f"{short}…"
        return f"{text} ♥" if self.favourite else text

    @property
    def order(self) -> tuple[str, str]:
        """Tiles stand by headline; equal ones by weight id, which never changes."""
        return unicodedata.normalize("NFKC", self.headline).casefold(), self.weight_id


def tile_of(entry: Entry, cover: str | None = None, words: str | None = None) -> Tile:
    """The tile of an adapter. `cover`: its cover file, where its card names none; `words`: see `Example`, if known."""
    headline = inert(given_name(entry) or entry.title or entry.name, 80) or entry.weight_id
    shown = cover_path(entry.cover if entry.cover is not None else cover)
    bare = shown is None or not embeddable(shown)
    return Tile(
        weight_id=entry.weight_id,
        name=entry.name,
        headline=headline,
        card=entry.card,
        cover=None if bare else shown,
        details=_details(entry, headline) if bare else "",
        words=_words(entry) if bare else "",
        favourite=entry.favourite,
        trouble="" if entry.state == "ok" else entry.state,
        family=entry.family,
        category=entry.category,
        place=without_ending(entry.place.shown),
        example="" if not entry.card else _example(entry) if words is None else words,
        weight=entry.weight,
    )


def given_name(entry: Entry) -> str:
    """What its owner called the note that is its card; empty for the name that a new card gets from the file."""
    if not entry.card:
        return ""
    stem = entry.card.rpartition("/")[2].removesuffix(".md")
    if stem == entry.name:  # nearly every card
        return ""
    is_ours = name_key(stem).startswith(name_key(safe_stem(entry.name))) or stem.startswith(_NAMED_BY_WEIGHTS)
    return "" if is_ours else stem


def _example(entry: Entry) -> str:
    tag = lora_tag(entry.name, entry.weight)
    told = example(entry, tag)
    return told.prompt.removesuffix(tag).rstrip() if told.words is None else told.words


def _details(entry: Entry, headline: str) -> str:
    name = inert(entry.name, 80)
    parts = [
        name if name.casefold() != headline.casefold() else "",
        label_of(entry.family),
        inert(entry.variant or "", 40),
        entry.network if entry.network and entry.network != "lora" else "",
        f"rank {entry.rank}" if entry.rank else "",
        f"weight {entry.weight:g}" if entry.weight is not None else "",
    ]
    return " · ".join([part for part in parts if part])


def _words(entry: Entry) -> str:
    return inert(", ".join([word for word in entry.trigger_words if word.strip()]), _MOST_WORDS).lstrip("\u2060")


def label_of(family: str) -> str:
    """A family as people write it; inert."""
    return _UNKNOWN if family in ("", "unknown") else FAMILY_TITLES.get(family) or inert(family, 40) or _UNKNOWN


def cover_path(cover: str | None) -> str | None:
    """The file a card's `cover` names: a link to a picture of the vault, or the path of one.

    Addresses (`https:`, `file:`) and colours count as none: a gallery fetches nothing.
    """
    if not cover or not cover.strip():
        return None
    link = parse_wikilink(cover)
    path = (link.path if link else cover).strip().removeprefix("./")
    usable = path.lower().endswith(_IMAGES) and path.isprintable() and not _UNUSABLE.search(path)
    return path if usable and len(path) <= 400 else None


def embeddable(path: str) -> bool:
    """Whether a picture can be shown inside a link, in a table or anywhere."""
    return embed(path).startswith("![[")


@dataclass(frozen=True, slots=True)
class Rows:
    """Some neighbours of a catalogue: those with a cover as thumbnails, the others as lines of text below them."""

    label: str
    shown: tuple[Tile, ...]
    bare: tuple[Tile, ...]


def rows(tiles: Sequence[Tile]) -> list[Rows]:
    """The tiles of a page in groups of `GROUP`, in order."""
    groups = []
    for start in range(0, len(tiles), GROUP):
        some = tiles[start : start + GROUP]
        shown = tuple(tile for tile in some if tile.cover)
        groups.append(Rows(span(some), shown, tuple(tile for tile in some if not tile.cover)))
    return groups


def span(tiles: Sequence[Tile]) -> str:
    """From which name to which."""
    first, last = (_beginning(tile.headline) for tile in (tiles[0], tiles[-1]))
    return first if first == last else f"{first} – {last}"


def _beginning(text: str) -> str:
    """The first words of a name, about `_SPAN` characters of them."""
    if len(text) <= _SPAN:
        return text
    whole = text[: _SPAN + 1].rpartition(" ")[0]
    return whole.rstrip(" -–·¦,(") or f"{text[: _SPAN - 1]}…"


# ---- pictures


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture that was made. Its name says when, so nothing else is asked."""

    path: str

    @property
    def _parts(self) -> tuple[str, ...] | None:
        found = _PICTURE.match(self.path.rpartition("/")[2])
        if found is None:
            return None
        try:
            date(int(found[1]), int(found[2]), int(found[3]))
        except ValueError:
            return None
        return found.groups()

    @property
    def order(self) -> tuple[str, str, int, str]:
        """By time, then job, then number; oldest first. Without a time: before all others."""
        parts = self._parts
        if parts is None:
            return "", "", 0, self.path
        year, month, day, time, job, number = parts
        return f"{year}{month}{day}-{time}", job, int(number), self.path

    @property
    def month(self) -> str:
        """`2026-11`; empty where the name does not tell."""
        parts = self._parts
        return f"{parts[0]}-{parts[1]}" if parts else ""

    @property
    def day(self) -> str:
        """`18 November 2026`; empty where the name does not tell."""
        parts = self._parts
        return f"{int(parts[2])} {month_label(self.month)}" if parts else ""


def month_label(month: str) -> str:
    """`November 2026` for `2026-11`."""
    if not month:
        return "an unknown month"
    year, _, number = month.partition("-")
    return f"{_MONTHS[int(number) - 1]} {year}"


def by_time(pictures: Sequence[Picture], *, months: bool = False) -> tuple[tuple[str, tuple[Picture, ...]], ...]:
    """Consecutive pictures of one day (or month) put together, in the given order, each with its heading."""
    parts: list[tuple[str, list[Picture]]] = []
    for picture in pictures:
        when = (month_label(picture.month) if picture.month else "") if months else picture.day
        if not parts or parts[-1][0] != when:
            parts.append((when, []))
        parts[-1][1].append(picture)
    return tuple((when or "At an unknown time", tuple(some)) for when, some in parts)
