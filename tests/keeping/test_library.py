"""The whole of it: files become cards, covers, galleries and search; what the user writes on a card flows back; and a
deleted index costs nothing, byte for byte."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from loravault.daemon import Daemon
from loravault.index import adapters, search
from loravault.library.hash_plan import HashWish
from loravault.library.hashing import BackgroundHasher
from tests.world import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    made = World(tmp_path, cards=True, galleries=True)
    made.adapter("Styles/ink_outline.safetensors", **{"modelspec.trigger_phrase": "sks style"})
    made.adapter("Styles/[PDXL] style #2.safetensors", ss_output_name="two")
    made.adapter("doll.safetensors")
    (made.loras / "doll.json").write_text(json.dumps({"activation text": "sks doll", "preferred weight": 0.7}))
    Image.new("RGB", (600, 900), "teal").save(made.loras / "doll.preview.png")
    made.note("Diary.md", "# Diary\n\nJust mine.\n")
    return made


@contextmanager
def running(world: World) -> Iterator[Daemon]:
    daemon = world.daemon()
    try:
        yield daemon
    finally:
        daemon.close()


def settle(world: World, daemon: Daemon, quiet_s: float = 1.6) -> None:
    """Tick until the vault has not changed for longer than a card waits for its quiet time."""
    give_up, since, before = time.monotonic() + 40, time.monotonic(), {}
    while time.monotonic() - since < quiet_s:
        assert time.monotonic() < give_up, world.story()
        daemon.tick()
        now = {path: path.stat().st_mtime_ns for path in world.vault.rglob("*") if path.is_file()}
        now = {path: when for path, when in now.items() if path != world.vault / "LoraVault" / "LoraVault.md"}
        busy = daemon.keepers.waiting or daemon.keepers.galleries.is_behind or daemon.keepers.hashes.progress.busy
        if now != before or busy:
            since, before = time.monotonic(), now
        time.sleep(0.01)


def everything(world: World) -> dict[str, bytes]:
    """Every file of the vault but the dashboard, which tells the time."""
    found = {path.relative_to(world.vault).as_posix(): path for path in world.vault.rglob("*") if path.is_file()}
    return {rel: path.read_bytes() for rel, path in found.items() if rel != "LoraVault/LoraVault.md"}


def test_every_file_gets_a_card_a_cover_if_there_is_a_picture_and_its_place_in_the_galleries(world: World) -> None:
    with running(world) as daemon:
        settle(world, daemon)
        with daemon.ctx.index.session() as session:
            assert [hit.name for hit in search.search(session, "doll").hits] == ["doll"]
    files = everything(world)
    assert {rel for rel in files if rel.startswith("LoraVault/LoRAs/")} == {
        "LoraVault/LoRAs/Styles/ink_outline.md",
        "LoraVault/LoRAs/Styles/(PDXL) style 2.md",
        "LoraVault/LoRAs/doll.md",
    }
    doll = world.properties("LoraVault/LoRAs/doll.md")
    assert (doll["trigger_words"], doll["weight"], doll["lora_file"]) == (["sks doll"], 0.7, "loras/doll.safetensors")
    assert doll["sha256"], "hashed in the background, and told"
    cover = str(doll["cover"]).removeprefix("[[").removesuffix("]]")
    with Image.open(world.vault / cover) as picture:
        assert (picture.format, max(picture.size)) == ("WEBP", 512)
    assert "LoraVault/Gallery/LoRA gallery.md" in files
    assert "LoraVault/Gallery/Adapters/doll pictures.md" in files
    assert {f"LoraVault/{name}.base" for name in ("LoRAs", "Requests", "Images")} <= files.keys()
    assert files["Diary.md"] == b"# Diary\n\nJust mine.\n"


def test_what_the_user_writes_on_a_card_decides_the_next_picture_and_the_result_links_the_card(world: World) -> None:
    with running(world) as daemon:
        settle(world, daemon)
        card = world.vault / "LoraVault/LoRAs/doll.md"
        text = card.read_text().replace("weight: 0.7", "weight: 0.55").replace("- sks doll", "- sks doll\n  - lace")
        card.write_text(text + "\nMy own words.\n")
        settle(world, daemon)
        world.request("Cat.md", "a cat", loras=["doll"], seed=1)
        world.finish(daemon, "Cat.md")
        page = "LoraVault/Gallery/Adapters/doll pictures.md"
        world.work(daemon, lambda: ".webp|" in world.read(page), timeout=30)  # a burst of changes is written together
    note = world.read("Cat.md")
    assert "> [[LoraVault/LoRAs/doll|doll]] 0.55 · " in note
    assert '"sks doll", "lace"' in note
    assert "My own words." in world.read("LoraVault/LoRAs/doll.md")
    assert world.read(page).count(".webp|") == 1, "the picture is on the page that the card embeds"


def test_a_second_start_writes_nothing(world: World) -> None:
    with running(world) as daemon:
        settle(world, daemon)
    before = {path: path.stat().st_mtime_ns for path in world.vault.rglob("*") if path.is_file()}
    with running(world) as daemon:
        settle(world, daemon)
    after = {path: path.stat().st_mtime_ns for path in world.vault.rglob("*") if path.is_file()}
    board = world.vault / "LoraVault" / "LoraVault.md"
    assert {path for path in after if after[path] != before.get(path)} <= {board}


def test_without_the_index_the_same_pages_byte_for_byte_and_a_deleted_card_stays_deleted(world: World) -> None:
    """Files over app: what matters is in the vault, the pictures and the loras folder."""
    with running(world) as daemon:
        settle(world, daemon)
        (world.vault / "LoraVault/LoRAs/Styles/ink_outline.md").unlink()
        card = world.vault / "LoraVault/LoRAs/doll.md"
        (world.vault / "Dolls").mkdir()
        card.rename(world.vault / "Dolls" / "My doll.md")
        world.request("Cat.md", "a cat <lora:doll>", "a dog <lora:two:0.5>", seed=1)
        world.finish(daemon, "Cat.md")
        settle(world, daemon, quiet_s=2.0)
    before = everything(world)
    assert "LoraVault/LoRAs/Styles/ink_outline.md" not in before
    assert "LoraVault/LoRAs/doll.md" not in before
    for path in world.config.state_dir.glob("index.sqlite*"):
        path.unlink()
    with running(world) as daemon:
        settle(world, daemon, quiet_s=2.0)
    after = everything(world)
    assert after.keys() == before.keys()
    assert [rel for rel in after if after[rel] != before[rel]] == []


def test_without_the_index_no_file_is_hashed_again_whose_card_tells_its_hashes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hashing a library takes hours; deleting the index must not cost them again."""
    monkeypatch.setattr("loravault.library.identify.HASH_AT_ONCE_BYTES", 0)
    monkeypatch.setattr("loravault.keeping.cardupdating.SPREAD_S", 0.0)
    monkeypatch.setattr("loravault.keeping.hashes.LIST_S", 0.1)
    wished: list[str] = []
    real = BackgroundHasher.want

    def want(self: BackgroundHasher, wishes: Iterable[HashWish]) -> None:
        listed = list(wishes)
        wished.extend(wish.rel for wish in listed)
        real(self, listed)

    monkeypatch.setattr(BackgroundHasher, "want", want)
    with running(world) as daemon:
        settle(world, daemon)
        cards = sorted((world.vault / "LoraVault" / "LoRAs").rglob("*.md"))
        assert all(world.properties(card.relative_to(world.vault).as_posix())["sha256"] for card in cards)
    before = everything(world)
    assert "doll.safetensors" in wished
    wished.clear()
    for path in world.config.state_dir.glob("index.sqlite*"):
        path.unlink()
    world.adapter("new.safetensors")
    with running(world) as daemon:
        settle(world, daemon)
        with daemon.ctx.index.session() as session:
            rows = {row.name: row for row in adapters.adapters(session)}
    assert set(wished) == {"new.safetensors"}
    assert all(row.hashed and row.sha256 and row.autov3 for row in rows.values())
    after = everything(world)
    assert [rel for rel in before if "/LoRAs/" in rel and after[rel] != before[rel]] == []


def test_a_drive_that_is_away_changes_no_card_and_a_file_that_is_gone_says_so_on_its_card(world: World) -> None:
    for number in range(4):
        world.adapter(f"more {number}.safetensors")
    with running(world) as daemon:
        settle(world, daemon)
        before = everything(world)
        world.loras.rename(world.home / "unplugged")
        settle(world, daemon)
        assert everything(world) == before
        (world.home / "unplugged").rename(world.loras)
        (world.loras / "doll.safetensors").unlink()
        settle(world, daemon)
    doll = world.properties("LoraVault/LoRAs/doll.md")
    assert (doll["state"], doll["trigger_words"]) == ("missing", ["sks doll"])
    shutil.rmtree(world.home / "unplugged", ignore_errors=True)


def test_what_was_deleted_of_ours_comes_back_by_itself_and_by_reindex(world: World) -> None:
    """Deleted gallery files stayed away while the daemon ran, also when it was told to look at everything."""
    index, base = world.vault / "LoraVault/Gallery/LoRA gallery.md", world.vault / "LoraVault/LoRAs.base"
    with running(world) as daemon:
        settle(world, daemon)
        before = everything(world)
        index.unlink()
        world.work(daemon, index.exists)
        base.unlink()
        daemon.orders.obey("reindex", {})
        world.work(daemon, base.exists)
        settle(world, daemon)
    assert everything(world) == before
