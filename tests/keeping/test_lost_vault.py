"""A drive that is not there, a sync that is not done, a plugin that writes all the time: no card is lost or missing."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import pytest

from loravault.errors import UserError
from tests.keeping.test_library import everything, running, settle
from tests.world import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    made = World(tmp_path, cards=True, galleries=True, rescan_s=0.2)
    old = time.time() - 1000
    for name in "abcdef":
        path = made.adapter(f"Styles/{name}.safetensors")
        os.utime(path, (old, old))
    return made


def cards(world: World) -> list[str]:
    return sorted(path.stem for path in (world.vault / "LoraVault/LoRAs").rglob("*.md"))


def deleted(world: World) -> bool:
    return any('"card-deleted"' in path.read_text() for path in (world.home / "state").rglob("ledger.jsonl"))


def test_a_mount_point_without_its_drive_stays_empty(world: World) -> None:
    """Every card was recorded as deleted, and pages were written into the empty folder, without a word."""
    with running(world) as daemon:
        settle(world, daemon, 0.5)
    before = everything(world)
    world.vault.rename(world.home / "away")
    world.vault.mkdir()
    with pytest.raises(UserError, match="plug its drive in"):
        world.daemon()
    assert list(world.vault.iterdir()) == []
    world.vault.rmdir()
    (world.home / "away").rename(world.vault)
    with running(world) as daemon:
        settle(world, daemon, 0.5)
    assert everything(world) == before
    assert not deleted(world)


def test_while_most_cards_are_gone_nothing_is_written_or_buried_and_it_is_told(world: World) -> None:
    """A vault whose settings came by sync before its notes."""
    with running(world) as daemon:
        settle(world, daemon, 0.5)
    before = everything(world)
    (world.vault / "LoraVault").rename(world.home / "away")
    with running(world) as daemon:
        give_up = time.monotonic() + 1.0
        while time.monotonic() < give_up:
            daemon.tick()
            time.sleep(0.01)
        assert "6 of 6 cards" in daemon.ctx.troubles["vault"]
        assert list((world.vault / "LoraVault").rglob("*")) == []
        (world.vault / "LoraVault").rmdir()
        (world.home / "away").rename(world.vault / "LoraVault")
        world.work(daemon, lambda: "vault" not in daemon.ctx.troubles)
        settle(world, daemon, 0.5)
    assert everything(world) == before
    assert not deleted(world)


def test_reindex_says_that_cards_were_deleted_on_purpose(world: World) -> None:
    with running(world) as daemon:
        settle(world, daemon, 0.5)
    for path in (world.vault / "LoraVault/LoRAs").rglob("[a-e].md"):
        path.unlink()
    with running(world) as daemon:
        world.work(daemon, lambda: "vault" in daemon.ctx.troubles)
        daemon.orders.obey("reindex", {})
        assert "vault" not in daemon.ctx.troubles
        world.work(daemon, lambda: deleted(world))
        settle(world, daemon, 0.5)
    with running(world) as daemon:
        settle(world, daemon, 0.5)
        assert "vault" not in daemon.ctx.troubles
    assert cards(world) == ["f"]


def test_a_note_that_never_comes_to_rest_keeps_no_card_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loravault.jobs.feed.RESTLESS_S", 0.5)
    world.config = dataclasses.replace(world.config, read_quiet_s=1.5)
    with running(world) as daemon:
        give_up, beat = time.monotonic() + 20, 0
        while not (world.vault / "LoraVault/LoRAs").is_dir() or len(cards(world)) < 6:
            assert time.monotonic() < give_up, daemon.ctx.troubles
            beat += 1
            world.note("Log.md", "line\n" * beat)
            daemon.tick()
            time.sleep(0.02)


def test_auto_runs_nothing_old_in_a_note_that_rests_only_after_the_first_look(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was there before us like all others: the first look at an unknown vault starts nothing."""
    monkeypatch.setattr("loravault.jobs.feed.RESTLESS_S", 0.3)
    world.config = dataclasses.replace(world.config, read_quiet_s=0.6, cards=False, galleries=False)
    with running(world) as daemon:
        give_up, beat = time.monotonic() + 20, 0
        while not daemon.feed.first_look_is_over or beat < 3:
            assert time.monotonic() < give_up
            beat += 1
            path = world.request("Auto.md", "a red cat" + "!" * (beat % 7), run=False, auto=True)
            daemon.tick()
            time.sleep(0.02)
        world.work(daemon, lambda: not daemon.feed.restless)
        give_up = time.monotonic() + 0.5
        while time.monotonic() < give_up:
            daemon.tick()
        assert world.status("Auto.md") is None
        path.write_text(path.read_text() + "\n```prompt\na blue dog\n```\n")
        world.work(daemon, lambda: world.results("Auto.md") == 1)
