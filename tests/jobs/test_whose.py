"""A note that says `queued` or `running` gets its answer, or is told why it will not, whatever was done to the files.

The stories: a note was copied while its picture was drawn, and the copy said `running` for ever. After a lost index the
copy got the answer, and the original waited for ever. A phone that had been offline put its older text over an answer,
and the note waited for ever.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from loravault.daemon import Daemon
from loravault.jobs.whose import WAITING
from tests.world import World

SLOW = "a cat fake:slow=0.1"
LOST = "---\nloravault: generate\nrun: false\nlv_job: abcd1234@atelier\nlv_status: queued\n---\n```prompt\na cat\n```\n"


def running(world: World, rel: str) -> Daemon:
    """A daemon that draws for this note, with the receipt in it."""
    world.request(rel, SLOW)
    daemon = world.daemon()
    world.work(daemon, lambda: world.status(rel) in WAITING)
    return daemon


def rest(daemon: Daemon, seconds: float = 1.5) -> None:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        daemon.tick()
        time.sleep(0.01)


@pytest.mark.parametrize("copy", ["X 1.md", "Another.md"])
def test_a_copy_of_a_note_that_waits_is_told_so(world: World, copy: str) -> None:
    daemon = running(world, "X.md")
    shutil.copy(world.vault / "X.md", world.vault / copy)
    world.finish(daemon, "X.md", copy)
    rest(daemon)
    daemon.close()
    assert (world.status("X.md"), world.status(copy)) == ("done", "cancelled")
    assert (world.results("X.md"), world.results(copy)) == (1, 0)
    assert "X.md" in world.properties(copy)["lv_message"]


def test_a_copy_that_was_told_so_can_be_run(world: World) -> None:
    daemon = running(world, "X.md")
    shutil.copy(world.vault / "X.md", world.vault / "X 1.md")
    world.finish(daemon, "X.md", "X 1.md")
    path = world.vault / "X 1.md"
    path.write_text(path.read_text().replace("run: false", "run: true"))
    world.work(daemon, lambda: world.status("X 1.md") == "done")
    daemon.close()
    assert world.results("X 1.md") == 1


@pytest.mark.parametrize("copy", ["X 1.md", "X 2.md"])
def test_after_a_lost_index_the_answer_is_for_the_original(world: World, copy: str) -> None:
    world.note("X.md", LOST)
    world.note(copy, LOST)
    daemon = world.daemon()
    world.finish(daemon, "X.md", copy)
    daemon.close()
    assert (world.status("X.md"), world.status(copy)) == ("done", "cancelled")


def test_after_a_lost_index_none_of_two_notes_waits_for_ever(world: World) -> None:
    world.note("X.md", LOST)
    world.note("A copy of X.md", LOST)
    daemon = world.daemon()
    world.finish(daemon, "X.md", "A copy of X.md")
    daemon.close()
    assert sorted([world.status("X.md"), world.status("A copy of X.md")]) == ["cancelled", "done"]


def test_a_note_whose_original_waits_no_more_is_run_again(world: World) -> None:
    """`X.md` was answered before the index was lost; what was copied from it meanwhile is a note like any other."""
    world.note("X.md", LOST.replace("queued", "done"))
    world.note("X 1.md", LOST)
    daemon = world.daemon()
    world.finish(daemon, "X 1.md")
    daemon.close()
    assert world.status("X 1.md") == "done"


def test_an_answer_that_was_overwritten_is_given_once_more(world: World) -> None:
    daemon = running(world, "X.md")
    before = (world.vault / "X.md").read_bytes()
    world.finish(daemon, "X.md")
    answered = world.read("X.md")
    rest(daemon, 0.5)
    world.note("X.md", before.replace(b"# X\n", b"# X, as the phone has it\n"))
    world.finish(daemon, "X.md")
    rest(daemon)
    pictures = list((world.vault / "LoraVault" / "Images").rglob("*.webp"))
    daemon.close()
    assert world.read("X.md") == answered.replace("# X\n", "# X, as the phone has it\n")
    assert len(pictures) == 1


def test_no_picture_is_named_again_that_was_deleted_meanwhile(world: World) -> None:
    daemon = running(world, "X.md")
    before = (world.vault / "X.md").read_bytes()
    world.finish(daemon, "X.md")
    for picture in (world.vault / "LoraVault" / "Images").rglob("*.webp"):
        picture.unlink()
    rest(daemon, 0.5)
    world.note("X.md", before)
    world.finish(daemon, "X.md")
    daemon.close()
    assert world.results("X.md") == 0


def test_of_two_notes_with_its_job_the_answer_goes_into_the_renamed_one(world: World) -> None:
    daemon = running(world, "X.md")
    rest(daemon, 0.3)
    shutil.copy(world.vault / "X.md", world.vault / "A copy.md")
    os.rename(world.vault / "X.md", world.vault / "Y.md")
    world.finish(daemon, "Y.md", "A copy.md")
    daemon.close()
    assert (world.results("Y.md"), world.results("A copy.md")) == (1, 0)


def test_a_restart_tells_the_copy_as_well(world: World) -> None:
    daemon = running(world, "X.md")
    text = (world.vault / "X.md").read_bytes()
    world.finish(daemon, "X.md")
    daemon.close()
    world.note("Copy.md", text)
    daemon = world.daemon()
    world.finish(daemon, "Copy.md")
    daemon.close()
    assert world.status("Copy.md") == "cancelled"
    assert Path(world.vault / "X.md").is_file()
