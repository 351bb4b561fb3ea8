"""What one source says about an adapter: claims, each a field, a value and where it was found.

Sources contradict each other; `Rank` is the order in which they are believed. Nothing is decided here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from loravault.formats import plain
from loravault.formats.hashes import POISON

#: Weights beyond this are typing errors.
MAX_WEIGHT = 10.0
#: Levels of Civitai: none known, PG, PG-13, R, X, XXX, blocked.
NSFW_LEVELS = (0, 1, 2, 4, 8, 16, 32)
_NSFW_WORDS = {"none": 1, "soft": 2, "mature": 4, "x": 8}
_UNSURE_BASES = frozenset({"unknown", "other", "none", "n/a", ""})
_HASH_LENGTHS: Mapping[str, tuple[int, ...]] = {
    "sha256": (64,), "autov1": (8,), "autov2": (10,), "autov3": (12, 64), "blake3": (64,), "crc32": (8,),
}  # fmt: skip
_URL = re.compile(r"https?://[^\s<>\"'`\\{}|^\[\]]+")
_BLANK_HASHES = frozenset("0f")


class Rank(IntEnum):
    """How much a source is believed: the lowest number wins."""

    #: What the user wrote with another tool.
    USER = 0
    #: What a tool fetched from where the adapter was published.
    FETCHED = 1
    #: A sidecar that only hints: the coarse label of an older tool, a text file of anybody.
    HINT = 2
    #: `modelspec.*`, `ssmd_*`: what the file declares about itself.
    DECLARED = 3
    #: `ss_*` and other traces of the training.
    TRAINED = 4


@dataclass(frozen=True)
class Claim:
    """One statement. `value` has the type of the field of `library.facts.AdapterFacts`."""

    field: str
    value: Any
    #: `ink.civitai.info`, `modelspec.title`, …
    source: str
    rank: Rank


@dataclass
class Claims:
    """Collects the claims of one source; what is empty, wrong or without bounds never becomes one."""

    source: str
    rank: Rank
    found: list[Claim] = field(default_factory=list)

    def add(self, name: str, value: Any, *, rank: Rank | None = None, source: str | None = None) -> None:
        """Claim a value that is already of the field's type, unless it is empty."""
        if value is None or value in ((), ""):
            return
        self.found.append(Claim(name, value, source or self.source, self.rank if rank is None else rank))

    def line(self, name: str, value: Any, *, rank: Rank | None = None, source: str | None = None) -> None:
        """Claim a text of one line; longer ones are cut."""
        self.add(name, plain.cut_line(value), rank=rank, source=source)

    def text(self, name: str, value: Any, *, rank: Rank | None = None, source: str | None = None) -> None:
        """Claim a text of several lines; HTML is made readable."""
        self.add(name, plain.paragraphs(value), rank=rank, source=source)

    def weight(self, name: str, value: Any, *, zero: bool = False, rank: Rank | None = None) -> None:
        """Claim a strength. Zero is how most tools write "not set"."""
        found = plain.number(value, -MAX_WEIGHT, MAX_WEIGHT)
        self.add(name, found if found or zero else None, rank=rank)

    def number(self, name: str, value: Any, low: int, high: int, *, source: str | None = None) -> None:
        """Claim a whole number between two bounds."""
        self.add(name, plain.whole(value, low, high), source=source)

    def many(self, name: str, values: Any, *, rank: Rank | None = None, source: str | None = None) -> None:
        """Claim a list of lines (or one text with commas)."""
        self.add(name, plain.strings(values), rank=rank, source=source)

    def base(self, value: Any, *, rank: Rank | None = None, source: str | None = None) -> None:
        """Claim the family or variant in the source's own words."""
        text = plain.one_line(value, 80)
        if text and text.casefold() not in _UNSURE_BASES:
            self.add("base_model", text, rank=rank, source=source)

    def urls(self, values: Iterable[Any]) -> None:
        """Claim addresses; only those of web pages."""
        self.add("urls", plain.unique(value for one in values if (value := web_address(one))))

    def hash(self, kind: str, value: Any, *, source: str | None = None) -> None:
        """Claim a hash, unless it has the wrong length or is one that bad tools give to every file."""
        text = clean_hash(kind, value)
        self.add("hashes", ((kind, text),) if text else None, source=source)


def web_address(value: Any) -> str | None:
    """The value if it is the address of a web page, whole and without blanks."""
    text = plain.one_line(value, 300)
    return text if text and _URL.fullmatch(text) else None


def clean_hash(kind: str, value: Any) -> str | None:
    """A hash in lower case without `0x`; None if it cannot be one of this kind."""
    if not isinstance(value, str) or kind not in _HASH_LENGTHS or len(value) > 80:
        return None
    text = value.strip().lower().removeprefix("0x")
    if len(text) not in _HASH_LENGTHS[kind] or not all(digit in "0123456789abcdef" for digit in text):
        return None
    if POISON.startswith(text) or (len(set(text)) == 1 and text[0] in _BLANK_HASHES):
        return None
    return text


def nsfw_level(value: Any) -> int | None:
    """A level of Civitai from any of its spellings: a level, a mask of levels (its highest), a word, a yes."""
    if isinstance(value, bool):
        return 8 if value else None
    if isinstance(value, str):
        word = value.strip().casefold()
        return _NSFW_WORDS.get(word) or (nsfw_level(plain.whole(word, 0, 63)) if word.isdigit() else None)
    mask = plain.whole(value, 0, 63)
    if not mask:
        return None
    return max(level for level in NSFW_LEVELS if level <= mask)


def positive_id(value: Any) -> int | None:
    """An id of Civitai; unknown models have `""` or 0."""
    return plain.whole(value, 1)
