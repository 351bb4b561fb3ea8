"""Pictures where Obsidian would put them: placed by the vault's setting, linked by full path, found again."""

from __future__ import annotations

import errno
import json
import os

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


@pytest.mark.parametrize("setting", ["Assets", "Assets/deep", "./Assets", "x" * 300])
def test_a_folder_that_takes_no_picture_is_told_and_holds_up_nobody(world: World, setting: str) -> None:
    """A file called `Assets` stood where the setting wanted a folder: the queue of the whole vault waited for it.

    Every minute the same job was tried again, and no other note got its picture in the meantime.
    """
    world = obsidian(world, setting)
    world.note("Assets", "no folder")
    world.request("Cat.md", "a red cat", seed=42)
    world.request("Deep/Dog.md", "a blue dog", seed=43)
    daemon = world.daemon()
    try:
        world.finish(daemon, "Cat.md", "Deep/Dog.md")
        beside = setting.startswith("./")  # then it is in the way of the note beside it only
        told = daemon.ctx.troubles.get("attachments", "")
        assert beside or ("our own folder instead" in told and setting in told)
        assert "publish" not in daemon.ctx.troubles
    finally:
        daemon.close()
    assert world.read("Assets") == "no folder"
    assert world.status("Cat.md") == world.status("Deep/Dog.md") == "done"
    ours = [path for path in made(world) if path.startswith("LoraVault/Images/")]
    assert len(ours) == (1 if beside else 2)


def test_a_folder_of_somebody_elses_takes_no_picture_and_a_full_disk_is_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without permission nothing is gained by waiting; room that is missing is missing in our own folder too."""
    world = obsidian(world, "Assets")
    world.request("Cat.md", "a red cat", seed=42)
    daemon = world.daemon()
    publish, number = daemon.ctx.writer.publish, errno.EACCES

    def refusing(rel: str, data: bytes) -> None:
        if number == errno.ENOSPC or rel.startswith("Assets/"):
            raise OSError(number, os.strerror(number))
        publish(rel, data)

    monkeypatch.setattr(daemon.ctx.writer, "publish", refusing)
    try:
        world.finish(daemon, "Cat.md")
        assert "Permission denied" in daemon.ctx.troubles["attachments"]
        number = errno.ENOSPC
        world.request("Dog.md", "a blue dog", seed=42)
        world.work(daemon, lambda: "publish" in daemon.ctx.troubles)
    finally:
        daemon.close()
    assert len(made(world)) == 1
    assert made(world)[0].startswith("LoraVault/Images/")


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
