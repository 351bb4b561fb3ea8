"""Properties as Obsidian itself writes them: so an edit in its Properties view changes nothing but what was edited.

One line for each scalar, quotes only where YAML 1.2 needs them, lists as lines below their key, nothing after the colon
of an empty property.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Final

from loravault.vault.yamlread import resolve_plain

SAFE_INTEGER = 2**53 - 1  # Obsidian rounds larger ones when it writes the block again
_UNPRINTABLE = re.compile("[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\u2028\u2029\ufeff]")
_SPECIAL = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
_SIMPLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_/.,()-]*(?: [A-Za-z0-9_/.,()-]+)*(?<!-)\Z")
_BAD_START = frozenset("\t ,[]{}#&*!|>'\"%@`")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Empty:
    """A property that is there and holds nothing (`key:`), which is another thing than no such property."""

    def __repr__(self) -> str:
        return "EMPTY"


EMPTY: Final = Empty()
Scalar = str | int | float | bool
PropertyValue = Scalar | tuple[str, ...] | Empty


def format_value(value: Scalar) -> str:
    """A scalar as Obsidian writes it: quoted only where YAML 1.2 needs it, always on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if abs(value) <= SAFE_INTEGER else f'"{value}"'
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a property cannot hold an infinite number")
        return repr(value)
    return _text(value)


def _text(value: str) -> str:
    if _SIMPLE.match(value):  # most of what we write: then only numbers and the words for true, false, null are left
        return value if isinstance(resolve_plain(value), str) else _quoted(value)
    return _unusual(value)


@lru_cache(maxsize=1024)  # days and the like
def _unusual(value: str) -> str:
    return value if _is_plain(value) else _quoted(value)


def format_flow(items: Sequence[str]) -> str:
    """A list on one line, every item in double quotes: for a line that has to stay one."""
    return f"[{', '.join(_double_quoted(item) for item in items)}]"


def list_lines(items: Sequence[str], indent: str = "") -> list[str]:
    """The items of a list, a line each."""
    return [f"{indent}  - {format_value(item)}" for item in items]


def property_lines(key: str, value: PropertyValue, indent: str = "") -> list[str]:
    """The lines of one property, without line ends."""
    head = f"{indent}{checked_key(key)}:"
    if isinstance(value, Empty):
        return [head]
    if isinstance(value, tuple):
        return [head, *list_lines(value, indent)] if value else [f"{head} []"]
    return [f"{head} {format_value(value)}"]


def property_block(properties: Mapping[str, PropertyValue]) -> str:
    """The lines of these properties with their line ends, as `property_lines` has them."""
    return "".join([_lines_of(key, value) for key, value in properties.items()])


@lru_cache(maxsize=4096, typed=True)  # two thirds of the properties of a library are the same over and over
def _lines_of(key: str, value: PropertyValue) -> str:
    return "".join([f"{line}\n" for line in property_lines(key, value)])


@cache
def checked_key(key: str) -> str:
    """The name, if it is one that we give to properties; else ValueError."""
    if not _PLAIN_KEY.match(key):
        raise ValueError(f"not a name for one of our properties: {key!r}")
    return key


def _is_plain(text: str) -> bool:
    """Whether YAML 1.2 reads the bare text as this very string. Also kept bare by Obsidian."""
    if not text or text[0] in _BAD_START or text[-1] in " \t:-" or _UNPRINTABLE.search(text):
        return False
    if text[0] in "?-" and (len(text) == 1 or text[1] in " \t"):
        return False
    if text.startswith(("---", "...")) or re.search(r":[ \t]|[ \t]#", text):
        return False
    return isinstance(resolve_plain(text), str)


def _quoted(text: str) -> str:
    if '"' in text and "'" not in text and not _UNPRINTABLE.search(text):
        return f"'{text}'"
    return _double_quoted(text)


def _double_quoted(text: str) -> str:
    if not _SPECIAL.search(text):
        return f'"{text}"'
    return '"' + "".join(_ESCAPES.get(c) or _UNPRINTABLE.sub(_escape, c) for c in text) + '"'


def _escape(found: re.Match[str]) -> str:
    number = ord(found.group())
    if 0xD800 <= number <= 0xDFFF:
        return "�"
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
