"""Changing single properties of a note and nothing else: one value is replaced or one line added, then read back.

A user's YAML is never emitted again. What cannot be done this way is refused in words and the note stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from loravault.errors import UserError
from loravault.vault import yamllists
from loravault.vault.note import BOM, Frontmatter, Note, parse_note
from loravault.vault.yamlread import Entry, read_entries
from loravault.vault.yamlwrite import (
    EMPTY,
    SAFE_INTEGER,
    Empty,
    PropertyValue,
    format_value,
    property_lines,
)

__all__ = [
    "EMPTY",
    "EditRefused",
    "Splice",
    "Value",
    "apply_splices",
    "format_value",
    "set_properties",
    "set_properties_best",
    "strip_properties",
]

#: None removes a property; a tuple is a list; `EMPTY` is a property without a value.
Value = PropertyValue | None
_OWN_KEY = re.compile(r"lv_", re.IGNORECASE)
_ANY_EOL = re.compile(r"\r\n|\r|\n")
_BLOCK_HEADER = re.compile(r"[|>][-+0-9]*([ \t]+#[^\r\n]*)?")
_MISREAD = "the result would not read as intended; nothing was written"


class EditRefused(UserError):  # noqa: N818 - said to the user as it is
    """A note that cannot be changed without risk to the user's own text; it was left as it is."""


@dataclass(frozen=True)
class Splice:
    """Replace the bytes `start`…`end` by `new`."""

    start: int
    end: int
    new: bytes


def set_properties(data: bytes, changes: Mapping[str, Value], *, create: bool = False) -> bytes:
    """The note with these properties set (None: removed). Every byte outside the changed values stays.

    New keys go before the closing `---`, in the order given. A block is made only with `create`. All or nothing: raises
    `EditRefused` if one of them cannot be set.
    """
    if not changes:
        return data
    note = parse_note(data)
    if note.frontmatter is None and not note.text_problem:
        if not any(value is not None for value in changes.values()):
            return data
        if create:
            return _checked(note, _new_block(note, changes), changes)
    reason = _shut(note)
    if reason:
        raise EditRefused(f"The properties were not changed: {reason}.")
    splices, refused = _plan(note, changes)
    for key, reason in refused.items():
        raise EditRefused(f"The property `{key}` was not changed: {reason}.")
    return _checked(note, apply_splices(data, splices), changes)


def set_properties_best(data: bytes, changes: Mapping[str, Value]) -> tuple[bytes, dict[str, str]]:
    """Like `set_properties`, but a key that cannot be set does not keep the others back.

    Returns the new bytes and, for every key that is not as it should be, the reason in words (half a sentence).
    """
    note = parse_note(data)
    reason = _shut(note)
    if reason:
        return data, {key: reason for key, value in changes.items() if not _stands(note, key, value)}
    splices, refused = _plan(note, changes)
    wanted = {key: value for key, value in changes.items() if key not in refused}
    try:
        return _checked(note, apply_splices(data, splices), wanted), refused
    except EditRefused:
        if len(wanted) == 1:
            return data, refused | dict.fromkeys(wanted, _MISREAD)
    for key, value in wanted.items():  # one of them does not read back: find out which
        data, more = set_properties_best(data, {key: value})
        refused |= more
    return data, refused


def apply_splices(data: bytes, splices: Sequence[Splice]) -> bytes:
    """Apply splices that do not overlap; several at one place in the order given."""
    parts, at = [], 0
    for splice in sorted(splices, key=lambda s: (s.start, s.end)):
        if splice.start < at:
            raise ValueError("splices overlap")
        parts += [data[at : splice.start], splice.new]
        at = splice.end
    return b"".join([*parts, data[at:]])


def strip_properties(data: bytes, is_ours: Callable[[str], bool], *, lists: bool = False) -> bytes:
    """The note without the lines of our keys; a user's comment behind a value stays. For comparing, not for writing.

    A list is never ours, unless `lists` says that we write such.
    """
    note = parse_note(data)
    front = note.frontmatter
    if note.text_problem or front is None or front.problem:
        return data
    text = _yaml(note, front)
    read = read_entries(text)
    if read.flow:
        return data
    splices = [
        _removal(front, text, entry)
        for entry in read.entries
        if is_ours(entry.key) and _refusal(entry, text, lists=lists) is None
    ]
    return apply_splices(data, splices)


def _shut(note: Note) -> str | None:
    """Why no property of this note can be set."""
    front = note.frontmatter
    if note.text_problem:
        return note.text_problem
    if front is None:
        return "the note has none (no `---` block at its top)"
    if front.problem:
        return front.problem.replace("The properties", "they", 1).rstrip(".")
    if read_entries(_yaml(note, front)).flow:
        return "they are written as JSON; change any property in Obsidian once, it writes them as lines then"
    return None


def _stands(note: Note, key: str, value: Value) -> bool:
    """Whether a note whose properties cannot be changed says already what it should."""
    if note.text_problem or (note.frontmatter is not None and note.frontmatter.problem):
        return False
    return value is None if note.frontmatter is None else _reads_as(note.frontmatter, key, value)


def _plan(note: Note, changes: Mapping[str, Value]) -> tuple[list[Splice], dict[str, str]]:
    """The splices for what can be set, and the reasons for what cannot. The block must not be `_shut`."""
    front = note.frontmatter
    assert front is not None
    text = _yaml(note, front)
    entries = read_entries(text).entries
    splices: list[Splice] = []
    refused: dict[str, str] = {}
    added = []
    indent = _indent(text, entries)
    for key, value in changes.items():
        same = [entry for entry in entries if entry.key.casefold() == key.casefold()]
        if not same:
            if value is not None:
                added += property_lines(key, value, indent)
            continue
        entry = same[0]
        wants_list = isinstance(value, tuple)
        reason = (
            "it occurs twice, in upper and lower case" if len(same) > 1 else _refusal(entry, text, lists=wants_list)
        )
        if len(same) == 1 and value is not None and _same(front.properties[entry.key], value):
            continue
        if reason:
            refused[key] = reason
        elif value is None:
            splices.append(_removal(front, text, entry))
        else:
            splices += _replaced(front, text, entry, value)
    if added:
        eol = _last_eol(note.data[: front.yaml_end])
        splices.append(Splice(front.yaml_end, front.yaml_end, b"".join(line.encode() + eol for line in added)))
    return splices, refused


def _yaml(note: Note, front: Frontmatter) -> str:
    return note.data[front.yaml_start : front.yaml_end].decode()


def _spans_lines(entry: Entry, text: str) -> bool:
    return entry.kind == "block" or bool(_ANY_EOL.search(text, entry.key_start, entry.value_end))


def _refusal(entry: Entry, text: str, *, lists: bool = False) -> str | None:
    """Why this entry cannot be changed by replacing a piece of text.

    A value over several lines is replaced only in keys that are ours by their name: another YAML writer folded what we
    wrote on one line. In any other key such a value is something the user meant to be that way.
    """
    if entry.kind == "map" or (entry.kind == "list" and not lists):
        return "it holds a list" if entry.kind == "list" else "it holds nested properties"
    if entry.kind == "list" and not entry.decorated and yamllists.is_block_list(entry, text):
        return yamllists.block_refusal(entry, text)
    if _spans_lines(entry, text) and not _OWN_KEY.match(entry.key):
        return "its value goes over several lines"
    if entry.decorated:
        return "a YAML tag or anchor stands before its value"
    if text[_line_start(text, entry.key_start) : entry.key_start].strip(" "):
        return "something stands before it on its line"
    return None


def _replaced(front: Frontmatter, text: str, entry: Entry, value: PropertyValue) -> list[Splice]:
    if isinstance(value, tuple):
        return [_splice(front, text, piece) for piece in yamllists.list_pieces(entry, text, value)]
    if isinstance(value, Empty):
        start = text.index(":", entry.key_end) + 1
        return [Splice(_byte(front, text, start), _byte(front, text, _value_end(entry, text)), b"")]
    return _replacement(front, text, entry, format_value(value))


def _replacement(front: Frontmatter, text: str, entry: Entry, new: str) -> list[Splice]:
    start, end = entry.value_start, _value_end(entry, text)
    colon = text.index(":", entry.key_end) + 1
    below = entry.kind != "empty" and bool(_ANY_EOL.search(text, colon, start))
    lines = [_own_lines(front, text, entry)] if below else []
    if entry.kind == "empty" or below:
        start = end = colon
        if text[start : start + 1] in (" ", "\t"):
            start = end = start + 1
            new += " " if text[start : start + 1] == "#" else ""
        else:
            new = " " + new
    elif entry.kind == "block":
        new += _header_comment(entry, text)
    return [Splice(_byte(front, text, start), _byte(front, text, end), new.encode()), *lines]


def _removal(front: Frontmatter, text: str, entry: Entry) -> Splice:
    """The whole line; a comment behind the value is the user's and stays as a line of its own."""
    if yamllists.is_block_list(entry, text):
        return _splice(front, text, yamllists.block_removal(entry, text))
    between = text[text.index(":", entry.key_end) + 1 : entry.value_start]
    first = re.match(r"[ \t]*(?:\r\n|\r|\n)?", between)
    above = between[first.end() if first else 0 :]  # comments and empty lines between the key and its value
    kept = above[: max(above.rfind("\n"), above.rfind("\r")) + 1]
    rest = _own_lines(front, text, entry)
    start = _byte(front, text, _line_start(text, entry.key_start))
    return Splice(start, rest.end, kept.encode() + rest.new)


def _own_lines(front: Frontmatter, text: str, entry: Entry) -> Splice:
    """Take the lines of a value away, from the start of its first line; comments on them stay as lines of their own."""
    end = _value_end(entry, text)
    comment = _header_comment(entry, text).strip(" \t")
    ending = re.compile(r"[ \t]*(?:\r\n|\r|\n|\Z)").match(text, end)
    stop = ending.end() if ending else text.index("#", end)
    if comment:
        comment += _last_eol(text[:stop].encode()).decode()
    return Splice(_byte(front, text, _line_start(text, entry.value_start)), _byte(front, text, stop), comment.encode())


def _value_end(entry: Entry, text: str) -> int:
    """Where the text of a value ends: for a `|` or `>` block behind its last line that is not blank."""
    if entry.kind != "block":
        return entry.value_end
    end = entry.value_start + len(text[entry.value_start : entry.value_end].rstrip(" \t\r\n"))
    ending = _ANY_EOL.search(text, end)
    return ending.start() if ending else len(text)


def _header_comment(entry: Entry, text: str) -> str:
    """The comment behind the `|` or `>` of a block, with the blanks before it."""
    found = _BLOCK_HEADER.match(text, entry.value_start) if entry.kind == "block" else None
    return found.group(1) or "" if found else ""


def _new_block(note: Note, changes: Mapping[str, Value]) -> bytes:
    eol = note.eol.decode()
    lines = [line for k, v in changes.items() if v is not None for line in property_lines(k, v)]
    block = "".join(line + eol for line in ("---", *lines, "---")).encode()
    at = len(BOM) * note.bom
    return note.data[:at] + block + note.data[at:]


def _checked(note: Note, new: bytes, changes: Mapping[str, Value]) -> bytes:
    """Read the result back: our keys as intended, everything else as it was."""
    after = parse_note(new)
    before = note.frontmatter.properties if note.frontmatter else {}
    now = after.frontmatter.properties if after.frontmatter else {}
    ours = {key.casefold() for key in changes}
    kept = [(k, v) for k, v in before.items() if k.casefold() not in ours]
    kept_now = [(k, v) for k, v in now.items() if k.casefold() not in ours]
    intended = all(_reads_as(after.frontmatter, key, value) for key, value in changes.items())
    body_same = new[after.body_start :] == note.data[note.body_start :]
    lists = any(isinstance(value, tuple) for value in changes.values())
    rest_same = strip_properties(new, lambda k: k.casefold() in ours, lists=lists) == strip_properties(
        note.data, lambda k: k.casefold() in ours, lists=lists
    )
    unreadable = after.frontmatter is None or after.frontmatter.problem
    created = note.frontmatter is None
    if unreadable or repr(kept) != repr(kept_now) or not intended or not body_same or not (rest_same or created):
        raise EditRefused(f"The properties were not changed: {_MISREAD}.")
    return new


def _reads_as(front: Frontmatter | None, key: str, value: Value) -> bool:
    if front is None:
        return False
    if value is None:
        return key.casefold() not in {k.casefold() for k in front.properties}
    found = front.get(key, EMPTY)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > SAFE_INTEGER:
        return bool(found == str(value))
    return _same(found, value)


def _same(found: object, wanted: Value) -> bool:
    if isinstance(wanted, Empty):
        return found is None
    if isinstance(wanted, tuple):
        return isinstance(found, list) and found == list(wanted) and all(isinstance(item, str) for item in found)
    return type(found) is type(wanted) and found == wanted


def _indent(text: str, entries: Sequence[Entry]) -> str:
    if not entries:
        return ""
    return text[_line_start(text, entries[0].key_start) : entries[0].key_start]


def _line_start(text: str, at: int) -> int:
    return max(text.rfind("\n", 0, at), text.rfind("\r", 0, at)) + 1


def _last_eol(before: bytes) -> bytes:
    return b"\r\n" if before.endswith(b"\r\n") else before[-1:]


def _splice(front: Frontmatter, text: str, piece: yamllists.Piece) -> Splice:
    return Splice(_byte(front, text, piece.start), _byte(front, text, piece.end), piece.new.encode())


def _byte(front: Frontmatter, text: str, at: int) -> int:
    return front.yaml_start + len(text[:at].encode())
