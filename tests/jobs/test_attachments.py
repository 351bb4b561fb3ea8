"""Pictures where Obsidian would put them: placed by the vault's setting, linked by full path, found again."""

from __future__ import annotations

import json

import pytest

from loravault.index import images
from loravault.vault.note import parse_note
from tests.world import World


def obsidian(world: World, setting: str | None) -> World:
    """The same world with pictures as attachments, and this `attachmentFolderPath`."""
    settings = {} if setting is None else {"attachmentFolderPath": setting}
    (world.vault / ".obsidian" / "app.json").write_text(json.dumps(settings))
    return World(world.home, images="obsidian")


def made(world: World) -> list[str]:
    """Vault-relative paths of all pictures on the disk."""
    return sorted(path.relative_to(world.vault).as_posix() for path in world.vault.rglob("lv-*.webp"))


@pytest.mark.parametrize(
    ("setting", "folder"),
    [
        (None, ""),
        ("/", ""),
        ("Attachments", "Attachments/"),
        ("./", "Notes/Deep/"),
        ("./pictures", "Notes/Deep/pictures/"),
    ],
)
def test_pictures_go_where_obsidian_puts_attachments(world: World, setting: str | None, folder: str) -> None:
    world = obsidian(world, setting)
    world.request("Notes/Deep/Cat.md", "a red cat", seed=42)
    daemon = world.daemon()
    try:
        world.finish(daemon, "Notes/Deep/Cat.md")
    finally:
        daemon.close()
    (picture,) = made(world)
    assert picture.rpartition("/")[0] == folder.rstrip("/")
    assert f"![[{picture}|" in world.read("Notes/Deep/Cat.md")
    assert world.properties("Notes/Deep/Cat.md")["lv_status"] == "done"


@pytest.mark.parametrize("setting", ["../out", ".hidden", "./.hidden"])
def test_a_folder_that_is_no_place_for_pictures_is_told_and_ours_is_used(world: World, setting: str) -> None:
    world = obsidian(world, setting)
    world.request("Cat.md", "a red cat", seed=42)
    daemon = world.daemon()
    try:
        world.finish(daemon, "Cat.md")
        assert "our own folder instead" in daemon.ctx.troubles["attachments"]
    finally:
        daemon.close()
    (picture,) = made(world)
    assert picture.startswith("LoraVault/Images/")
    assert not list(world.home.glob("out*"))


def test_pictures_are_found_again_wherever_they_are_and_moved_ones_too(world: World) -> None:
    world = obsidian(world, "./pictures")
    world.request("Notes/Cat.md", "a red cat", "a blue dog", seed=42)
    daemon = world.daemon()
    try:
        world.finish(daemon, "Notes/Cat.md")
    finally:
        daemon.close()
    before = made(world)
    assert len(before) == 2
    (world.vault / "Elsewhere").mkdir()
    (world.vault / before[0]).rename(world.vault / "Elsewhere" / before[0].rpartition("/")[2])
    (world.vault / ".trash").mkdir()
    (world.vault / ".trash" / "lv-gone.webp").write_bytes((world.vault / before[1]).read_bytes())
    for path in (world.home / "state").rglob("index.sqlite*"):
        path.unlink()

    daemon = world.daemon()
    try:
        daemon.refresh()
        with daemon.ctx.index.session() as session:
            known = {path for path, (_, _, ours) in images.known_images(session).items() if ours}
    finally:
        daemon.close()
    assert known == {path for path in made(world) if not path.startswith(".trash")}
    assert len(known) == 2


def test_our_own_folder_is_the_default(world: World) -> None:
    (world.vault / ".obsidian" / "app.json").write_text('{"attachmentFolderPath": "Attachments"}')
    world.request("Cat.md", "a red cat", seed=42)
    daemon = world.daemon()
    try:
        world.finish(daemon, "Cat.md")
    finally:
        daemon.close()
    assert made(world)[0].startswith("LoraVault/Images/")
    regions = parse_note((world.vault / "Cat.md").read_bytes()).regions
    assert [region.intact for region in regions] == [True]
