"""The append-only record of what must be known after a crash: one JSON object per line, each with `v: 1`, fsynced."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from loravault.errors import UserError
from loravault.failpoints import reach
from loravault.osdep import fsync_dir

VERSION = 1


class Ledger:
    """A JSONL file (mode 0600). A line that a crash cut short is skipped when reading and closed before appending."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record; when this returns it is on disk."""
        self.append_many([record])

    def append_many(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write several records, waiting for the disk once. A crash may leave only the first of them."""
        lines = b"".join(_line({"v": VERSION, **record}) for record in records)
        if not lines:
            return
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
            payload = (b"\n" if torn else b"") + lines
            while payload:
                payload = payload[os.write(descriptor, payload) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if created:
            fsync_dir(self.path.parent)

    def size(self) -> int:
        """Bytes on disk."""
        return self.path.stat().st_size if self.path.exists() else 0

    def rewrite(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Drop the records that are not to be kept (and torn lines). A crash leaves the old ledger or the new one."""
        temp = self.path.with_name(self.path.name + ".tmp")
        descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for record in self.read():
                if keep(record):
                    file.write(_line(record))
            file.flush()
            os.fsync(file.fileno())
        reach("ledger.rewritten")
        os.replace(temp, self.path)
        fsync_dir(self.path.parent)

    def read(self) -> Iterator[dict[str, Any]]:
        """All whole records in order. A record of a newer loravault stops with a sentence: guessing could lose data."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            for line in file:
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


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.strip():
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
