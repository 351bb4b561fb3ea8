"""How the command line writes: text from strangers without control characters, sizes, aligned columns, JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def plain(text: str) -> str:
    """`text` without the characters that could steer a terminal; line breaks stay."""
    return "".join(char if char.isprintable() or char == "\n" else "�" for char in text)


def size(count: int) -> str:
    """A number of bytes as people write it: `4 KB`, `3.1 MB`, `96 GB` (powers of 1000)."""
    value, unit = float(count), "bytes"
    for unit in ("bytes", "KB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.1f} {unit}" if unit in ("MB", "GB", "TB") and value < 10 else f"{value:.0f} {unit}"


def counted(count: int, singular: str, plural: str | None = None) -> str:
    """`1 note`, `3 notes`."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def columns(rows: Iterable[Sequence[str]]) -> str:
    """Rows as left-aligned columns, two blanks between, nothing after the last."""
    table = [[plain(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max((len(row[i]) for row in table), default=0) for i in range(len(table[0]) if table else 0)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table)


def as_json(value: Any) -> str:
    """Dataclasses, paths and tuples as JSON, readable, in the order of their fields."""
    return json.dumps(value, default=_jsonable, indent=2, ensure_ascii=False)


def _jsonable(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")
