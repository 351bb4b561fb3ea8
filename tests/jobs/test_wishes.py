"""Cancel, auto, copies, renames: what a person does to a note while the daemon looks after it."""

from __future__ import annotations

import shutil

import pytest

from loravault.daemon import Daemon
from loravault.index import notes
from loravault.vault.note import parse_note
from tests.jobs.test_path import retick, running, write_gate_closed
from tests.world import World


def told(daemon: Daemon) -> set[str]:
    """The notes that the dashboard tells about."""
    with daemon.ctx.index.session() as session:
        return {row.path for row in notes.notes_with_problems(session)}


def set_property(world: World, rel: str, key: str, value: str) -> None:
    """As Obsidian's checkbox does: one line of the properties changes."""
    path = world.vault / rel
    lines = path.read_text().split("\n")
    kept = [line for line in lines if not line.startswith(f"{key}:")]
    kept.insert(1, f"{key}: {value}")
    path.write_text("\n".join(kept))


def test_cancel_stops_what_runs_and_what_waits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.05")
    world.request("Cat.md", "a red cat", "a blue dog", steps=200, cancel=False)
    with running(world) as daemon:
        world.work(daemon, lambda: world.status("Cat.md") == "running")
        set_property(world, "Cat.md", "cancel", "true")
        world.finish(daemon, "Cat.md")

    properties = world.properties("Cat.md")
    assert properties["lv_status"] == "cancelled"
    assert properties["cancel"] is False
    assert properties["run"] is False
    assert world.results("Cat.md") == 0


def test_cancel_keeps_the_pictures_that_were_finished(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.02")
    world.request("Cat.md", "a red cat", steps=20, count=30, seed=5)
    with running(world) as daemon:
        world.work(daemon, lambda: any((world.home / "state").rglob("lv-*.webp")))
        set_property(world, "Cat.md", "cancel", "true")
        world.finish(daemon, "Cat.md")

    text = world.read("Cat.md")
    assert world.status("Cat.md") == "cancelled"
    assert "Cancelled after " in text
    assert " of 30." in text


def test_cancel_beats_run(world: World) -> None:
    world.request("Cat.md", "a red cat", cancel=True)
    with running(world) as daemon:
        world.work(daemon, lambda: world.properties("Cat.md")["cancel"] is False)
        for _ in range(20):
            daemon.tick()

    assert world.properties("Cat.md")["run"] is False
    assert world.results("Cat.md") == 0
    assert "nothing to cancel" in world.properties("Cat.md")["lv_message"]


def test_auto_is_silent_at_the_first_look_and_runs_what_comes_afterwards_once(world: World) -> None:
    world.request("Old.md", "an old cat", run=False, auto=True)
    with running(world) as daemon:
        daemon.tick()
        daemon.tick()
        world.request("New.md", "a new cat", run=False, auto=True)
        world.finish(daemon, "New.md")
        assert world.status("Old.md") is None

        path = world.vault / "Old.md"
        path.write_text(path.read_text() + "\n```prompt\na second cat\n```\n")
        world.finish(daemon, "Old.md")
        for rel in ("Old.md", "New.md"):
            (world.vault / rel).write_text(world.read(rel) + "\na remark\n")
        for _ in range(60):
            daemon.tick()

    note = parse_note((world.vault / "Old.md").read_bytes())
    assert [region.fence_index for region in note.regions] == [1], "only the new block"
    assert world.results("New.md") == 1


def test_auto_tells_a_refusal_once(world: World) -> None:
    with running(world) as daemon:
        daemon.tick()
        daemon.tick()
        world.request("Bad.md", "a cat <lora:nobody:1>", run=False, auto=True)
        world.finish(daemon, "Bad.md")
        (world.vault / "Bad.md").write_text(world.read("Bad.md") + "\na remark\n")
        for _ in range(60):
            daemon.tick()

    assert world.read("Bad.md").count("> [!failure]") == 1


def test_a_duplicate_that_is_ticked_afterwards_runs(world: World) -> None:
    world.request("Cat.md", "a red cat", seed=3)
    with running(world) as daemon:
        world.finish(daemon, "Cat.md")
        shutil.copy(world.vault / "Cat.md", world.vault / "Cat 1.md")
        world.work(daemon, lambda: "Cat 1.md" in daemon.feed.paths() and not daemon.feed.waiting)  # it was read
        path = world.vault / "Cat 1.md"
        path.write_bytes(path.read_bytes().replace(b"a red cat", b"a green cat").replace(b"run: false", b"run: true"))
        world.work(daemon, lambda: "a green cat" in world.read("Cat 1.md") and world.is_answered("Cat 1.md"))

    assert world.results("Cat 1.md") == 2, "the copied picture and its own"
    assert world.results("Cat.md") == 1


def test_a_sync_copy_of_a_ticked_note_never_runs(world: World) -> None:
    world.request("Cat.md", "a red cat", seed=3)
    with running(world) as daemon:
        world.finish(daemon, "Cat.md")
        retick(world, "Cat.md")
        names = (
            "Cat 2.md",
            "Cat (Conflicted copy phone 202611201815).md",
            "Cat.sync-conflict-20261120-181500-ABCDEF1.md",
        )
        for name in names:
            shutil.copy(world.vault / "Cat.md", world.vault / name)
        world.work(daemon, lambda: "nothing changed" in str(world.properties("Cat.md").get("lv_message")))
        for _ in range(60):
            daemon.tick()
        daemon.board.write(stopped=True)

    for name in names:
        assert world.properties(name)["run"] is True, "left exactly as it came"
        assert name.removesuffix(".md") in world.read("LoraVault/LoraVault.md")


def test_a_note_renamed_before_its_receipt_is_answered_under_its_new_name(world: World) -> None:
    with running(world) as daemon:
        path = world.request("Cat.md", "a red cat", seed=3)
        with write_gate_closed(daemon):
            world.work(daemon, lambda: bool(daemon.ctx.to_deliver))
            path.rename(world.vault / "Kitten.md")
        world.finish(daemon, "Kitten.md")

    assert world.results("Kitten.md") == 1
    assert not path.exists(), "a note is never made again at its old place"


def test_a_note_renamed_while_it_runs_is_answered_under_its_new_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.04")
    path = world.request("Cat.md", "a red cat", seed=3)
    with running(world) as daemon:
        world.work(daemon, lambda: world.status("Cat.md") in ("queued", "running"))
        (world.vault / "Deep").mkdir()
        path.rename(world.vault / "Deep" / "Kitten.md")
        world.finish(daemon, "Deep/Kitten.md")

    assert world.results("Deep/Kitten.md") == 1
    assert not path.exists()


def test_a_deleted_note_stays_deleted_and_its_pictures_are_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.01")
    path = world.request("Cat.md", "a red cat", seed=3)
    with running(world) as daemon:
        world.work(daemon, lambda: world.status("Cat.md") in ("queued", "running"))
        path.unlink()
        world.work(daemon, lambda: "Cat.md" in told(daemon))
        daemon.board.write(stopped=True)

    assert not path.exists()
    assert list((world.vault / "LoraVault" / "Images").rglob("*.webp"))
    assert "the note is gone" in world.read("LoraVault/LoraVault.md")


def test_a_block_that_was_edited_while_it_ran_is_answered_at_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.04")
    path = world.request("Cat.md", "a red cat", seed=3)
    with running(world) as daemon:
        world.work(daemon, lambda: world.status("Cat.md") in ("queued", "running"))
        path.write_text(path.read_text().replace("a red cat", "a purple cat") + "\nThe end.\n")
        world.finish(daemon, "Cat.md")

    text = world.read("Cat.md")
    assert "a purple cat" in text
    assert text.index("The end.") < text.index("The block it answers is gone: “a red cat”")


@pytest.mark.parametrize(
    "properties", ["loravault: generate\nrun: true\ntitle: [oops", "loravault：generate\nrun: true"]
)
def test_invalid_properties_that_say_run_are_answered_in_the_body(
    world: World, monkeypatch: pytest.MonkeyPatch, properties: str
) -> None:
    monkeypatch.setattr("loravault.jobs.intake.INVALID_S", 0.2)
    broken = f"---\n{properties}\n---\n```prompt\na cat\n```\n"
    path = world.note("Bad.md", broken)
    with running(world) as daemon:
        world.work(daemon, lambda: "> [!failure]" in world.read("Bad.md"))
        for _ in range(60):
            daemon.tick()
        daemon.board.write(stopped=True)

    text = path.read_text()
    assert text.startswith(broken), "the user's bytes stay"
    assert text.count("> [!failure]") == 1
    assert "cannot be read" in text
    assert "[[Bad|Bad]]" in world.read("LoraVault/LoraVault.md")


def test_templates_are_left_alone_and_told(world: World) -> None:
    world.note(".obsidian/templates.json", '{"folder": "My Templates"}')
    world.request("My Templates/Picture.md", "a red cat")
    world.request("LoraVault/Templates/New picture.md", "a red cat")
    with running(world) as daemon:
        world.work(daemon, lambda: "My Templates/Picture.md" in told(daemon))
        for _ in range(30):
            daemon.tick()
        daemon.board.write(stopped=True)

    assert world.properties("My Templates/Picture.md")["run"] is True
    assert world.properties("LoraVault/Templates/New picture.md")["run"] is True
    board = world.read("LoraVault/LoraVault.md")
    assert "My Templates/Picture" in board
    assert "New picture|" not in board, "our own templates are nobody's mistake"
