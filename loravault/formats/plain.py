"""What strangers wrote, as plain bounded text, numbers and lists; whatever is not that counts as nothing.

Every function takes any value a JSON file can hold and never raises. The work is in proportion to the length of what
comes in, and what comes in is cut first.
"""

from __future__ import annotations

import html
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

#: Longest description or note that is kept, in characters.
MAX_TEXT = 4000
#: Longest title, word or other single line.
MAX_LINE = 200
#: Entries of a list that are looked at.
MAX_ITEMS = 256

_LONGEST_SOURCE = 64 * 1024
_NOTHING = frozenset({"none", "null", "undefined", "nan"})
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_KEPT = frozenset("\u200c\u200d")  # Persian and Indic words and emoji need them
_BLOCKS = frozenset(
    {"p", "div", "br", "hr", "li", "ul", "ol", "tr", "table", "pre", "blockquote", "h1", "h2", "h3", "h4", "h5", "h6"}
)
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9-]*+)[^<>]*+>|<!--|<[!?][^<>]*+>")
_UNSEEN = ("script", "style")


def one_line(value: Any, limit: int = MAX_LINE) -> str | None:
    """A text as one line without control characters; None if nothing is left or if it is longer than `limit`."""
    if not isinstance(value, str) or not value:
        return None
    clean = " ".join(_visible(value[: 8 * limit + 64]).split())
    return clean if 0 < len(clean) <= limit and clean.lower() not in _NOTHING else None


def cut_line(value: Any, limit: int = MAX_LINE) -> str | None:
    """As `one_line`, but what is too long is cut and ends in `…`."""
    if not isinstance(value, str) or not value:
        return None
    clean = " ".join(_visible(value[: 8 * limit + 64]).split())
    if not clean or clean.lower() in _NOTHING:
        return None
    return clean if len(clean) <= limit else clean[: limit - 1].rstrip() + "…"


def paragraphs(value: Any, limit: int = MAX_TEXT) -> str | None:
    """A text of several lines: HTML made readable, at most one empty line in a row, cut at `limit` with `…`."""
    if not isinstance(value, str) or not value.strip():
        return None
    text = value[:_LONGEST_SOURCE].replace("\r\n", "\n").replace("\r", "\n")
    if "<" in text:
        text = _without_tags(text)
    if "&" in text:
        text = html.unescape(text)
    lines = [" ".join(_visible(line).split()) for line in text.split("\n")]
    clean = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    if not clean or clean.lower() in _NOTHING:
        return None
    return clean if len(clean) <= limit else clean[: limit - 1].rstrip() + "…"


def _visible(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    shown = (" " if char.isspace() else char for char in text if char.isspace() or not _is_hidden(char))
    return "".join(shown)


def _is_hidden(char: str) -> bool:
    return char not in _KEPT and unicodedata.category(char) in _HIDDEN


def _without_tags(text: str) -> str:
    """The text of an HTML fragment. A `<` that begins no tag stays: people write `<3` and `<lora:x:1>`."""
    return "".join(_pieces(text))


def _pieces(text: str) -> Iterator[str]:
    at = 0
    lowered = text.lower()
    # A search for an end that is not there is made once, not once for every beginning.
    endless: set[str] = set()
    while match := _TAG.search(text, at):
        yield text[at : match.start()]
        at = match.end()
        name = (match[2] or "").lower()
        if match[0] == "<!--":
            at = _after(lowered, "-->", at, endless)
        elif name in _UNSEEN and not match[1]:
            at = _after(lowered, f"</{name}", at, endless)
        elif name in ("lora", "lyco"):
            yield match[0]
        elif name == "li":
            yield "" if match[1] else "\n- "
        elif name in _BLOCKS:
            yield "\n\n" if name == "p" or (name[0] == "h" and len(name) == 2) else "\n"
    yield text[at:]


def _after(text: str, end: str, at: int, endless: set[str]) -> int:
    if end in endless:
        return at
    found = text.find(end, at)
    if found < 0:
        endless.add(end)
        return at
    return found + len(end) if end == "-->" else found


def number(value: Any, low: float, high: float) -> float | None:
    """A finite number (or a text that is one) between two bounds."""
    if isinstance(value, str) and len(value) <= 40:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) and low <= result <= high else None


def whole(value: Any, low: int = 0, high: int = 2**53) -> int | None:
    """A whole number (or a text that is one) between two bounds."""
    found = number(value, low, high)
    return int(found) if found is not None and found == int(found) else None


def strings(value: Any, limit: int = MAX_LINE, most: int = MAX_ITEMS) -> tuple[str, ...]:
    """The different lines of a list, or of one text with commas; what is no text is left out."""
    if isinstance(value, str):
        value = value[:_LONGEST_SOURCE].split(",")
    if not isinstance(value, list | tuple):
        return ()
    return unique(line for item in value[:MAX_ITEMS] if (line := one_line(item, limit)) is not None)[:most]


def unique(lines: Iterable[str]) -> tuple[str, ...]:
    """The lines in their order without those that differ from an earlier one in case only."""
    found: dict[str, str] = {}
    for line in lines:
        found.setdefault(line.casefold(), line)
    return tuple(found.values())


def table(value: Any) -> Mapping[str, Any]:
    """The value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    """The first entries of the value if it is a list, else nothing."""
    return list(value[:MAX_ITEMS]) if isinstance(value, list | tuple) else []


def objects(value: Any) -> list[Mapping[str, Any]]:
    """The JSON objects among the first entries of a list."""
    return [item for item in items(value) if isinstance(item, dict)]


def json_in(text: Any) -> Any:
    """The value of a JSON text inside a metadata entry or sidecar; None if it is none."""
    if not isinstance(text, str) or text[:1] not in ("{", "["):
        return None
    try:
        return load_json(text)
    except ValueError:
        return None


def load_json(text: str) -> Any:
    """Parse JSON as leniently as Python's own reader, which wrote most of these files. Raises `ValueError`.

    NaN and Infinity become None.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        pass
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def decode(data: bytes) -> str:
    """The text of a file: UTF-8 or UTF-16 by its mark, else UTF-8, else Windows' Western letters."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")
