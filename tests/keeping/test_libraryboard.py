"""The library on the dashboard: what is wrong in it, what is being done, and no write that says nothing new."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from loravault.daemon import Daemon
from loravault.jobs import board
from loravault.jobs.libraryboard import Keeping
from tests.world import World

PAGE = "LoraVault/LoraVault.md"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(board, "LEAST_S", 0.0)
    made = World(tmp_path, cards=True, galleries=True)
    made.adapter("ink.safetensors")
    (made.loras / "ink.preview.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture after all")
    made.adapter("twin/ink.safetensors").write_bytes((made.loras / "ink.safetensors").read_bytes())
    for number in range(14):
        (made.loras / f"page {number:02}.safetensors").write_bytes(b"<!DOCTYPE html><html>Log in</html>" * 9)
    (made.loras / "cut.safetensors").write_bytes((made.loras / "ink.safetensors").read_bytes()[:-9])
    (made.loras / "old.pt").write_bytes(b"\x80\x02}q\x00.")
    (tmp_path / "nas").mkdir()
    (made.loras / "linked").symlink_to(tmp_path / "nas")
    return made


@pytest.fixture
def daemon(world: World) -> Iterator[Daemon]:
    opened = world.daemon()
    opened.tick()
    yield opened
    opened.close()


def test_what_is_wrong_in_the_library_is_listed_with_reasons_and_lists_are_cut(world: World, daemon: Daemon) -> None:
    world.work(daemon, lambda: "Pictures that cannot be shown" in world.read(PAGE), timeout=30)
    world.work(daemon, lambda: "1 copy · 14 broken · 1 incomplete" in world.read(PAGE), timeout=30)
    world.work(daemon, lambda: "[[LoraVault/LoRAs/ink|ink]]: ink.preview.png: it" in world.read(PAGE), timeout=30)
    text = world.read(PAGE)
    assert "[[LoraVault/LoRAs.base|LoRAs]] · [[LoraVault/Requests.base|Requests]] · " in text
    assert "[[LoraVault/Gallery/LoRA gallery|LoRA gallery]]" in text
    assert "- loras/cut.safetensors: 9 of " in text
    assert "- loras/page 10.safetensors: it is a web page" in text
    assert "page 11" not in text
    assert "- and 3 more\n" in text
    assert "Left alone, because opening them can run code: loras/old.pt." in text
    assert f"Links that lead out of your LoRA folders are not followed: loras/linked (to {world.home / 'nas'})." in text


def test_a_card_and_a_base_that_need_the_user_are_among_the_notes_that_do(world: World, daemon: Daemon) -> None:
    world.note("Mine.md", "---\nloravault: card\nlora_file: nothing of the kind\n---\n")
    world.work(daemon, (world.vault / "LoraVault" / "LoRAs.base").exists, timeout=30)
    (world.vault / "LoraVault" / "LoRAs.base").write_text("views: []\n")
    daemon.keepers.everything_changed()
    world.work(daemon, lambda: "- [[LoraVault/LoRAs.base|LoRAs]]: " in world.read(PAGE), timeout=30)
    told = "- [[Mine|Mine]]: 'lora_file' \"nothing of the kind\" names no LoRA"
    world.work(daemon, lambda: told in world.read(PAGE), timeout=30)
    assert "## Notes that need you" in world.read(PAGE)


def test_progress_is_written_when_it_changes_and_only_then(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    said = Keeping()
    opened = world.daemon()
    try:
        world.work(opened, (world.vault / PAGE).exists)
        for _ in range(200):
            opened.tick()
        monkeypatch.setattr(opened.board, "_keeping", lambda: said)
        opened.board.write()
        written = (world.vault / PAGE).stat().st_mtime_ns
        opened.board.write()
        assert (world.vault / PAGE).stat().st_mtime_ns == written
        said = Keeping(hashing=(1, 2, 40), covers=3)
        opened.board.write()
        assert "Hashing: 1 of 2 files, 40 % · 3 covers to make" in world.read(PAGE)
    finally:
        opened.close()
    assert "Hashing" not in world.read(PAGE), "nothing is being done any more"


def test_a_dashboard_that_somebody_typed_into_is_stood_in_for_until_it_is_ours_again(world: World) -> None:
    """One stray key made it the user's for ever: it went on saying "Running", and no trouble was told any more."""
    page, second = world.vault / PAGE, world.vault / "LoraVault" / "LoraVault status.md"
    opened = world.daemon()
    try:
        world.work(opened, page.exists)
        assert not second.exists()
        edited = page.read_bytes() + b"x"
        page.write_bytes(edited)
        world.work(opened, second.exists)
        assert "[[LoraVault/LoraVault|LoraVault]] was edited" in second.read_text()
        opened.ctx.troubles["test"] = "The drive is full."
        world.work(opened, lambda: "The drive is full." in second.read_text())
        assert page.read_bytes() == edited
        page.unlink()
        world.work(opened, lambda: page.exists() and not second.exists())
        assert "The drive is full." in page.read_text()
        page.write_bytes(edited)
        world.work(opened, second.exists)
        mine = second.read_bytes() + b"mine"
        second.write_bytes(mine)
        page.write_bytes(edited[:-1])
        world.work(opened, lambda: "The drive is full." in page.read_text())
        assert second.read_bytes() == mine
    finally:
        opened.close()
