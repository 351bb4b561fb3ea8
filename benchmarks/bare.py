"""What somebody without loravault would write: the loops that our figures stand beside. As fast as they are short."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

#: One read of this length holds the header of nearly every adapter.
AT_ONCE = 512 * 1024

_FIRST = b'{"__metadata__":'
_DECODER = json.JSONDecoder()


def adapters(folder: Path) -> list[str]:
    """Every adapter file in a tree."""
    return [entry.path for entry in walk(folder) if entry.name.endswith(".safetensors")]


def walk(folder: str | os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
    """The files of a tree with `scandir`."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from walk(entry.path)
            else:
                yield entry


def stat_and_rows(folder: Path, database: Path) -> int:
    """A walk with a `stat` of every file, and one read of the rows that the index has; how many of them differ.

    Every file: a picture or text beside an adapter that changes is a change of the adapter.
    """
    found = {}
    for entry in walk(folder):
        status = entry.stat()
        found[entry.path] = (status.st_size, status.st_mtime_ns, status.st_dev, status.st_ino)
    connection = sqlite3.connect(database)
    rows = connection.execute("SELECT root, rel, size, mtime_ns, dev, ino FROM adapter").fetchall()
    connection.close()
    return sum(found.get(os.path.join(folder, rel)) != tuple(rest) for _, rel, *rest in rows)


def header(path: str) -> bytes:
    """The JSON of a file's header: one `pread`, a second only where the header is longer. Empty if there is none."""
    file = os.open(path, os.O_RDONLY)
    try:
        data = os.pread(file, AT_ONCE, 0)
        if len(data) < 8:
            return b""
        (length,) = struct.unpack_from("<Q", data)
        if 8 + length > len(data):
            data += os.pread(file, 8 + min(length, 2**24) - len(data), len(data))
        return data[8 : 8 + length]
    finally:
        os.close(file)


def metadata(raw: bytes) -> dict[str, str]:
    """`__metadata__` alone: it stands first in all but a few files."""
    if raw.startswith(_FIRST):
        found: dict[str, str] = _DECODER.raw_decode(raw.decode(), len(_FIRST))[0]
        return found
    try:
        return dict(json.loads(raw).get("__metadata__", {}))
    except (ValueError, AttributeError):
        return {}


def table(raw: bytes) -> dict[str, Any]:
    """The whole header."""
    try:
        found = json.loads(raw)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def list_metadata(paths: Iterable[str]) -> int:
    """Read all headers and parse what each says about its training."""
    return sum(len(metadata(header(path))) for path in paths)


def list_tables(paths: Iterable[str]) -> int:
    """Read all headers and parse them whole."""
    return sum(len(table(header(path))) for path in paths)
