"""Every file gets its hashes in the background, of the version the index knows, and never while a job has the disk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from loravault.config import Root, VaultConfig
from loravault.formats.hashes import file_hashes
from loravault.index import adapters
from loravault.index.database import Index
from loravault.index.refresh import refresh_adapters
from loravault.index.tables import AdapterRow
from loravault.jobs.context import Context
from loravault.keeping.hashes import HashKeeper
from loravault.library.hashing import BackgroundHasher
from loravault.pages.cardfields import CardHashes
from loravault.vault.ignore import IgnoreRules
from loravault.vault.ledger import Ledger
from loravault.vault.safewrite import VaultWriter
from tests.formats import headers

#: SHA256, AutoV2 and AutoV3 as a card says them.
SAID = ("ab" * 32, "ab" * 5, "cd" * 6)


class Scene:
    """A root, an index, and a keeper of hashes."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.root = home / "loras"
        self.root.mkdir()
        (home / "vault").mkdir()
        config = VaultConfig(vault=home / "vault", loras=(Root("main", self.root),))
        writer = VaultWriter(home / "vault", Ledger(home / "ledger.jsonl"), home / "displaced")
        self.ctx = Context(
            config=config,
            index=Index(home / "index.sqlite"),
            ledger=writer.ledger,
            writer=writer,
            rules=IgnoreRules(),
        )
        self.changed: set[str] = set()
        self.keeper = self.new_keeper()

    def new_keeper(self, notes_read: Callable[[], bool] = lambda: True) -> HashKeeper:
        return HashKeeper(
            self.ctx, on_changed=self.changed.update, notes_read=notes_read, hasher=BackgroundHasher(duty=1.0)
        )

    def put(self, name: str, fill: int) -> Path:
        path = headers.write(self.root / name, headers.adapter(headers.lora(), fill=fill))
        os.utime(path, (time.time() - 100, time.time() - 100))
        return path

    def look(self) -> None:
        refresh_adapters(self.ctx.index, self.ctx.config.loras)
        self.keeper.library_changed(None)
        self.keeper._listed_at = float("-inf")

    def rows(self) -> dict[str, AdapterRow]:
        with self.ctx.index.session() as session:
            return {row.rel: row for row in adapters.adapters(session)}

    def work(self, until: Callable[[], bool], working: bool = False, seconds: float = 5) -> bool:
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            self.keeper.step(working=working)
            if until():
                return True
            time.sleep(0.01)
        return False


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr("loravault.library.identify.HASH_AT_ONCE_BYTES", 0)
    made = Scene(tmp_path)
    yield made
    made.keeper.close()
    made.ctx.index.close()


def test_every_file_gets_its_hashes_and_who_changed_is_told(scene: Scene) -> None:
    paths = {name: scene.put(name, fill) for fill, name in enumerate(("a.safetensors", "b.safetensors"), 1)}
    scene.look()
    assert not any(row.hashed for row in scene.rows().values())
    assert scene.work(lambda: all(row.hashed for row in scene.rows().values()))
    for name, row in scene.rows().items():
        real = file_hashes(paths[name])
        assert (row.sha256, row.autov2, row.autov3) == (real.sha256, real.autov2, real.autov3[:12])
        assert (row.blake3, row.crc32, row.autov1) == (real.blake3, real.crc32, real.autov1)
    assert scene.changed == {row.weight_id for row in scene.rows().values()}


def test_while_a_job_has_the_disk_the_hashing_rests(scene: Scene) -> None:
    scene.keeper.step(working=True)
    scene.put("a.safetensors", 1)
    scene.look()
    assert not scene.work(lambda: scene.rows()["a.safetensors"].hashed, working=True, seconds=0.3)
    assert scene.work(lambda: scene.rows()["a.safetensors"].hashed)


def test_what_is_hashed_is_not_hashed_again_after_a_start(scene: Scene) -> None:
    scene.put("a.safetensors", 1)
    scene.look()
    assert scene.work(lambda: scene.rows()["a.safetensors"].hashed)
    scene.keeper.close()
    scene.keeper = scene.new_keeper()
    scene.look()
    scene.keeper.step(working=False)
    assert not scene.keeper.progress.busy


def test_hashes_of_another_version_are_not_stored(scene: Scene) -> None:
    scene.put("a.safetensors", 1)
    scene.look()
    with scene.ctx.index.session() as session:
        row = scene.rows()["a.safetensors"]
        hashes = file_hashes(scene.root / "a.safetensors")
        assert adapters.store_file_hashes(session, ("main", row.rel), (row.size, row.mtime_ns - 1), hashes) is None
        assert adapters.store_file_hashes(session, ("main", "gone"), (row.size, row.mtime_ns), hashes) is None
    assert not scene.rows()["a.safetensors"].hashed


def test_what_a_card_says_of_its_file_is_believed_after_a_rebuild_and_of_no_other_file(scene: Scene) -> None:
    scene.put("a.safetensors", 1)
    scene.put("copy.safetensors", 1)
    scene.look()
    weight_id = scene.rows()["a.safetensors"].weight_id or ""
    with scene.ctx.index.session() as session:
        assert adapters.trust_hashes(session, weight_id, "main/a.safetensors", SAID)
        assert not adapters.trust_hashes(session, weight_id, "main/moved.safetensors", SAID)
    assert [row.hashed for row in scene.rows().values()] == [True, False]


def test_a_card_is_not_believed_of_a_file_of_another_size(scene: Scene) -> None:
    """Somebody edited the header while the index was away: the weights are the same, the SHA256 is not."""
    path = scene.put("a.safetensors", 1)
    scene.look()
    weight_id = scene.rows()["a.safetensors"].weight_id or ""
    size_mb = round(path.stat().st_size / 1e6, 3)
    with scene.ctx.index.session() as session:
        assert not adapters.trust_hashes(session, weight_id, "main/a.safetensors", SAID, size_mb + 0.002)
        assert adapters.trust_hashes(session, weight_id, "main/a.safetensors", SAID, size_mb)


def test_nothing_is_hashed_before_the_cards_were_read_nor_what_they_tell(scene: Scene) -> None:
    path = scene.put("a.safetensors", 1)
    scene.put("b.safetensors", 2)
    read = False
    scene.keeper = scene.new_keeper(notes_read=lambda: read)
    sha256, autov2, autov3 = SAID
    scene.look()
    weight_id = scene.rows()["a.safetensors"].weight_id or ""
    for known in (weight_id, "w1-0000000000000000"):
        scene.keeper.claimed(
            CardHashes(known, "main/a.safetensors", round(path.stat().st_size / 1e6, 3), sha256, autov2, autov3)
        )
    assert not scene.work(lambda: any(row.hashed for row in scene.rows().values()), seconds=0.3)
    read = True
    assert scene.work(lambda: all(row.hashed for row in scene.rows().values()))
    rows = scene.rows()
    assert (rows["a.safetensors"].sha256, rows["a.safetensors"].crc32) == (sha256, None), "told, not measured"
    assert rows["b.safetensors"].sha256 == file_hashes(scene.root / "b.safetensors").sha256
    assert scene.changed >= {weight_id}


def test_switched_off_nothing_is_read(scene: Scene) -> None:
    scene.ctx.config = replace(scene.ctx.config, hashing=False)
    scene.put("a.safetensors", 1)
    scene.look()
    scene.keeper.step(working=False)
    assert not scene.keeper.progress.busy
