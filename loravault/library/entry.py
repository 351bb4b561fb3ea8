"""One adapter of the library as people see it: its files, what they and their sidecars say, and what its card says.

There is one entry for each weight id, not for each path. Pure: `index/library.py` makes entries from rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

_ENDING = ".safetensors"


def without_ending(path: str) -> str:
    """A path without the ending of the files that we read."""
    return path[: -len(_ENDING)] if path[-len(_ENDING) :].lower() == _ENDING else path


@dataclass(frozen=True)
class Place:
    """One file of an adapter."""

    root: str
    #: Path inside the root, with `/`.
    rel: str
    state: str
    #: Bytes.
    size: int
    mtime_ns: int

    @property
    def shown(self) -> str:
        """`lora_file` of a card: root name and relative path."""
        return f"{self.root}/{self.rel}"

    @property
    def category(self) -> str:
        """The folder inside the root, which is its category; empty at the top."""
        return self.rel.rpartition("/")[0]


@dataclass(frozen=True)
class Entry:
    """What there is to know of one adapter. Fields that the user owns are effective: the card's where it has them."""

    weight_id: str
    #: File name without its ending.
    name: str
    #: The file that is used first, then its copies. Never empty.
    places: tuple[Place, ...]
    #: `ok`, `missing` (no file is there) or `broken`.
    state: str
    family: str
    variant: str | None
    network: str | None
    rank: int | None
    alpha: float | None
    title: str | None
    trigger_words: tuple[str, ...]
    #: Preferred weight.
    weight: float | None = None
    negative: str | None = None
    #: Preferred base.
    base: str | None = None
    topics: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    #: 0 … 5.
    rating: float | None = None
    favourite: bool = False
    #: The card's `cover` as written there.
    cover: str | None = None
    #: 0 unknown, then 1, 2, 4, 8, 16, 32 as on Civitai.
    nsfw: int = 0
    #: Lower-case hex; `hashed` says whether they were measured.
    hashed: bool = False
    sha256: str | None = None
    autov2: str | None = None
    autov3: str | None = None
    #: `AdapterFacts` as a plain mapping: what metadata and sidecars say.
    facts: Mapping[str, Any] = field(default_factory=dict)
    #: Field -> where it was found (`card`, `shapes`, `modelspec.title`, `ink.civitai.info`, …).
    sources: dict[str, str] = field(default_factory=dict)
    #: Vault-relative path of its card, if it has one.
    card: str | None = None
    #: The card's text outside our regions.
    card_body: str = ""
    #: Path inside the first place's root of a picture beside the file.
    preview: str | None = None
    #: How many pictures it had a part in.
    pictures: int = 0
    #: No file holds these weights: all of this is what its card says.
    from_card: bool = False

    @property
    def place(self) -> Place:
        """The file that is used."""
        return self.places[0]

    @property
    def category(self) -> str:
        """The folder of the file that is used."""
        return self.place.category

    @property
    def added(self) -> str:
        """The day (UTC, ISO) of the oldest of its files: known again after a rebuild of the index."""
        return _day(min(place.mtime_ns for place in self.places) / 1e9)

    def changed(self, **values: Any) -> Entry:
        """A copy with other values: `dataclasses.replace`, which would go through all the fields."""
        copy = object.__new__(Entry)
        copy.__dict__.update(self.__dict__, **values)
        return copy


def _day(moment: float) -> str:
    """ISO day (UTC) of seconds since 1970."""
    number, rest = divmod(moment, 86400)
    return _iso(int(number)) if rest < _NEAR_MIDNIGHT else datetime.fromtimestamp(moment, UTC).date().isoformat()


#: From here on a second may be rounded up into the next day.
_NEAR_MIDNIGHT = 86399.9


@lru_cache(maxsize=1024)
def _iso(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(day)).isoformat()


#: The fields of a card that flow back, with the kind of value each may have.
USER_FIELDS: Mapping[str, type] = {
    "variant": str,
    "base": str,
    "trigger_words": list,
    "weight": float,
    "negative": str,
    "topics": list,
    "tags": list,
    "aliases": list,
    "rating": float,
    "favourite": bool,
    "cover": str,
}
