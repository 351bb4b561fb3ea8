"""Gallery pages where something of somebody else's, or trouble with the disk, stands in their way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loravault.vault.safewrite import NoteChanged
from tests.keeping.galleryscene import FAMILY, FOLDER, INDEX, Scene, page_of


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.ctx.index.close()


@pytest.mark.parametrize("rel", [FAMILY, page_of("ink"), INDEX, "LoraVault/LoRAs.base"])
def test_a_file_the_user_changed_is_left_and_told_until_it_is_deleted(scene: Scene, rel: str) -> None:
    scene.adapter("ink")
    scene.settle()
    mine = scene.text(rel) + "\nmine\n"
    (scene.vault / rel).write_text(mine, "utf-8")
    scene.adapter("glow")
    scene.picture(1, "ink")
    scene.changed()
    assert scene.text(rel) == mine
    assert list(scene.keeper.notices) == [rel]
    (scene.vault / rel).unlink()
    assert rel in scene.changed()
    assert scene.keeper.notices == {}
    assert "mine" not in scene.text(rel)


def test_a_note_of_the_users_at_the_name_of_a_page_is_left(scene: Scene) -> None:
    note = scene.vault / page_of("ink")
    note.parent.mkdir(parents=True)
    note.write_text("my own pictures of ink")
    scene.adapter("ink")
    scene.adapter("paper")
    assert page_of("ink") not in scene.settle()
    assert note.read_text() == "my own pictures of ink"
    assert page_of("ink") in scene.keeper.notices
    assert (scene.vault / page_of("paper")).exists()


def test_trouble_with_the_disk_is_told_and_tried_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.adapter("ink")

    def full(_items: object, _refused: object = None) -> list[str]:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(scene.ctx.writer, "create_many", full)
        scene.settle()
    assert "No space left on device" in scene.ctx.troubles["galleries"]
    assert scene.settle() == set(), "not at once"
    scene.time += 60
    assert page_of("ink") in scene.settle()
    assert "galleries" not in scene.ctx.troubles


def test_what_is_in_the_way_of_one_page_costs_that_page(scene: Scene) -> None:
    """A folder of its name, a link that leads nowhere: told, not tried again and again."""
    (scene.vault / page_of("ink")).mkdir(parents=True)
    (scene.vault / page_of("paper")).symlink_to("nowhere.md")
    for name in ("ink", "paper", "glow"):
        scene.adapter(name)
    assert page_of("glow") in scene.settle()
    scene.settle()
    assert set(scene.keeper.notices) == {page_of("ink"), page_of("paper")}
    assert scene.settle() == set()
    assert "galleries" not in scene.ctx.troubles


@pytest.mark.parametrize("link", [False, True])
def test_a_folder_that_cannot_be_made_costs_its_own_pages(scene: Scene, tmp_path: Path, link: bool) -> None:
    """One file in the way threw the whole round away, every minute anew."""
    (scene.vault / "LoraVault/Gallery").mkdir(parents=True)
    in_the_way = scene.vault / "LoraVault/Gallery/Families"
    if link:
        in_the_way.symlink_to(tmp_path)
    else:
        in_the_way.write_text("mine")
    scene.adapter("ink")
    written = scene.settle()
    assert {page_of("ink"), FOLDER, INDEX} <= written
    assert list(scene.keeper.notices) == [FAMILY]
    assert "LoraVault/Gallery/Families" in scene.keeper.notices[FAMILY]
    assert "galleries" not in scene.ctx.troubles
    assert scene.settle() == set()
    scene.forget("ink")
    scene.changed()
    assert "galleries" not in scene.ctx.troubles
    in_the_way.unlink()
    scene.adapter("ink")
    assert FAMILY in scene.changed()
    assert not scene.keeper.notices


def test_a_page_that_appears_while_it_is_written_is_looked_at_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program's file of that name is found to be none of ours, and left."""
    scene.adapter("ink")
    create_many = scene.ctx.writer.create_many

    def crossed(items: Any, refused: Any) -> list[str]:
        (scene.vault / page_of("ink")).parent.mkdir(parents=True, exist_ok=True)
        (scene.vault / page_of("ink")).write_text("somebody's")
        return create_many(items, refused)

    with monkeypatch.context() as patch:
        patch.setattr(scene.ctx.writer, "create_many", crossed)
        scene.settle()
    scene.settle()
    assert (scene.vault / page_of("ink")).read_text() == "somebody's"
    assert page_of("ink") in scene.keeper.notices


def test_a_page_that_changes_while_it_is_written_is_looked_at_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync tool that brings an older page of ours at that moment is followed by the page as it should be."""
    scene.adapter("ink")
    scene.settle()
    old = (scene.vault / FAMILY).read_bytes()
    scene.adapter("glow")

    def crossed(rel: str, _new: bytes, _old: bytes | None) -> None:
        raise NoteChanged(f"{rel} was changed")

    with monkeypatch.context() as patch:
        patch.setattr(scene.ctx.writer, "write_own", crossed)
        scene.changed("glow")
    assert (scene.vault / FAMILY).read_bytes() == old
    assert FAMILY in scene.settle()
    assert "glow" in scene.text(FAMILY)


def test_a_bug_in_one_gallery_costs_that_gallery(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.adapter("ink")
    monkeypatch.setattr("loravault.pages.galleries.month_path", lambda *_: 1 / 0)
    scene.picture(1, "ink")
    assert page_of("ink") in scene.settle()
    assert "ZeroDivisionError" in scene.ctx.troubles["bug.galleries"]
