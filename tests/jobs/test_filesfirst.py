"""A base, or pictures, that are still being copied are waited for.

The stories: the folder of a base was copied in while a note asked for it, and the note was refused for good (the
folder lacked a part) or half a base was given to the worker. A base that had just come was not found where a note left
it to the LoRA which base to take: nobody watches these folders.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from loravault.control import Control
from loravault.daemon import Daemon
from loravault.errors import UserError
from loravault.jobs import filesfirst
from loravault.library.basefiles import last_changes
from tests.jobs.training_notes import NOTE, ask
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
    """Tick; `meanwhile` happens again and again beside it, however long a tick takes."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(0.02):
            meanwhile()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            daemon.tick()
            time.sleep(0.01)
    finally:
        over.set()
        thread.join()


def test_a_base_that_is_being_copied_is_waited_for(world: World) -> None:
    more = copying(world)
    world.request("Note.md", "a cat", base="realistic")
    daemon = world.daemon()
    tick_for(daemon, 3.0, more)
    assert world.status("Note.md") is None, world.read("Note.md")
    assert "realistic is still being copied. Note.md waits" in daemon.ctx.troubles["coming"]
    world.base("realistic", 768)
    world.finish(daemon, "Note.md")
    daemon.close()
    assert world.status("Note.md") == "done", world.read("Note.md")
    assert "coming" not in daemon.ctx.troubles


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
    monkeypatch.setattr(filesfirst, "COPYING_S", 1.0)
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
    assert "coming" in daemon.ctx.troubles
    path.write_text(path.read_text().replace("run: true", "run: false"))
    tick_for(daemon, 2.5, more)
    assert "coming" not in daemon.ctx.troubles
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
    more = copying(world)
    stop = threading.Event()

    def copy() -> None:
        while not stop.wait(0.05):
            more()

    copier = threading.Thread(target=copy, daemon=True)
    copier.start()
    world.request("Note.md", "a cat", base="realistic", run=False)
    with pytest.raises(UserError, match=r"Note\.md cannot run yet: realistic is still being copied\. Give the command"):
        Control(world.config, FAKE_ENGINE).run_note("Note.md", quiet)
    stop.set()
    copier.join()
    assert world.status("Note.md") is None


def test_a_command_waits_for_pictures_that_were_only_just_saved(world: World) -> None:
    ask(world, run="false")
    world.note(NOTE, world.read(NOTE).replace("run: true\n", "", 1))
    assert Control(world.config, FAKE_ENGINE).run_note(NOTE, quiet).status == "done"


def test_changes_are_named_after_what_is_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "xl" / "unet").mkdir(parents=True)
    (tmp_path / "xl" / "unet" / "weights.safetensors").write_bytes(b"1")
    os.utime(tmp_path / "xl" / "unet" / "weights.safetensors", (50, 50))
    assert ("xl", 50.0) in list(last_changes(str(tmp_path)))
    assert list(last_changes(str(tmp_path / "nowhere"))) == []


def test_a_training_note_that_came_before_its_pictures_waits_for_them(world: World) -> None:
    """A phone's note is small and is synced first; it was refused because a picture was not in the vault."""
    ask(world)
    photo = (world.vault / "Cats" / "cat2.png").read_bytes()
    (world.vault / "Cats" / "cat2.png").unlink()
    daemon = world.daemon()
    tick_for(daemon, 2.0)
    assert world.status(NOTE) is None, world.read(NOTE)
    assert "cat2.png is not in the vault yet" in daemon.ctx.troubles["coming"]
    (world.vault / "Cats" / "cat2.png").write_bytes(photo)
    world.finish(daemon, NOTE)
    daemon.close()
    assert world.status(NOTE) == "done", world.read(NOTE)


def test_a_picture_that_never_comes_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesfirst, "AWAITED_S", 1.0)
    ask(world)
    (world.vault / "Cats" / "cat2.png").unlink()
    daemon = world.daemon()
    world.finish(daemon, NOTE)
    daemon.close()
    assert "A picture is not in the vault: cat2.png" in world.properties(NOTE)["lv_message"]


def test_a_folder_that_is_being_filled_is_not_learned_from_yet(world: World) -> None:
    """A note was ticked while two hundred photos were copied: it learned from those that were there."""
    ask(world)
    photo = (world.vault / "Cats" / "cat1.png").read_bytes()
    folder = world.vault / "Photos"
    folder.mkdir()
    world.note("Many.md", "---\nloravault: train\nrun: true\nname: many\ntrigger: sks cat\ndataset: Photos\n---\n")
    count = iter(range(1000))
    daemon = world.daemon()

    def copy() -> None:
        (folder / f"cat {next(count)}.png").write_bytes(photo)

    tick_for(daemon, 2.0, copy)
    assert world.status("Many.md") is None, world.read("Many.md")
    world.finish(daemon, "Many.md", timeout=40)
    daemon.close()
    with_all = next(count)
    assert world.status("Many.md") == "done", world.read("Many.md")
    assert f"{with_all} pictures" in world.read("Many.md")


def test_a_command_is_told_of_a_picture_that_is_not_there_at_once(world: World) -> None:
    ask(world, run="false")
    text = world.read(NOTE).replace("run: true\n", "", 1)
    world.note(NOTE, text)
    (world.vault / "Cats" / "cat2.png").unlink()
    view = Control(world.config, FAKE_ENGINE).run_note(NOTE, quiet)
    assert (view.status, view.message) == (
        "failed",
        "A picture is not in the vault: cat2.png. Put it there, or take out the line that shows it.",
    )
