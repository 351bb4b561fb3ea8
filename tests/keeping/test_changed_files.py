"""What happens to a card when its file breaks, is replaced, goes, is copied, or its folder is taken from the config."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loravault.daemon import Daemon
from tests.keeping.test_library import everything, running, settle
from tests.world import World

OLD = time.time() - 100_000
NAMES = "abcdef"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    made = World(tmp_path, cards=True, galleries=True, rescan_s=0.2)
    for name in NAMES:
        made.adapter(f"Styles/{name}.safetensors")
    age(made.loras)
    yield made


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
