"""The append-only record of what must be known after a crash: one JSON object per line, each with `v: 1`, fsynced."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loravault.errors import UserError
from loravault.osdep import fsync_dir

VERSION = 1


class Ledger:
    """A JSONL file (mode 0600). A line that a crash cut short is skipped when reading and closed before appending."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record; when this returns it is on disk."""
        line = json.dumps({"v": VERSION, **record}, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
        created = not self.path.exists()
        if created:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o600)
        try:
            size = os.fstat(descriptor).st_size
            torn = False
            if size:
                os.lseek(descriptor, size - 1, os.SEEK_SET)
                torn = os.read(descriptor, 1) != b"\n"
            payload = (b"\n" if torn else b"") + line.encode("ascii") + b"\n"
            while payload:
                payload = payload[os.write(descriptor, payload) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if created:
            fsync_dir(self.path.parent)

    def read(self) -> Iterator[dict[str, Any]]:
        """All whole records in order. A record of a newer loravault stops with a sentence: guessing could lose data."""
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        for line in lines:
            record = _parse(line)
            if record is None:
                continue
            version = record.get("v")
            if isinstance(version, int) and version > VERSION:
                raise UserError(
                    f"The ledger {self.path} was written by a newer loravault (format {version}); "
                    "update loravault on this machine before it writes to this vault."
                )
            yield record


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.strip():
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
