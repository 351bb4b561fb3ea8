"""One line of ours in a user's note, closed by a block id that carries its checksum: the cover of a card.

    ![[LoraVault/Images/Covers/lv-cover-….webp|320]] ^lv-cover-3f2a1b

As long as the checksum fits, the line is ours and is kept current; a line that was changed is the user's.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from loravault.vault.note import Note

_LINE = re.compile(
    rb"(?:\A|(?<=[\r\n]))(?P<text>[^\r\n]*[^\s]) \^lv-(?P<name>[a-z]+)-(?P<sum>[0-9a-f]{6})(?=[ \t]*(?:[\r\n]|\Z))"
)


@dataclass(frozen=True)
class OwnLine:
    """An intact line of ours: bytes `start`…`end` from its first character to the end of the block id."""

    start: int
    end: int
    name: str
    text: str


def own_line(text: str, name: str) -> str:
    """The line with its block id. The text is one line without blanks at its ends; the name is lower-case letters."""
    return f"{text} ^lv-{name}-{_sum(text)}"


def find_own_lines(note: Note, name: str) -> list[OwnLine]:
    """Our intact lines of this name in the body of a note, outside its code blocks."""
    found = []
    fences = [(fence.start, fence.end) for fence in note.fences]
    for match in _LINE.finditer(note.data, note.body_start):
        text = match["text"].decode()
        at = match.start()
        if match["name"].decode() != name or match["sum"].decode() != _sum(text):
            continue
        if not any(start <= at < end for start, end in fences) and (note.open_tail is None or at < note.open_tail):
            found.append(OwnLine(at, match.end(), name, text))
    return found


def _sum(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=3).hexdigest()
