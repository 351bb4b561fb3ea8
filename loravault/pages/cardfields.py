"""Reading a card back: which adapter it belongs to, and what its owner says about it. Pure.

People write what they mean, in whatever shape the Properties view, another tool or a habit gives it; it is read
tolerantly, and what cannot be understood is told and counts as not said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from loravault.library.entry import USER_FIELDS
from loravault.pages.cardkeys import CARD_KEYS
from loravault.pages.cards import KIND
from loravault.requests.slips import is_slip
from loravault.vault.links import parse_wikilink
from loravault.vault.note import Note

#: What is remembered of our keys, for when the file is away.
OUR_KEYS = (
    "family", "network", "rank", "size_mb", "lora_file", "added", "state", "sha256", "autov2", "autov3",
)  # fmt: skip
#: Of those, what `hashes_of_card` takes.
HASH_KEYS = ("size_mb", "sha256", "autov2", "autov3")
_WEIGHT_ID = re.compile(r"w1-[0-9a-f]{16}\Z")
_RAW_KIND = re.compile(rb"^[ \t]*[\"']?loravault[\"']?[ \t]*:[ \t]*[\"']?card[\"']?[ \t]*(?:#.*)?\r?$", re.M | re.I)
_RAW_LORA = re.compile(rb"^[ \t]*[\"']?lora[\"']?[ \t]*:[ \t]*[\"']?(w1-[0-9a-f]{16})[\"']?[ \t]*\r?$", re.M | re.I)
_STARS = re.compile(r"[★⭐✭✩☆\ufe0f ]+\Z")
_OF = re.compile(r"([0-9]+(?:[.,][0-9]+)?)\s*(?:/|of|von|out of)\s*([0-9]+)\Z", re.IGNORECASE)
_YES = frozenset({"true", "yes", "on", "y", "x", "1"})
_NO = frozenset({"false", "no", "off", "n", "0", ""})
_MAX_ITEMS, _MAX_TEXT = 200, 4000


class _UnclearError(ValueError):
    """A value that says nothing we understand."""


@dataclass(frozen=True)
class CardFields:
    """What a card says. A field that is absent in the note is absent in `values`; an empty one is None or []."""

    #: Its `lora`.
    weight_id: str | None
    #: Its `lora_file`.
    lora_file: str | None
    values: Mapping[str, Any]
    #: Fields that could not be understood, in words.
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class CardHashes:
    """The hashes that a card says of a file, and of which."""

    weight_id: str
    #: Its `lora_file`.
    file: str
    #: Its `size_mb`.
    size_mb: float
    sha256: str
    autov2: str
    #: 12 digits.
    autov3: str


def is_card(note: Note) -> bool:
    """Whether a note says `loravault: card`, also where its properties cannot be read otherwise."""
    front = note.frontmatter
    if front is None or note.text_problem:
        return False
    if front.problem:
        return _RAW_KIND.search(note.data, front.yaml_start, front.yaml_end) is not None
    kind = front.get("loravault")
    return isinstance(kind, str) and kind.strip().casefold() == KIND


def weight_id_of(note: Note) -> str | None:
    """The adapter a card names, also where its properties cannot be read otherwise."""
    front = note.frontmatter
    if front is None or note.text_problem:
        return None
    if front.problem:
        found = _RAW_LORA.search(note.data, front.yaml_start, front.yaml_end)
        return found[1].decode().lower() if found else None
    value = front.get("lora")
    text = value.strip().lower() if isinstance(value, str) else ""
    return text if _WEIGHT_ID.match(text) else None


def fields_of_card(note: Note) -> CardFields | str:
    """What a card says, or why it cannot be read, as a sentence's second half."""
    front = note.frontmatter
    if note.text_problem:
        return note.text_problem
    if front is None:
        return "it has no properties"
    if front.problem:
        return front.problem
    values: dict[str, Any] = {}
    doubts: list[str] = []
    missing = object()
    for key in USER_FIELDS:
        found = front.get(key, missing)
        if found is missing:
            continue
        try:
            values[key] = None if found is None and key not in _LISTS else _READERS[key](found)
        except _UnclearError as error:
            doubts.append(f"`{key}` {error}")
    doubts += _slips(front.properties)
    file = front.get("lora_file")
    return CardFields(weight_id_of(note), _one(file) if file not in (None, "") else None, values, tuple(doubts))


def hashes_of_card(note: Note) -> CardHashes | None:
    """The hashes on a card, as we wrote them; None if there are none, or somebody has changed them."""
    front, weight_id = note.frontmatter, weight_id_of(note)
    if front is None or front.problem or weight_id is None:
        return None
    file, size = front.get("lora_file"), front.get("size_mb")
    hashes = [str(front.get(key)) for key in ("sha256", "autov2", "autov3")]
    whole = all(re.fullmatch(f"[0-9a-f]{{{n}}}", value) for n, value in zip((64, 10, 12), hashes, strict=True))
    if not isinstance(file, str) or not isinstance(size, int | float) or not whole or hashes[0][:10] != hashes[1]:
        return None
    return CardHashes(weight_id, file, float(size), *hashes)


def our_values(note: Note) -> dict[str, Any]:
    """Our own keys as they stand in a card: what was known of its file when it was written."""
    front = note.frontmatter
    if front is None or front.problem or note.text_problem:
        return {}
    found = {key: front.get(key) for key in OUR_KEYS}
    return {key: value for key, value in found.items() if isinstance(value, str | int | float) and value != ""}


def said(values: Mapping[str, Any], blank: Collection[str]) -> dict[str, Any]:
    """The fields somebody has said: without those that a new card left empty and that are empty still."""
    return {key: value for key, value in values.items() if value or key not in blank}


def _slips(properties: Mapping[str, Any]) -> list[str]:
    """Half a sentence for each property that is a slip away from a field and holds what could stand there."""
    doubts = []
    for key, value in properties.items():
        name = re.sub(r"[\s-]+", "_", key.strip().casefold())
        if key.casefold() in _KNOWN or name in _WORDS_OF_THEIR_OWN:
            continue
        meant = next((field for field in _MISTAKEN if name == field or is_slip(name, field)), None)
        if meant and value not in (None, "", []) and _could_be(meant, value):
            doubts.append(f"`{key}` means nothing here (did you mean `{meant}`?)")
    return doubts


def _could_be(field: str, value: Any) -> bool:
    """Whether a value could stand there; text counts for a cover only if it is a picture, for a base only if a file."""
    try:
        read = _READERS[field](value)
    except _UnclearError:
        return False
    look = _LOOKS.get(field)
    return look is None or look.search(str(read)) is not None


# ---- one reader for each field


def _one(value: Any) -> str:
    """A line of text; of a list the first; of a link what it shows."""
    if isinstance(value, list):
        value = value[0] if value else ""
    if isinstance(value, dict):
        raise _UnclearError("holds nested properties")
    text = _text(value)
    link = parse_wikilink(text)
    if link is not None:
        return link.alias or link.path.rpartition("/")[2].removesuffix(".md")
    return text


def _joined(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(part for part in map(_one, value[:_MAX_ITEMS]) if part)
    return _one(value)


def _cover(value: Any) -> str:
    """As it stands there: a link, a path or an address."""
    if isinstance(value, list):
        value = value[0] if value else ""
    if isinstance(value, dict | list):
        raise _UnclearError("is no link (put `[[…]]` in quotes)")
    return _text(value)


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        raise _UnclearError("holds nested properties")
    items = value if isinstance(value, list) else _split(_text(value))
    texts = [_one(item) for item in items[:_MAX_ITEMS] if item is not None]
    return [text for text in dict.fromkeys(texts) if text]


def _split(text: str) -> list[str]:
    """A text where a list was expected: words between commas; but a named group of trigger words is one thing."""
    return [text] if ": " in text else [part.strip() for part in re.split(r"[,;\n]", text)]


def _tags(value: Any) -> list[str]:
    if isinstance(value, str):
        value = re.split(r"[,;\s]+", value)
    return [tag for tag in dict.fromkeys(text.lstrip("#").strip() for text in _texts(value)) if tag]


def _number(value: Any) -> float:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool | list | dict):
        raise _UnclearError("is no number")
    try:
        number = float(_text(value).replace(",", "."))
    except ValueError:
        raise _UnclearError(f'is no number: "{_text(value)[:40]}"') from None
    if not math.isfinite(number):
        raise _UnclearError("is no number")
    return number


def _weight(value: Any) -> float | None:
    if isinstance(value, str) and not value.strip():
        return None
    number = _number(value)
    if abs(number) > 100:
        raise _UnclearError(f"is beyond ±100: {number:g}")
    return number


def _rating(value: Any) -> float | None:
    text = _text(value) if isinstance(value, str) else ""
    if isinstance(value, str) and not text:
        return None
    if _STARS.match(text):
        return float(min(5, sum(text.count(star) for star in "★⭐✭")))
    match = _OF.match(text)
    if match and int(match[2]):
        return min(5.0, round(5 * float(match[1].replace(",", ".")) / int(match[2]), 2))
    number = _number(value)
    if not 0 <= number <= 5:
        raise _UnclearError(f"is not between 0 and 5: {number:g} (of ten? write `{number:g}/10`)")
    return number


def _yes(value: Any) -> bool:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    text = _text(value).casefold() if isinstance(value, str | bool | int | float) else "?"
    if text in _YES or text in _NO:
        return text in _YES
    raise _UnclearError("is neither true nor false")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return " ".join(str(value)[:_MAX_TEXT].split())


#: Fields whose name may be mistyped; one letter away from `tags` is too much.
_MISTAKEN = tuple(key for key in USER_FIELDS if key != "tags")
_LOOKS = {
    "base": re.compile(r"\.(?:safetensors|ckpt)\W*\Z", re.I),
    "cover": re.compile(r"\.(?:png|jpe?g|webp|gif|avif)\b|\Ahttps?:", re.I),
}
_KNOWN = frozenset({"loravault", *USER_FIELDS, *CARD_KEYS})
#: One slip away, and properties of people's own all the same.
_WORDS_OF_THEIR_OWN = frozenset({"alias", "topic", "tropics", "height", "eight", "variants", "valiant", "negatives"})
_LISTS = frozenset(key for key, kind in USER_FIELDS.items() if kind is list)
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "variant": _one,
    "base": _one,
    "trigger_words": lambda value: _texts(value) if value is not None else [],
    "weight": _weight,
    "negative": _joined,
    "topics": lambda value: _texts(value) if value is not None else [],
    "tags": lambda value: _tags(value) if value is not None else [],
    "aliases": lambda value: _texts(value) if value is not None else [],
    "rating": _rating,
    "favourite": _yes,
    "cover": _cover,
}
