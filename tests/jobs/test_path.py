"""The whole path with a fake engine: a ticked note gets its answer, whatever the note says."""

from __future__ import annotations

from pathlib import Path

import pytest

from loravault.vault.answers import strip_ours
from tests.world import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    return World(tmp_path)


def test_a_ticked_note_gets_its_picture(world: World) -> None:
    note = world.request("Pictures/Cat.md", "a red cat", seed=42)
    before = note.read_bytes()
    daemon = world.daemon()
    try:
        world.finish(daemon, "Pictures/Cat.md")
    finally:
        daemon.close()

    properties = world.properties("Pictures/Cat.md")
    assert properties["lv_status"] == "done"
    assert properties["run"] is False
    assert properties["lv_job"].endswith("@atelier")
    assert "1 image" in properties["lv_message"]
    text = world.read("Pictures/Cat.md")
    assert "> [!lora-result]+ 1 image · seed 42 · " in text
    picture = properties["lv_cover"].strip("[]")
    assert (world.vault / picture).is_file()
    assert f"![[{picture}|256]]" in text
    assert strip_ours(note.read_bytes()) == strip_ours(before)
