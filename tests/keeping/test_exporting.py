"""Edits of a card reach the files of other programs, only those, only once, and nothing else is ever written there."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from loravault.daemon import Daemon
from loravault.index import adapters, covers
from loravault.index.tables import CoverRow
from loravault.keeping import exporting
from loravault.library.export import UserEdits
from loravault.library.exportmark import is_exported
from tests.keeping.world import picture
from tests.world import World

CARD = "LoraVault/LoRAs/doll.md"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    made = World(tmp_path, cards=True, export="a1111")
    made.adapter("doll.safetensors", **{"modelspec.trigger_phrase": "sks doll"})
    made.adapter("other.safetensors")
    (made.loras / "doll.json").write_text(json.dumps({"preferred weight": 0.7, "vae": "mine"}))
    return made


@contextmanager
def running(world: World) -> Iterator[Daemon]:
    daemon = world.daemon()
    try:
        settle(world, daemon)
        yield daemon
    finally:
        daemon.close()


def settle(world: World, daemon: Daemon, quiet_s: float = 0.8) -> None:
    """Tick until neither the vault nor the adapters' folder has changed for a while."""
    give_up, since, before = time.monotonic() + 40, time.monotonic(), {}
    while time.monotonic() - since < quiet_s:
        assert time.monotonic() < give_up, world.story()
        daemon.tick()
        now = {path: path.stat().st_mtime_ns for path in world.home.rglob("*") if path.suffix in (".md", ".json")}
        now = {path: when for path, when in now.items() if path.name != "LoraVault.md"}
        if now != before or daemon.keepers.waiting:
            since, before = time.monotonic(), now
        time.sleep(0.01)


def edit(world: World, old: str, new: str) -> None:
    text = world.read(CARD)
    assert old in text
    (world.vault / CARD).write_text(text.replace(old, new))


def beside(world: World) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in world.loras.iterdir()}


def test_what_the_user_changes_on_a_card_is_written_and_nothing_else(world: World) -> None:
    with running(world) as daemon:
        before = beside(world)
        assert set(before) == {"doll.safetensors", "other.safetensors", "doll.json"}, "what we filled in is no edit"
        edit(world, "weight: 0.7", "weight: 0.55")
        world.work(daemon, lambda: beside(world)["doll.json"] != before["doll.json"])
        settle(world, daemon)
        told = json.loads((world.loras / "doll.json").read_text())
        assert told == {"preferred weight": 0.55, "vae": "mine"}, "neither other keys nor fields nobody changed"
        after = beside(world)
        assert {name for name in after if after[name] != before.get(name)} == {"doll.json"}
        settle(world, daemon)
        assert beside(world) == after, "reading it again writes nothing"
        edit(world, "- sks doll", "- sks doll\n  - lace")
        world.work(daemon, lambda: "lace" in (world.loras / "doll.json").read_text())
    with running(world):
        assert json.loads((world.loras / "doll.json").read_text())["activation text"] == "sks doll, lace"
        after = beside(world)
    assert set(after) == set(before)


def test_an_edit_made_while_nobody_watched_is_written_too(world: World) -> None:
    with running(world):
        pass
    edit(world, "weight: 0.7", "weight:")
    with running(world) as daemon:
        world.work(daemon, lambda: json.loads((world.loras / "doll.json").read_text())["preferred weight"] == 0)


def test_switched_off_nothing_is_written(world: World) -> None:
    world.config = replace(world.config, export="none")
    with running(world) as daemon:
        before = beside(world)
        edit(world, "weight: 0.7", "weight: 0.55")
        settle(world, daemon)
        assert beside(world) == before


def test_a_broken_file_of_another_tool_is_left_alone_and_told(world: World) -> None:
    with running(world) as daemon:
        (world.loras / "doll.json").write_text('{"half": ')
        settle(world, daemon)
        edit(world, "weight: 0.7", "weight: 0.55")
        world.work(daemon, lambda: "export" in daemon.ctx.troubles)
        assert "doll.json was left alone" in daemon.ctx.troubles["export"]
        assert (world.loras / "doll.json").read_text() == '{"half": '


def test_what_cannot_be_written_now_is_told_and_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "PAUSE_S", 0.2)
    real, full = exporting.export_edits, True

    def export_edits(adapter: Path, edits: UserEdits) -> bool:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(adapter, edits)

    monkeypatch.setattr(exporting, "export_edits", export_edits)
    with running(world) as daemon:
        edit(world, "weight: 0.7", "weight: 0.55")
        world.work(daemon, lambda: "No space left" in daemon.ctx.troubles.get("export", ""))
        full = False
        world.work(daemon, lambda: "0.55" in (world.loras / "doll.json").read_text())
        assert "export" not in daemon.ctx.troubles


def test_an_edit_that_waits_for_its_file_survives_a_restart(world: World) -> None:
    with running(world) as daemon:
        away = world.home / "away"
        world.loras.rename(away)
        edit(world, "weight: 0.7", "weight: 0.55")
        world.work(daemon, lambda: "export" in daemon.ctx.troubles)
    away.rename(world.loras)
    with running(world) as daemon:
        world.work(daemon, lambda: "0.55" in (world.loras / "doll.json").read_text())


def test_a_cover_becomes_the_preview_of_an_adapter_without_a_picture(world: World) -> None:
    with running(world) as daemon:
        (world.vault / "LoraVault" / "Images").mkdir(parents=True, exist_ok=True)
        cover = "LoraVault/Images/made.png"
        (world.vault / cover).write_bytes(picture("teal"))
        with daemon.ctx.index.session() as session:
            row = next(row for row in adapters.adapters(session) if row.name == "doll")
            covers.store(session, [CoverRow(weight_id=str(row.weight_id), path=cover)])
        daemon.keepers.exports.covers_changed({str(row.weight_id)})
        target = world.loras / "doll.preview.png"
        world.work(daemon, target.exists, timeout=20)
        data = target.read_bytes()
        assert is_exported(data[:64])
        settle(world, daemon)
        with daemon.ctx.index.session() as session:
            row = next(row for row in adapters.adapters(session) if row.name == "doll")
            assert row.preview is None, "ours is not taken for a picture of its own"
            found = covers.covers(session, [str(row.weight_id)])[str(row.weight_id)]
            assert found.path == cover, "so no cover is made from it"
        before = beside(world)
        daemon.keepers.exports.covers_changed(None)
        settle(world, daemon)
        assert beside(world) == before
        (world.loras / "doll.png").write_bytes(picture("red"))
        (world.vault / cover).write_bytes(picture("blue"))
        settle(world, daemon, quiet_s=1.5)
        assert target.read_bytes() == data, "it has a picture of its own now"
