"""A vault with cards, and the loop around them reduced to what they need: rows of adapters in, notes in, steps."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from sqlmodel import select

from loravault.config import Root, VaultConfig
from loravault.index.database import Index
from loravault.index.tables import AdapterRow, CardRow
from loravault.jobs.context import Context
from loravault.keeping.cards import CardKeeper
from loravault.vault.ignore import IgnoreRules
from loravault.vault.ledger import Ledger
from loravault.vault.note import parse_note
from loravault.vault.safewrite import VaultWriter
from loravault.vault.walk import StatKey, walk_notes

#: The card of `Styles/ink.safetensors`.
INK = "LoraVault/LoRAs/Styles/ink.md"

DAY_NS = 1763600000 * 10**9


def weight_id(number: int) -> str:
    return f"w1-{number:016x}"


class CardWorld:
    """One vault whose clock the test moves; gates of the real length, so that what waits is seen to wait."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.vault = home / "My vault"
        (self.vault / ".obsidian").mkdir(parents=True)
        (home / "loras").mkdir()
        self.config = VaultConfig(
            vault=self.vault, loras=(Root("loras", home / "loras"),), state_root=home / "state", grace_s=0.0
        )
        self.clock = 1000.0
        self.covers: dict[str, str] = {}
        self.read_all = True
        self.opened: list[str] = []
        self.keys: dict[str, StatKey] = {}
        self.missed: set[str] = set()
        self.open()

    def open(self, *, forget_index: bool = False) -> None:
        """Start, or start again."""
        if hasattr(self, "ctx"):
            self.ctx.index.close()
        state = self.config.state_dir
        if forget_index:
            for part in state.glob("index.sqlite*"):
                part.unlink()
        ledger = Ledger(state / "ledger.jsonl")
        self.ctx = Context(
            config=self.config,
            index=Index(state / "index.sqlite"),
            ledger=ledger,
            writer=VaultWriter(self.vault, ledger, state / "displaced", grace_s=0.0),
            rules=IgnoreRules.read(self.vault),
            now=lambda: time.time() + 100,  # what the test has just written has been quiet for long
            steady=lambda: self.clock,
        )
        self.ctx.look = lambda rel: self.keys.pop(rel, None) and None
        self.keys, self.missed = {}, set()
        self.keeper = CardKeeper(self.ctx, notes_read=lambda: self.read_all, cover_of=self.covers.get)

    def adapter(self, rel: str, number: int, root: str = "loras", **fields: Any) -> str:
        """A row as the scan would leave it; returns the weight id."""
        facts = fields.pop("facts", {})
        words = fields.pop("trigger_words", [])
        with self.ctx.index.session() as session:
            session.merge(
                AdapterRow(
                    root=root,
                    rel=rel,
                    weight_id=weight_id(number),
                    name=rel.rpartition("/")[2].removesuffix(".safetensors"),
                    size=1_500_000,
                    mtime_ns=DAY_NS,
                    family=fields.pop("family", "sdxl"),
                    facts=json.dumps(facts),
                    trigger_words=json.dumps(words),
                    **fields,
                )
            )
        return weight_id(number)

    def change(self, number: int, **fields: Any) -> None:
        with self.ctx.index.session() as session:
            for row in session.exec(select(AdapterRow).where(AdapterRow.weight_id == weight_id(number))).all():
                for key, value in fields.items():
                    setattr(row, key, value)
                session.add(row)
        self.keeper.library_changed({weight_id(number)})

    def note(self, rel: str, text: str | bytes) -> Path:
        path = self.vault / rel
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def scan(self, seconds: float = 10.0) -> None:
        """A rescan with everything that is quiet handed out."""
        self.clock += seconds
        present = {seen.rel: seen.key for seen in walk_notes(self.vault, self.ctx.skip_folder)}
        absent = self.keys.keys() - present.keys()
        for rel in absent & self.missed:
            self.keys.pop(rel)
            self.keeper.card_gone(rel)
        self.missed = absent - self.missed
        for rel, key in present.items():
            if self.keys.get(rel) == key:
                continue
            self.keys[rel] = key
            if self.keeper.is_known(rel, key):
                continue
            self.opened.append(rel)
            note = parse_note((self.vault / rel).read_bytes())
            if self.keeper.concerns(rel, note):
                broken = note.text_problem or (note.frontmatter.problem if note.frontmatter else None)
                self.keeper.card_seen(rel, note, key, self.ctx.rules.reason(rel) or broken)

    def settle(self, rounds: int = 3) -> None:
        """Scan and step until nothing is left to do."""
        for _ in range(rounds):
            self.scan(31.0)
            while self.keeper.step(1.0):
                pass

    def cards(self) -> dict[str, str]:
        """Path -> `lora` of every card there is."""
        return {
            path.relative_to(self.vault).as_posix(): str(self.properties(path).get("lora"))
            for path in sorted(self.vault.rglob("*.md"))
            if self.properties(path).get("loravault") == "card"
        }

    def properties(self, path: Path | str) -> dict[str, Any]:
        front = parse_note((self.vault / path).read_bytes()).frontmatter
        return dict(front.properties) if front else {}

    def row(self, rel: str) -> CardRow | None:
        with self.ctx.index.session() as session:
            return session.get(CardRow, rel)

    def snapshot(self) -> dict[str, tuple[bytes, int]]:
        return {
            path.relative_to(self.vault).as_posix(): (path.read_bytes(), os.stat(path).st_mtime_ns)
            for path in sorted(self.vault.rglob("*.md"))
        }
