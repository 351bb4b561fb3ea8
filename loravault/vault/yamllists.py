"""Where a list stands in a block of properties, and how to put another one there without touching what is around it.

Spans are in characters of the block. Only lists of plain lines are changed: a comment or an empty line between items,
an item over several lines or a nested one is the user's own making, and the list is refused in words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from loravault.vault.yamlread import Entry
from loravault.vault.yamlwrite import format_flow, format_value

_EOL = re.compile(r"\r\n|\r|\n")
#: In quotes, or bare words that are no list, no mapping and have no comment behind them.
_ITEM_TEXT = r"""\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'|(?![\"'\[{&!|>*]|[-?:][ \t])(?:(?![ \t]\#|:(?:[ \t]|$)).)*?"""
_ITEM = re.compile(rf"[ \t]*-(?:[ \t]+(?:{_ITEM_TEXT}))?[ \t]*")


class Piece(NamedTuple):
    """Replace the characters `start`…`end` by `new`."""

    start: int
    end: int
    new: str


def is_block_list(entry: Entry, text: str) -> bool:
    """Whether the value is a list of lines below its key (and not one in brackets)."""
    return entry.kind == "list" and text[entry.value_start] != "["


def block_refusal(entry: Entry, text: str) -> str | None:
    """Why a list of lines cannot be changed, as half a sentence; None if it can."""
    first = _line_start(text, entry.value_start)
    head_end = _line_end(text, _colon(entry, text))
    if text[head_end:first].strip() or len(_EOL.findall(text, head_end, first)) > 1:
        return "something stands between it and its first item"
    gap = False
    for start, end in _lines(text, first, entry.value_end):
        line = text[start:end]
        if not line.strip() or line.lstrip().startswith("#"):
            gap = True
        elif gap:
            return "a comment or an empty line stands between its items"
        elif not _ITEM.fullmatch(line):
            return "one of its items has a comment, is nested or goes over several lines"
    return None


def block_removal(entry: Entry, text: str) -> Piece:
    """All lines of a key and its list; a comment behind the key stays as a line of its own."""
    head = text[_colon(entry, text) : _line_end(text, _colon(entry, text))]
    end = _last_item_end(entry, text)
    ending = _EOL.match(text, end)
    kept = head.lstrip() + _eol(entry, text) if head.strip() else ""
    return Piece(_line_start(text, entry.key_start), ending.end() if ending else end, kept)


def list_pieces(entry: Entry, text: str, items: Sequence[str]) -> list[Piece]:
    """What to change so that the entry, which must not be refused, holds these items."""
    eol = _eol(entry, text)
    if is_block_list(entry, text):
        return _in_block(entry, text, items, eol)
    colon = _colon(entry, text)
    line_end = _line_end(text, entry.value_end)
    if not text[entry.value_end : line_end].strip():
        indent = text[_line_start(text, entry.key_start) : entry.key_start]
        below = "".join(f"{eol}{indent}  - {format_value(item)}" for item in items)
        return [Piece(colon, line_end, below or " []")]
    if entry.kind == "empty":  # a comment stands behind it: what is put there has to stay on the line
        return [Piece(colon, colon, f" {format_flow(items)}")]
    return [Piece(entry.value_start, entry.value_end, format_flow(items))]


def _in_block(entry: Entry, text: str, items: Sequence[str], eol: str) -> list[Piece]:
    first, end = _line_start(text, entry.value_start), _last_item_end(entry, text)
    if items:
        indent = text[first : entry.value_start]
        return [Piece(first, end, eol.join(f"{indent}- {format_value(item)}" for item in items))]
    colon = _colon(entry, text)
    head_end = _line_end(text, colon)
    if not text[colon:head_end].strip():
        return [Piece(colon, end, " []")]
    return [Piece(colon, colon, " []"), Piece(head_end, end, "")]


def _last_item_end(entry: Entry, text: str) -> int:
    """The end of the last item's line. What stands below (blank lines, comments) belongs to whatever follows."""
    end = entry.value_start
    for start, stop in _lines(text, _line_start(text, entry.value_start), entry.value_end):
        line = text[start:stop].strip()
        if line and not line.startswith("#"):
            end = stop
    return end


def _lines(text: str, start: int, limit: int) -> list[tuple[int, int]]:
    found = []
    while start < limit:
        end = _line_end(text, start)
        found.append((start, end))
        ending = _EOL.match(text, end)
        start = ending.end() if ending else limit
    return found


def _colon(entry: Entry, text: str) -> int:
    """Just behind the colon."""
    return text.index(":", entry.key_end) + 1


def _eol(entry: Entry, text: str) -> str:
    """The line ending of the key's line."""
    found = _EOL.search(text, entry.key_start)
    return found.group() if found else "\n"


def _line_start(text: str, at: int) -> int:
    return max(text.rfind("\n", 0, at), text.rfind("\r", 0, at)) + 1


def _line_end(text: str, at: int) -> int:
    found = _EOL.search(text, at)
    return found.start() if found else len(text)
