"""What happens to a card when its file breaks, is replaced, goes, is copied, or its folder is taken from the config."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from pathlib import Path

import pytest
from PIL import Image

from loravault.config import Root
from loravault.daemon import Daemon
from loravault.index import adapters, overview
from loravault.index.library import entries
from tests.keeping.test_library import everything, running, settle
from tests.world import World, adapter_bytes

OLD = time.time() - 100_000
NAMES = "abcdef"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    made = World(tmp_path, cards=True, galleries=True, rescan_s=0.2)
    for name in NAMES:
        made.adapter(f"Styles/{name}.safetensors")
    age(made.loras)
    return made


def age(root: Path, by: float = 0.0) -> None:
    """As if the files had been there for long: young ones are given time to grow."""
    for path in root.rglob("*.safetensors"):
        os.utime(path, (OLD + by, OLD + by))


def card(world: World, name: str = "a") -> dict[str, object]:
    return world.properties(f"LoraVault/LoRAs/Styles/{name}.md")


def until(world: World, daemon: Daemon, name: str, state: str) -> None:
    world.work(daemon, lambda: card(world, name)["state"] == state, timeout=20)


def forget_index(world: World) -> None:
    for path in world.config.state_dir.glob("index.sqlite*"):
        path.unlink()


@pytest.mark.parametrize("cut", [300, None])
def test_a_file_that_breaks_says_so_on_its_card_and_is_well_again_when_it_is_whole(
    world: World, cut: int | None
) -> None:
    """Its row lost the weight id, so the card was never found again and said `ok` for ever."""
    path = world.loras / "Styles" / "a.safetensors"
    whole = path.read_bytes()
    with running(world) as daemon:
        settle(world, daemon)
        before = card(world)
        path.write_bytes(whole[:-cut] if cut else b"garbage" * 100)
        age(world.loras, by=5)
        until(world, daemon, "a", "broken")
        assert {key: card(world)[key] for key in ("lora", "lora_file", "family", "rank")} == {
            key: before[key] for key in ("lora", "lora_file", "family", "rank")
        }
        assert "LoraVault/Gallery/Adapters/a pictures.md" in everything(world)
        path.write_bytes(whole)
        age(world.loras, by=9)
        until(world, daemon, "a", "ok")
        settle(world, daemon)
        assert card(world) == before


def test_a_file_that_is_replaced_leaves_its_card_and_pictures_behind_and_gets_a_card_of_its_own(world: World) -> None:
    """The old card said `ok` of a file with other weights, and the page of its pictures was deleted."""
    with running(world) as daemon:
        settle(world, daemon)
        world.request("Cat.md", "a cat <lora:a:1>", seed=1)
        world.finish(daemon, "Cat.md")
        page = "LoraVault/Gallery/Adapters/a pictures.md"
        world.work(daemon, lambda: ".webp|" in world.read(page), timeout=30)
        before, text = card(world), world.read("LoraVault/LoRAs/Styles/a.md")
        path = world.loras / "Styles" / "a.safetensors"
        path.write_bytes(adapter_bytes(160, 8, {}, seed="retrained"))
        os.utime(path, (OLD + 9, OLD + 9))
        until(world, daemon, "a", "missing")
        settle(world, daemon)
        after = everything(world)
        assert world.read("LoraVault/LoRAs/Styles/a.md") == text.replace("state: ok", "state: missing")
        new = world.properties("LoraVault/LoRAs/Styles/a (LoRA).md")
        assert (new["state"], new["lora_file"]) == ("ok", before["lora_file"])
        assert new["lora"] != before["lora"]
        assert ".webp|" in world.read(page)
        world.work(daemon, lambda: "holds other weights now" in world.read("LoraVault/LoraVault.md"), timeout=20)
        assert "LoraVault/LoRAs/Styles/a (LoRA)" in world.read("LoraVault/LoraVault.md")
    forget_index(world)
    with running(world) as daemon:
        settle(world, daemon)
    assert {rel: data for rel, data in everything(world).items() if after.get(rel) != data} == {}
    assert everything(world).keys() == after.keys()


@pytest.mark.parametrize("kind", ["missing", "broken"])
def test_without_the_index_what_is_missing_or_broken_has_the_same_pages(world: World, kind: str) -> None:
    """Only cards told of it, and nobody asked them: its page was deleted, the galleries were without it."""
    world.adapter("Styles/a.safetensors", **{"modelspec.title": "A title", "modelspec.trigger_phrase": "sks style"})
    age(world.loras)
    Image.new("RGB", (60, 90), "teal").save(world.loras / "Styles" / "a.preview.png")
    path = world.loras / "Styles" / "a.safetensors"
    with running(world) as daemon:
        settle(world, daemon)
        world.request("Cat.md", "a cat <lora:b:1>", seed=1)
        world.finish(daemon, "Cat.md")
        path.write_bytes(b"garbage" * 100) if kind == "broken" else path.unlink()
        age(world.loras)
        until(world, daemon, "a", kind)
        settle(world, daemon)
    before = everything(world)
    forget_index(world)
    with running(world) as daemon:
        settle(world, daemon)
    after = everything(world)
    assert after.keys() == before.keys()
    assert [rel for rel in after if after[rel] != before[rel]] == []


def test_without_the_index_a_drive_that_is_away_changes_no_card_and_no_page(world: World) -> None:
    more = two_roots(world)
    with running(world) as daemon:
        settle(world, daemon)
    before = everything(world)
    more.rename(more.with_name("off"))
    forget_index(world)
    with running(world) as daemon:
        settle(world, daemon)
        assert "root.more" in daemon.ctx.troubles
    after = everything(world)
    assert after.keys() == before.keys()
    assert [rel for rel in after if after[rel] != before[rel]] == []
    more.with_name("off").rename(more)
    with running(world) as daemon:
        settle(world, daemon)
    assert everything(world) == before


@pytest.mark.parametrize("without_index", [False, True])
def test_a_folder_that_is_taken_from_the_config_is_missing_and_back_when_it_is_back(
    world: World, without_index: bool
) -> None:
    """Its adapters stayed `ok` for ever, also when their files were deleted."""
    before = world.config
    two_roots(world)
    both = world.config
    with running(world) as daemon:
        settle(world, daemon)
        first = everything(world)
    world.config = before
    if without_index:
        forget_index(world)
    with running(world) as daemon:
        settle(world, daemon)
        assert world.properties("LoraVault/LoRAs/u.md")["state"] == "missing"
        assert card(world)["state"] == "ok"
        with daemon.ctx.index.session() as session:
            reasons = {row.reason for row in adapters.adapters(session) if row.root == "more"}
        assert reasons == (set() if without_index else {"its folder is not configured any more"})
    world.config = both
    with running(world) as daemon:
        settle(world, daemon)
    assert everything(world) == first


def two_roots(world: World) -> Path:
    more = world.loras.parent / "more"
    more.mkdir()
    for name in "uvwxyz":
        (more / f"{name}.safetensors").write_bytes(adapter_bytes(160, 4, {"modelspec.title": f"The {name}"}, seed=name))
    age(more)
    world.config = dataclasses.replace(world.config, loras=(*world.config.loras, Root("more", more)))
    return more


def test_a_backup_copy_takes_nothing_over_and_without_the_index_neither(world: World) -> None:
    """The first by name was the one in use: `Backup/…` became the file, its folder the category of the card."""
    with running(world) as daemon:
        settle(world, daemon)
        before = card(world)
        backup = world.loras / "Backup"
        backup.mkdir()
        shutil.copy(world.loras / "Styles" / "a.safetensors", backup / "a.safetensors")
        os.utime(backup / "a.safetensors", (OLD, OLD))  # as old, as short a path, and first by name
        until(world, daemon, "a", "duplicate")
        settle(world, daemon)
        assert card(world) == {**before, "state": "duplicate", "copies": ["loras/Backup/a.safetensors"]}
        assert used(daemon) == [("loras", "Styles/a.safetensors")]
    pages = everything(world)
    forget_index(world)
    with running(world) as daemon:
        settle(world, daemon)
        assert used(daemon) == [("loras", "Styles/a.safetensors")], "rows and card agree"
    assert everything(world) == pages


def used(daemon: Daemon) -> list[tuple[str, str]]:
    """The files that are used of those called `a`."""
    with daemon.ctx.index.session() as session:
        return [(row.root, row.rel) for row in adapters.adapters(session) if row.name == "a" and row.state == "ok"]


@pytest.mark.parametrize("inside", ["Styles", ""])
def test_a_folder_inside_another_one_shows_no_file_twice(world: World, inside: str) -> None:
    """Every file in both was told as a duplicate of itself, on its card and in the counts."""
    world.config = dataclasses.replace(world.config, loras=(*world.config.loras, Root("some", world.loras / inside)))
    with running(world) as daemon:
        settle(world, daemon)
        found = [world.properties(str(path.relative_to(world.vault))) for path in (cards_of(world)).rglob("*.md")]
        assert [(one["state"], one["copies"]) for one in found] == [("ok", [])] * len(NAMES)
        assert {str(one["lora_file"]) for one in found} == {
            f"some/{name}.safetensors" if inside else f"loras/Styles/{name}.safetensors" for name in NAMES
        }
        with daemon.ctx.index.session() as session:
            assert adapters.count_adapters(session) == {"ok": len(NAMES)}
            assert overview.duplicates(session) == []
            assert {len(entry.places) for entry in entries(session)} == {1}


def cards_of(world: World) -> Path:
    return world.vault / "LoraVault" / "LoRAs"
