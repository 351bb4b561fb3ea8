"""Captions beside pictures: a text file for each, or one table for a folder, in the forms that trainers share.

| file | form |
|---|---|
| `X.txt`, `X.caption` | the caption of `X.jpg`; several lines become one |
| `metadata.jsonl` | diffusers: one object a line, `file_name` and `text` |
| `metadata.json` | kohya: name or path of a picture → `caption` and `tags`; or a list of objects as above |
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

#: Nearest first: what stands beside a picture is meant for it.
ENDINGS = (".txt", ".caption")
TABLES = ("metadata.jsonl", "metadata.json")
#: A caption that is longer is no caption; a table that is longer is not read.
MAX_CAPTION_BYTES = 64 << 10
MAX_TABLE_BYTES = 64 << 20
_TEXTS = ("text", "caption", "prompt")


class Unreadable(Exception):  # noqa: N818 - a state of one file, told in words
    """Why a caption or a table is not read, as half a sentence."""


def text_beside(picture: Path) -> Path | None:
    """The text file of a picture: `cat.txt` or `cat.jpg.txt` of `cat.jpg`; None if there is none."""
    for ending in ENDINGS:
        for path in (picture.with_suffix(ending), picture.with_name(picture.name + ending)):
            if path.is_file():
                return path
    return None


def read_caption(path: Path) -> str:
    """What a text file says, in one line. Raises `Unreadable`."""
    return one_line(_text(path, MAX_CAPTION_BYTES))


def one_line(text: str) -> str:
    """Several lines as one: tags, one a line, get their commas; sentences stay sentences. No control characters."""
    clean = "".join(char if char.isprintable() or char.isspace() else " " for char in text)
    lines = [" ".join(line.split()) for line in clean.splitlines()]
    found = ""
    for line in filter(None, lines):
        found += ("" if not found else " " if found[-1] in ",.;:!?|…。" else ", ") + line
    return found


def _text(path: Path, most: int) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise Unreadable(f"it cannot be read ({error.strerror or error})") from error
    if len(data) > most:
        raise Unreadable(f"it is longer than {most >> 10} KiB")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:  # what Windows programs wrote before
        return data.decode("cp1252", "replace")


class Table:
    """The captions of a folder by picture."""

    def __init__(self, captions: Mapping[str, str]) -> None:
        self._captions = captions

    def caption_of(self, inner: PurePosixPath, picture: Path) -> str | None:
        """By path inside the folder of the table, by absolute path, then by either without its ending, as kohya does.

        A bare name counts for pictures directly in the folder only.
        """
        for name in (str(inner), picture.as_posix()):
            for key in (name, name[: len(name) - len(inner.suffix)] if inner.suffix else name):
                if key in self._captions:
                    return self._captions[key]
        return None


def read_table(path: Path) -> Table:
    """`metadata.jsonl` or `metadata.json`. Raises `Unreadable`."""
    text = _text(path, MAX_TABLE_BYTES)
    try:
        rows = dict(_lines(text) if path.suffix == ".jsonl" else _entries(json.loads(text)))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"it is no JSON ({' '.join(str(error).split())[:80]})") from error
    return Table(rows)


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        if line.strip():
            yield from _row(json.loads(line))


def _entries(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for row in value:
            yield from _row(row)
    elif isinstance(value, dict):
        for name, entry in value.items():
            if (caption := _written(entry)) is not None:
                yield _key(name), caption


def _row(row: Any) -> Iterator[tuple[str, str]]:
    name = row.get("file_name") if isinstance(row, dict) else None
    if isinstance(name, str) and (caption := _written(row)) is not None:
        yield _key(name), caption


def _key(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./")


def _written(entry: Any) -> str | None:
    """The caption of an entry, followed by its tags."""
    if isinstance(entry, str):
        return one_line(entry)
    if not isinstance(entry, dict):
        return None
    texts = [entry[key] for key in _TEXTS if isinstance(entry.get(key), str)][:1]
    tags = entry.get("tags")
    if isinstance(tags, list):
        tags = ", ".join(tag for tag in tags if isinstance(tag, str))
    if isinstance(tags, str) and tags.strip():
        texts.append(tags)
    return ", ".join(filter(None, map(one_line, texts))) if texts else None
