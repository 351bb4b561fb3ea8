"""A vault whose gallery pages are kept, for tests: rows of the index in, pages out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sqlmodel import delete

from loravault.config import VaultConfig
from loravault.index import images
from loravault.index.database import Index
from loravault.index.tables import AdapterRow, CardRow, ImageRow
from loravault.jobs.context import Context
from loravault.keeping.galleries import BURST_S, GalleryKeeper
from loravault.vault.ignore import IgnoreRules
from loravault.vault.ledger import Ledger
from loravault.vault.safewrite import VaultWriter
from tests.pages.shelves import picture, weight_id

FAMILY = "LoraVault/Gallery/Families/SDXL gallery.md"
FOLDER = "LoraVault/Gallery/Folders/Styles folder.md"
MONTH = "LoraVault/Gallery/Months/Made in 2026-11.md"
INDEX = "LoraVault/Gallery/LoRA gallery.md"


def page_of(name: str) -> str:
    return f"LoraVault/Gallery/Adapters/{name} pictures.md"


class Scene:
    """A vault, an index whose rows the test writes, a keeper, and a clock that the test moves."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.vault = home / "vault"
        self.vault.mkdir()
        config = VaultConfig(vault=self.vault, **settings)
        writer = VaultWriter(self.vault, Ledger(home / "ledger.jsonl"), home / "displaced")
        index = Index(home / "index.sqlite")
        self.time = 1000.0
        self.ctx = Context(
            config=config,
            index=index,
            ledger=writer.ledger,
            writer=writer,
            rules=IgnoreRules(),
            steady=lambda: self.time,
        )
        self.removing = True
        self.keeper = self.new_keeper()

    def new_keeper(self) -> GalleryKeeper:
        return GalleryKeeper(self.ctx, may_remove=lambda: self.removing)

    def adapter(self, name: str, category: str = "Styles", *, card: bool = True, **changes: Any) -> None:
        row = AdapterRow(
            **{
                "root": "loras", "rel": f"{category}/{name}.safetensors", "weight_id": weight_id(name), "name": name,
                "family": "sdxl", "network": "lora", "rank": 16, **changes,
            }
        )  # fmt: skip
        with self.ctx.index.session() as session:
            session.merge(row)
            if card:
                session.merge(CardRow(path=f"LoraVault/LoRAs/{category}/{name}.md", weight_id=weight_id(name)))

    def forget(self, name: str) -> None:
        with self.ctx.index.session() as session:
            session.exec(delete(AdapterRow).where(AdapterRow.name == name))  # type: ignore[arg-type]
            session.exec(delete(CardRow).where(CardRow.weight_id == weight_id(name)))  # type: ignore[arg-type]

    def picture(self, number: int, *names: str) -> str:
        row = ImageRow(path=picture(number), job=f"job{number}", adapters=json.dumps([weight_id(n) for n in names]))
        with self.ctx.index.session() as session:
            images.remember_image(session, row)
        return row.path

    def settle(self) -> set[str]:
        """Let time pass and work until nothing waits. Returns what was written or removed."""
        before = self.state()
        self.time += BURST_S
        while self.keeper.step(1.0):
            pass
        after = self.state()
        return {path for path in before | after if before.get(path) != after.get(path)}

    def changed(self, *names: str) -> set[str]:
        self.keeper.library_changed({weight_id(name) for name in names} if names else None)
        return self.settle()

    def state(self) -> dict[str, tuple[int, int]]:
        """Every visible file by inode and time: a file that is written again is another one."""
        found = {}
        for path in self.vault.rglob("*"):
            if path.is_file():
                status = path.stat()
                found[path.relative_to(self.vault).as_posix()] = (status.st_ino, status.st_mtime_ns)
        return found

    def text(self, rel: str) -> str:
        return (self.vault / rel).read_text("utf-8")
