"""Nobody is told that there is no such LoRA before the library was looked at: its file may just have come.

The story: on a slow machine a first look was cut short after one of seven adapters (a request is answered in between),
and a note that was ticked already was refused for good: "There is no LoRA".
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from loravault import looking
from loravault.control import Control
from loravault.jobs import absent
from loravault.jobs.absent import Absent, LibraryLooks, LookFirst
from loravault.jobs.planning import Plan
from tests.world import FAKE_ENGINE, FAST, World, served

PROMPT = "a lighthouse <lora:zinc:1>"
LACKS = Plan(lacking=("zinc",))


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that reads one adapter in the time that a look has."""
    monkeypatch.setattr(looking, "BUDGET_S", 0.0)


@pytest.fixture
def patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world that looks at its files once an hour."""
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    return World(tmp_path, rescan_s=3600.0)


def fill(world: World, *, last: str = "zinc") -> None:
    for name in ("aa", "bb", "cc", "dd", "ee", last):
        world.adapter(f"{name}.safetensors")


@pytest.mark.usefixtures("slowly")
def test_a_ticked_note_waits_for_a_first_look_that_takes_several_turns(world: World) -> None:
    fill(world)
    world.request("Note.md", PROMPT)
    daemon = world.daemon()
    world.finish(daemon, "Note.md")
    daemon.close()
    assert world.status("Note.md") == "done", world.read("Note.md")


@pytest.mark.usefixtures("slowly")
def test_a_run_whose_rows_were_lost_waits_for_the_look_as_well(world: World) -> None:
    fill(world)
    world.note(
        "Note.md",
        "---\nloravault: generate\nrun: false\nlv_job: abcd1234@atelier\nlv_status: queued\n---\n"
        f"```prompt\n{PROMPT}\n```\n",
    )
    daemon = world.daemon()
    world.finish(daemon, "Note.md")
    daemon.close()
    assert world.status("Note.md") == "done", world.read("Note.md")


@pytest.mark.usefixtures("slowly")
def test_auto_takes_no_note_for_new_that_waited_through_the_first_look(world: World) -> None:
    fill(world)
    world.request("Old.md", PROMPT, run=False, auto=True)
    daemon = world.daemon()
    world.work(daemon, lambda: daemon.ctx.looks.finished >= 2)
    for _ in range(20):
        daemon.tick()
    world.request("New.md", PROMPT)
    world.finish(daemon, "New.md")
    path = world.vault / "Old.md"
    path.write_text(path.read_text() + "\nA word.\n")
    time.sleep(FAST["read_quiet_s"])
    for _ in range(30):
        daemon.tick()
        time.sleep(0.01)
    assert world.status("Old.md") is None, "auto ran what was there before us"
    path.write_text(path.read_text() + f"\n```prompt\nand a whale, {PROMPT}\n```\n")
    world.work(daemon, lambda: world.results("Old.md") == 1)
    daemon.close()
    assert world.status("New.md") == "done"


def test_a_lora_that_comes_with_its_note_is_found_without_any_event(patient: World) -> None:
    daemon = patient.daemon()
    patient.work(daemon, lambda: daemon.ctx.looks.finished >= 1)
    patient.adapter("zinc.safetensors")
    patient.request("Note.md", PROMPT)
    daemon.feed.hint("Note.md")
    patient.finish(daemon, "Note.md")
    daemon.close()
    assert patient.status("Note.md") == "done", patient.read("Note.md")


def test_a_file_that_still_grows_is_waited_for(world: World) -> None:
    daemon = world.daemon()
    world.work(daemon, lambda: daemon.ctx.looks.finished >= 1)
    path = world.adapter("zinc.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    world.request("Note.md", PROMPT)
    give_up = time.monotonic() + 1.0
    while time.monotonic() < give_up:
        daemon.tick()
        time.sleep(0.01)
    assert world.status("Note.md") is None, world.read("Note.md")
    path.write_bytes(whole)
    world.finish(daemon, "Note.md")
    daemon.close()
    assert world.status("Note.md") == "done", world.read("Note.md")


@pytest.mark.parametrize("name", ["old", "Old.pt", "sets/old"])
def test_a_pickle_that_a_note_asks_for_is_said_to_be_left_alone(world: World, name: str) -> None:
    """The file lay in the folder for all to see, and the note said: There is no LoRA "old". Nearest: gold."""
    fill(world)
    (world.loras / "sets").mkdir(exist_ok=True)
    (world.loras / "sets" / "old.pt").write_bytes(b"\x80\x02}q\x00.")
    world.request("Note.md", f"a lighthouse <lora:{name}:1>")
    daemon = world.daemon()
    world.finish(daemon, "Note.md")
    daemon.close()
    assert world.status("Note.md") == "failed"
    assert f'There is no LoRA "{name}". loras/sets/old.pt is left alone, because opening it can run code' in world.read(
        "Note.md"
    )


def test_what_is_nowhere_is_refused_after_one_look(world: World) -> None:
    fill(world)
    world.request("Note.md", "a lighthouse <lora:nowhere:1>")
    daemon = world.daemon()
    world.finish(daemon, "Note.md")
    looks = daemon.ctx.looks.finished
    daemon.close()
    assert world.status("Note.md") == "failed"
    assert 'There is no LoRA "nowhere"' in world.read("Note.md")
    assert looks <= 4


@pytest.mark.usefixtures("slowly")
def test_what_would_be_left_out_when_missing_is_looked_for_first(world: World) -> None:
    fill(world)
    world.request("Note.md", PROMPT, missing_loras="skip")
    daemon = world.daemon()
    world.finish(daemon, "Note.md")
    daemon.close()
    assert world.status("Note.md") == "done"
    assert "left out" not in world.read("Note.md")


def test_a_command_finds_a_lora_that_came_a_moment_ago(patient: World) -> None:
    patient.request("Note.md", PROMPT, run=False)
    patient.adapter("aa.safetensors")
    control = Control(patient.config, FAKE_ENGINE)
    with served(patient):
        give_up = time.monotonic() + 10.0
        while control.statistics().adapters == 0 and time.monotonic() < give_up:
            time.sleep(0.05)
        patient.adapter("zinc.safetensors")
        view = control.run_note("Note.md", lambda _event: None)
    assert view.status == "done", patient.read("Note.md")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def looks() -> LibraryLooks:
    return LibraryLooks()


def test_a_note_waits_for_a_look_that_began_after_it(looks: LibraryLooks) -> None:
    asked: list[None] = []
    looks.ask = lambda: asked.append(None)
    waiting = Absent(looks, Clock())
    with pytest.raises(LookFirst):
        waiting.check("Note.md", LACKS)
    with pytest.raises(LookFirst):
        waiting.check("Note.md", LACKS)
    assert (len(asked), list(waiting.due()), waiting.notes) == (1, [], {"Note.md"})
    looks.finished += 1
    for rel in waiting.due():
        waiting.check(rel, LACKS)
    assert waiting.notes == set()


def test_a_note_that_asks_for_another_one_meanwhile_waits_anew(looks: LibraryLooks) -> None:
    waiting = Absent(looks, Clock())
    with pytest.raises(LookFirst):
        waiting.check("Note.md", LACKS)
    looks.finished += 1
    with pytest.raises(LookFirst):
        waiting.check("Note.md", Plan(lacking=("copper",)))
    assert list(waiting.due()) == []


def test_a_file_that_grows_and_grows_is_not_waited_for(looks: LibraryLooks) -> None:
    clock = Clock()
    waiting = Absent(looks, clock)
    with pytest.raises(LookFirst):
        waiting.check("Note.md", LACKS)
    looks.finished, looks.unsettled = 1, True
    assert list(waiting.due()) == []
    clock.now += absent.GROWING_S
    assert list(waiting.due()) == ["Note.md"]


def test_an_error_about_one_note_loses_neither_it_nor_the_next(looks: LibraryLooks) -> None:
    waiting = Absent(looks, Clock())
    for rel in ("A.md", "B.md"):
        with pytest.raises(LookFirst):
            waiting.check(rel, LACKS)
    looks.finished += 1
    assert next(waiting.due()) == "A.md", "whoever took it failed with it, and asks anew"
    assert list(waiting.due()) == ["A.md", "B.md"]


def test_a_note_that_was_unticked_or_deleted_meanwhile_is_forgotten(looks: LibraryLooks) -> None:
    waiting = Absent(looks, Clock())
    for rel in ("Unticked.md", "Deleted.md"):
        with pytest.raises(LookFirst):
            waiting.check(rel, LACKS)
    waiting.gone("Deleted.md")
    looks.finished += 1
    assert list(waiting.due()) == ["Unticked.md"], "the note is looked at, and asks for nothing"
    assert waiting.notes == set()
