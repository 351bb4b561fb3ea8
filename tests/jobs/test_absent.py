"""Nobody is told that there is no such LoRA before the library was looked at: its file may just have come.

The story: on a slow machine a first look was cut short after one of seven adapters (a request is answered in between),
and a note that was ticked already was refused for good: "There is no LoRA".
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from loravault import looking
from loravault.control import Control
from loravault.daemon import Daemon
from loravault.index import commands, work
from loravault.jobs import absent
from loravault.jobs.absent import Absent, LibraryLooks
from tests.jobs.test_path import running, write_gate_closed
from tests.world import FAKE_ENGINE, FAST, World, served

PROMPT = "a lighthouse <lora:zinc:1>"


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


def test_a_command_that_names_one_that_came_and_one_that_is_nowhere_is_answered(patient: World) -> None:
    """The look found one of the two, so that other names were lacking: `run` failed with a bug, and `retry` with it."""
    for rel in ("A.md", "B.md"):
        patient.request(rel, f"{PROMPT} <lora:nowhere:1>")
    patient.request("C.md", "a lighthouse <lora:nowhere:1>")
    control = Control(patient.config, FAKE_ENGINE)
    with served(patient):
        give_up = time.monotonic() + 20.0
        while not all(map(patient.is_answered, ("A.md", "B.md", "C.md"))) and time.monotonic() < give_up:
            time.sleep(0.05)
        patient.adapter("zinc.safetensors")
        views = control.retry(None, lambda _event: None)
    assert sorted((view.note, view.status) for view in views) == [(f"{name}.md", "failed") for name in "ABC"]
    assert 'no LoRA "nowhere"' in patient.read("A.md")
    assert "zinc" not in patient.read("A.md").partition("[!failure]")[2]


def test_a_command_takes_no_look_in_one_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a daemon, `run` with a misspelt name held up everything until ten thousand files were read."""
    monkeypatch.setattr(looking, "BUDGET_S", 0.0)
    fill(world)
    world.request("Note.md", "a lighthouse <lora:nowhere:1>", run=False)
    daemon = world.daemon()
    daemon.tick()
    with daemon.ctx.index.session() as session:
        number = commands.ask(session, "run", {"note": "Note.md"}, daemon.ctx.now())
    ticks = 0
    while daemon.ctx.looks.finished == 0:
        daemon.orders.step()
        assert daemon.orders.postponed
        daemon.tick()
        ticks += 1
    assert ticks > 3
    world.finish(daemon, "Note.md")
    with daemon.ctx.index.session() as session:
        row = commands.command(session, number)
        assert row is not None
        assert row.state == "done"
    daemon.close()


def test_a_wish_that_was_changed_before_it_began_is_not_drawn_as_it_was(world: World) -> None:
    """It waited for the look, and the earlier wish, which it was to replace, was drawn meanwhile; the box was reset."""
    with running(world) as daemon:
        world.request("Long.md", "a red cat fake:slow=0.3", steps=8)
        world.work(daemon, lambda: world.status("Long.md") == "running")
        with write_gate_closed(daemon):
            world.request("Note.md", "an old wish")
            world.work(daemon, lambda: bool(queued(daemon, "Note.md")))
            [old] = queued(daemon, "Note.md")
            path = world.adapter("zinc.safetensors")
            whole = path.read_bytes()
            path.write_bytes(whole[:200])
            world.request("Note.md", PROMPT)
            world.work(daemon, lambda: old not in queued(daemon, "Note.md"))
        path.write_bytes(whole)
        world.finish(daemon, "Note.md")
    text = world.read("Note.md")
    assert "old wish" not in text
    assert world.status("Note.md") == "done", text


def queued(daemon: Daemon, rel: str) -> list[str]:
    with daemon.ctx.index.session() as session:
        return [job.id for job in work.open_jobs(session) if job.note == rel]


@pytest.mark.usefixtures("slowly")
def test_a_block_that_is_added_while_a_note_waits_through_the_first_look_is_new(world: World) -> None:
    fill(world)
    world.request("Old.md", PROMPT, run=False, auto=True)
    daemon = world.daemon()
    daemon.tick()
    world.work(daemon, lambda: daemon.feed.first_look_is_over)
    path = world.vault / "Old.md"
    path.write_text(path.read_text() + "\n```prompt\na whale <lora:aa>\n```\n")
    world.work(daemon, lambda: world.results("Old.md") == 1 and world.is_answered("Old.md"))
    for _ in range(50):
        daemon.tick()
        time.sleep(0.01)
    daemon.close()
    assert world.results("Old.md") == 1, "the block that was there before us was drawn as well"


def test_a_note_that_was_refused_at_the_start_is_new_when_it_asks_by_itself(world: World) -> None:
    """A ticked note with a slip in a name, later given `auto` and a good block: nothing was made, nothing was said."""
    fill(world)
    path = world.request("Note.md", "a lighthouse <lora:nowhere:1>")
    with running(world) as daemon:
        world.finish(daemon, "Note.md")
        path.write_text(
            path.read_text().replace("run: false", "run: false\nauto: true") + f"\n```prompt\n{PROMPT}\n```\n"
        )
        world.work(daemon, lambda: world.results("Note.md") == 1)


@pytest.mark.usefixtures("slowly")
def test_old_notes_run_nothing_by_themselves_after_a_restart_in_the_first_look(world: World) -> None:
    fill(world)
    for number in range(3):
        world.request(f"Old {number}.md", f"{number} {PROMPT}", run=False, auto=True)
    daemon = world.daemon()
    daemon.tick()
    world.work(daemon, lambda: daemon.feed.first_look_is_over)
    daemon.close()
    with running(world) as daemon:
        world.work(daemon, lambda: daemon.ctx.looks.finished >= 2)
        for _ in range(50):
            daemon.tick()
            time.sleep(0.01)
    assert [world.status(f"Old {number}.md") for number in range(3)] == [None] * 3


def test_a_command_without_a_daemon_is_no_first_look(world: World) -> None:
    """It considers one note; the next daemon took all others for new ones and ran them."""
    world.request("Old.md", "a red cat", run=False, auto=True)
    world.request("Note.md", "a blue dog", run=False)
    Control(world.config, FAKE_ENGINE).run_note("Note.md", lambda _event: None)
    with running(world) as daemon:
        world.work(daemon, lambda: daemon.feed.first_look_is_over)
        for _ in range(50):
            daemon.tick()
            time.sleep(0.01)
    assert world.status("Old.md") is None


@pytest.mark.usefixtures("slowly")
@pytest.mark.parametrize("how", ["in the note", "by a command"])
def test_a_note_that_waits_can_be_cancelled(world: World, how: str) -> None:
    fill(world)
    path = world.request("Note.md", PROMPT)
    daemon = world.daemon()
    world.work(daemon, lambda: bool(daemon.intake._patience.ticked))
    if how == "in the note":
        path.write_text(path.read_text().replace("run: true", "run: true\ncancel: true"))
    else:
        assert daemon.intake.cancel("Note.md") == "Cancelled what had not begun in Note.md."
    world.work(daemon, lambda: world.properties("Note.md").get("run") is False)
    for _ in range(50):
        daemon.tick()
        time.sleep(0.01)
    daemon.close()
    assert world.properties("Note.md")["lv_message"] == "cancelled"
    assert world.results("Note.md") == 0


def test_a_look_that_fails_halfway_counts_for_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names were looked up as they had been known before it."""
    world.request("Note.md", PROMPT)
    real, failures = looking.refresh_images, [2]

    def flaky(*args: Any, **options: Any) -> None:
        if failures[0]:
            failures[0] -= 1
            raise OSError("the disk is full")
        real(*args, **options)

    daemon = world.daemon()
    daemon.tick()
    monkeypatch.setattr(looking, "refresh_images", flaky)
    world.adapter("zinc.safetensors")
    world.finish(daemon, "Note.md")
    daemon.close()
    assert world.status("Note.md") == "done", world.read("Note.md")


def test_who_waits_for_long_is_told_on_the_dashboard(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(absent, "TOLD_S", 0.0)
    daemon = world.daemon()
    world.work(daemon, lambda: daemon.ctx.looks.finished >= 1)
    path = world.adapter("zinc.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    world.request("Note.md", PROMPT)
    told = "Note.md waits until all LoRAs were looked at"
    world.work(daemon, lambda: told in daemon.ctx.troubles.get("absent", ""))
    path.write_bytes(whole)
    world.finish(daemon, "Note.md")
    daemon.tick()
    daemon.close()
    assert "absent" not in daemon.ctx.troubles


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
    assert waiting.holds("Note.md", ["zinc"])
    assert waiting.holds("Note.md", ["zinc"])
    assert (len(asked), list(waiting.due())) == (1, [])
    looks.finished += 1
    assert list(waiting.due()) == ["Note.md"]
    assert list(waiting.due()) == []


def test_only_a_name_that_was_not_looked_for_yet_is_waited_for_anew(looks: LibraryLooks) -> None:
    waiting = Absent(looks, Clock())
    assert waiting.holds("Note.md", ["zinc", "copper"])
    looks.finished += 1
    assert not waiting.holds("Note.md", ["copper"])
    assert not waiting.holds("Note.md", ["zinc", "copper"])
    assert waiting.holds("Note.md", ["copper", "tin"])
    assert list(waiting.due()) == []


def test_a_file_that_grows_and_grows_is_not_waited_for(looks: LibraryLooks) -> None:
    clock = Clock()
    waiting = Absent(looks, clock)
    assert waiting.holds("Note.md", ["zinc"])
    looks.finished, looks.unsettled = 1, True
    assert list(waiting.due()) == []
    clock.now += absent.GROWING_S
    assert list(waiting.due()) == ["Note.md"]


def test_nobody_waits_for_ever_for_a_look_that_does_not_end(looks: LibraryLooks) -> None:
    clock = Clock()
    waiting = Absent(looks, clock)
    assert waiting.holds("Note.md", ["zinc"])
    clock.now += absent.TOLD_S
    assert "zinc" in (waiting.told() or "")
    clock.now += absent.LONGEST_S
    assert not waiting.holds("Note.md", ["zinc"])
    assert list(waiting.due()) == ["Note.md"]
    assert waiting.told() is None


def test_an_error_of_the_index_loses_no_note(looks: LibraryLooks) -> None:
    waiting = Absent(looks, Clock())
    for rel in ("A.md", "B.md"):
        assert waiting.holds(rel, ["zinc"])
    looks.finished += 1
    assert next(waiting.due()) == "A.md", "whoever took it failed with it, and asks anew"
    assert list(waiting.due()) == ["A.md", "B.md"]
    assert list(waiting.due()) == []


def test_a_note_that_was_deleted_meanwhile_is_forgotten(looks: LibraryLooks) -> None:
    waiting = Absent(looks, Clock())
    assert waiting.holds("Deleted.md", ["zinc"], ticked=True)
    assert waiting.ticked == {"Deleted.md"}
    waiting.drop("Deleted.md")
    looks.finished += 1
    assert (list(waiting.due()), waiting.ticked) == ([], set())
