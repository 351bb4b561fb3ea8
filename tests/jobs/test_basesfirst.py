"""A base that is still being copied is waited for.

The stories: the folder of a base was copied in while a note asked for it, and the note was refused for good (the
folder lacked a part) or half a base was given to the worker. A base that had just come was not found where a note left
it to the LoRA which base to take: nobody watches these folders.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from loravault.control import Control
from loravault.daemon import Daemon
from loravault.errors import UserError
from loravault.jobs import basesfirst
from loravault.library.basefiles import last_changes
from tests.world import FAKE_ENGINE, World, quiet


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world with one base, `demo-like`, that looks at its files once an hour."""
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    world = World(tmp_path, rescan_s=3600.0, read_quiet_s=0.3)
    shutil.rmtree(world.bases / "realistic")
    age(world.bases)
    return world


def age(place: Path) -> None:
    """It has lain there for an hour."""
    for path in [*place.rglob("*"), place]:
        os.utime(path, (time.time() - 3600,) * 2)


def copying(world: World) -> Callable[[], None]:
    """The folder `realistic` begins to be copied; each call copies some more."""
    folder = world.bases / "realistic"
    folder.mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')

    def more() -> None:
        with (folder / "weights.part").open("ab") as file:
            file.write(b"0" * 100)

    return more


def tick_for(daemon: Daemon, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> None:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        meanwhile()
        daemon.tick()
        time.sleep(0.01)


def test_a_base_that_is_being_copied_is_waited_for(world: World) -> None:
    more = copying(world)
    world.request("Note.md", "a cat", base="realistic")
    daemon = world.daemon()
    tick_for(daemon, 3.0, more)
    assert world.status("Note.md") is None, world.read("Note.md")
    assert "realistic in the folders with bases is still being copied" in daemon.ctx.troubles["bases"]
    world.base("realistic", 768)
    world.finish(daemon, "Note.md")
    daemon.close()
    assert world.status("Note.md") == "done", world.read("Note.md")
    assert "bases" not in daemon.ctx.troubles


def test_half_a_base_is_not_given_to_the_worker(world: World) -> None:
    more = copying(world)
    world.base("realistic", 768)
    world.request("Note.md", "a cat", base="realistic")
    daemon = world.daemon()
    tick_for(daemon, 2.0, more)
    assert world.status("Note.md") is None, world.read("Note.md")
    world.finish(daemon, "Note.md")
    daemon.close()
    assert world.status("Note.md") == "done"


def test_another_base_is_not_kept_back(world: World) -> None:
    more = copying(world)
    world.request("Note.md", "a cat", base="demo-like")
    daemon = world.daemon()
    give_up = time.monotonic() + 20
    while not world.is_answered("Note.md"):
        assert time.monotonic() < give_up, world.story()
        tick_for(daemon, 0.1, more)
    daemon.close()
    assert world.status("Note.md") == "done"


def test_what_is_nowhere_is_refused(world: World) -> None:
    world.request("Note.md", "a cat", base="nowhere")
    daemon = world.daemon()
    world.finish(daemon, "Note.md")
    daemon.close()
    assert 'There is no base "nowhere"' in world.properties("Note.md")["lv_message"]


def test_a_copy_that_never_ends_is_not_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(basesfirst, "COPYING_S", 1.0)
    more = copying(world)
    world.request("Note.md", "a cat", base="realistic")
    daemon = world.daemon()
    give_up = time.monotonic() + 20
    while not world.is_answered("Note.md"):
        assert time.monotonic() < give_up, world.story()
        tick_for(daemon, 0.1, more)
    daemon.close()
    assert world.status("Note.md") == "failed"


def test_a_note_that_was_unticked_meanwhile_is_forgotten(world: World) -> None:
    more = copying(world)
    path = world.request("Note.md", "a cat", base="realistic")
    daemon = world.daemon()
    tick_for(daemon, 1.0, more)
    assert "bases" in daemon.ctx.troubles
    path.write_text(path.read_text().replace("run: true", "run: false"))
    tick_for(daemon, 2.5, more)
    assert "bases" not in daemon.ctx.troubles
    daemon.close()
    assert world.status("Note.md") is None


def test_a_base_that_came_is_found_although_no_note_names_it(world: World) -> None:
    world.adapter("photo.safetensors", width=768)
    world.request("First.md", "a cat")
    daemon = world.daemon()
    world.finish(daemon, "First.md")
    world.base("realistic", 768)
    world.request("Note.md", "a cat <lora:photo:1>")
    daemon.feed.hint("Note.md")
    world.finish(daemon, "Note.md")
    daemon.close()
    assert world.status("Note.md") == "done", world.read("Note.md")


def test_a_command_says_that_the_base_is_still_being_copied(world: World) -> None:
    copying(world)()
    os.utime(world.bases / "realistic" / "weights.part", (time.time() + 5,) * 2)
    world.config = world.config.__class__(**{**vars(world.config), "read_quiet_s": 10.0})
    world.request("Note.md", "a cat", base="realistic", run=False)
    with pytest.raises(UserError, match=r"Note\.md cannot run yet: realistic .* still being copied\. Give the command"):
        Control(world.config, FAKE_ENGINE).run_note("Note.md", quiet)
    assert world.status("Note.md") is None


def test_changes_are_named_after_what_is_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "xl" / "unet").mkdir(parents=True)
    (tmp_path / "xl" / "unet" / "weights.safetensors").write_bytes(b"1")
    os.utime(tmp_path / "xl" / "unet" / "weights.safetensors", (50, 50))
    assert ("xl", 50.0) in list(last_changes(str(tmp_path)))
    assert list(last_changes(str(tmp_path / "nowhere"))) == []
