"""A vault with one note for tests of writing."""

from __future__ import annotations

import hashlib
from pathlib import Path

from loravault.vault.ledger import Ledger
from loravault.vault.safewrite import VaultWriter


class Scene:
    """A vault with one note, a clock that stands still, and a writer."""

    def __init__(self, tmp: Path, *, can_exchange: bool = True) -> None:
        self.root = tmp / "vault"
        self.root.mkdir()
        self.clock = 1_700_000_000.0
        self.can_exchange = can_exchange
        self.state = tmp / "state"
        self.writer = self.restart()
        self.note = self.root / "note.md"
        self.note.write_bytes(b"base\n")

    def restart(self) -> VaultWriter:
        ledger = Ledger(self.state / "ledger.jsonl")
        displaced = self.state / "displaced"
        return VaultWriter(self.root, ledger, displaced, 3.0, lambda: self.clock, can_exchange=self.can_exchange)

    def wait(self, seconds: float = 3.5) -> list[str]:
        self.clock += seconds
        return self.writer.verify_due()

    def files(self) -> list[str]:
        return sorted(p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file())

    def displaced(self) -> list[bytes]:
        folder = self.state / "displaced"
        return [p.read_bytes() for p in sorted(folder.iterdir())] if folder.exists() else []

    def conflicts(self) -> list[bytes]:
        return [(self.root / f).read_bytes() for f in self.files() if "loravault conflict" in f]


def broken(*args, **kwargs):
    raise OSError(28, "No space left on device")


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
