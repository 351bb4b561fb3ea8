"""What survives: a lost or damaged index, a worker that dies, an engine that fails, a vault that goes away."""

from __future__ import annotations

import shutil
import threading
from functools import partial
from pathlib import Path

import pytest
from sqlmodel import select

from loravault.daemon import Daemon
from loravault.errors import AlreadyRunning, UserError
from loravault.index import work
from loravault.index.database import Index
from loravault.index.tables import JobRow, RunRow
from loravault.jobs.supervisor import VersionMismatch
from loravault.vault.note import parse_note
from tests.jobs.test_path import retick, running
from tests.jobs.test_wishes import told
from tests.world import World


def forget_index(world: World) -> None:
    for path in world.config.state_dir.glob("index.sqlite*"):
        path.unlink()


def pictures(world: World) -> list[str]:
    return sorted(path.name for path in (world.vault / "LoraVault" / "Images").rglob("lv-*"))


def test_without_its_index_nothing_is_lost_and_nothing_runs_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.request("Done.md", "a red cat", "a blue dog")
    world.request("Queued.md", "a green fish", "a white bird")
    with running(world) as daemon:
        world.finish(daemon, "Done.md", "Queued.md")
        retick(world, "Queued.md")
        monkeypatch.setattr(daemon.dispatcher, "_not_before", float("inf"))
        world.work(daemon, lambda: world.status("Queued.md") == "queued")
    before = pictures(world)
    done = world.read("Done.md")
    forget_index(world)

    with running(world) as daemon:
        world.finish(daemon, "Queued.md")
        for _ in range(50):
            daemon.tick()

    assert world.read("Done.md") == done
    assert world.results("Queued.md") == 4, "both blocks again with new seeds, as the tick wanted"
    assert len(pictures(world)) == len(before) + 2


def test_a_run_that_was_half_answered_is_only_finished(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first block is answered, the index is lost: only the second is made. (They cannot be drawn together.)"""
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.03")
    world.request("Two.md", "a red cat", "#| steps: 13\na blue dog fake:slow=0.4", steps=12)
    with running(world) as daemon:
        world.work(daemon, lambda: world.results("Two.md") == 1)
        assert world.status("Two.md") in ("queued", "running")
    forget_index(world)
    with running(world) as daemon:
        world.finish(daemon, "Two.md")

    note = parse_note((world.vault / "Two.md").read_bytes())
    assert [region.fence_index for region in note.regions] == [0, 1]
    assert len(pictures(world)) == 2


def _is_drawing(daemon: Daemon) -> bool:
    return daemon.dispatcher.job is not None


def killed_while_it_runs(world: World, times: int) -> None:
    """The one job of the world is begun so often, and every time left as a killed daemon leaves it."""
    for _ in range(times):
        daemon = world.daemon()
        try:
            world.work(daemon, partial(_is_drawing, daemon))
        finally:
            daemon.close()
        index = Index(world.config.state_dir / "index.sqlite")
        with index.session() as session:
            (job,) = session.exec(select(JobRow)).all()
            assert job.state == "queued", "it was closed in peace"
            job.state, job.attempts = "running", job.attempts + 1
            session.add(job)
        index.close()


def test_killing_the_daemon_again_and_again_fails_no_request(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the third kill -9 the note said that no picture was made, and blamed the worker."""
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.05")
    world.request("Cat.md", "a red cat", seed=1, steps=20)
    killed_while_it_runs(world, 4)
    with running(world) as daemon:
        world.finish(daemon, "Cat.md")
    assert (world.status("Cat.md"), len(pictures(world))) == ("done", 1)


def test_a_request_that_may_be_what_ends_the_daemon_is_given_up_in_words(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "MAX_INTERRUPTIONS", 3)
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.05")
    world.request("Cat.md", "a red cat", seed=1, steps=20)
    killed_while_it_runs(world, 3)
    with running(world) as daemon:
        world.finish(daemon, "Cat.md")
    assert world.status("Cat.md") == "failed"
    assert "loravault was stopped while it ran" in world.read("Cat.md")


def test_pictures_that_were_recorded_are_the_answer_and_none_is_made_again(world: World) -> None:
    """A kill between the row of the picture and the end of the job left a picture that no note showed."""
    world.request("Cat.md", "a red cat fake:warn", seed=1)
    with running(world) as daemon:
        world.finish(daemon, "Cat.md")
    (before,) = (world.vault / "LoraVault" / "Images").rglob("lv-*")
    inode = before.stat().st_ino
    text = world.read("Cat.md")
    cut = text[: text.index("> [!lora-result]")].rstrip() + "\n"
    index = Index(world.config.state_dir / "index.sqlite")
    with index.session() as session:
        (job,) = session.exec(select(JobRow)).all()
        (run,) = session.exec(select(RunRow)).all()
        job.state, job.answer, job.pictures, job.delivered = "running", None, "[]", False
        run.closed, run.status, run.finished = False, None, None
        session.add(job)
        session.add(run)
    index.close()
    world.note("Cat.md", cut)
    with running(world) as daemon:
        world.work(daemon, lambda: world.results("Cat.md") == 1)
    (after,) = (world.vault / "LoraVault" / "Images").rglob("lv-*")
    assert (after, after.stat().st_ino) == (before, inode), "nothing was drawn or written again"
    assert before.name in world.read("Cat.md")
    assert "A fake warning." in world.read("Cat.md"), "what was to be said of it is said"


def test_unchanged_is_known_without_an_index(world: World) -> None:
    """What a result was made from stands in its picture."""
    world.request("Cat.md", "a red cat", seed=42)
    with running(world) as daemon:
        world.finish(daemon, "Cat.md")
    forget_index(world)
    retick(world, "Cat.md")
    with running(world) as daemon:
        world.work(daemon, lambda: "nothing changed" in str(world.properties("Cat.md").get("lv_message")))

    assert len(pictures(world)) == 1


def test_a_damaged_index_is_rebuilt_while_the_daemon_runs(world: World) -> None:
    world.request("Cat.md", "a red cat")
    daemon = world.daemon()
    try:
        world.finish(daemon, "Cat.md")
        with daemon.ctx.index.session() as session:
            from sqlalchemy import text

            session.execute(text("UPDATE job SET first_line = CAST(x'ff41ff' AS TEXT), state = 'queued'"))
        stop = threading.Event()
        world.request("Dog.md", "a blue dog")
        threading.Timer(15, stop.set).start()
        daemon.run(stop, until=lambda: world.is_answered("Dog.md"))
    finally:
        daemon.close()

    assert world.status("Dog.md") == "done"
    assert list(world.config.state_dir.glob("index.sqlite.*.set-aside"))


def test_an_index_that_is_deleted_under_the_running_daemon_is_built_anew(world: World) -> None:
    world.request("Cat.md", "a red cat", seed=1)
    daemon = world.daemon()
    try:
        world.finish(daemon, "Cat.md")
        forget_index(world)
        world.request("Dog.md", "a blue dog")
        stop = threading.Event()
        threading.Timer(30, stop.set).start()
        daemon.run(stop, until=lambda: world.is_answered("Dog.md"))
    finally:
        daemon.close()

    assert world.status("Dog.md") == "done"
    assert (world.config.state_dir / "index.sqlite").exists()
    assert world.results("Cat.md") == 1


def test_a_worker_that_dies_once_costs_nothing(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LORAVAULT_FAKE_STATE", str(tmp_path))
    world.request("Cat.md", "a red cat fake:die fake:once")
    with running(world) as daemon:
        world.finish(daemon, "Cat.md")

    assert world.status("Cat.md") == "done"
    assert world.results("Cat.md") == 1


def test_a_request_that_always_kills_the_worker_ends_in_words_and_the_next_one_runs(world: World) -> None:
    world.request("A poison.md", "a red cat fake:segv")
    world.request("B healthy.md", "a red cat")
    with running(world) as daemon:
        world.finish(daemon, "A poison.md", "B healthy.md")

    assert world.status("A poison.md") == "failed"
    assert "tried 3 times" in world.read("A poison.md")
    assert world.status("B healthy.md") == "done"


@pytest.mark.parametrize(
    ("mode", "word"), [("user", "told to refuse"), ("oom", "too little memory"), ("bug", "fake bug")]
)
def test_what_the_engine_says_is_an_answer_and_never_retried(world: World, mode: str, word: str) -> None:
    world.request("Cat.md", f"a red cat fake:{mode}")
    with running(world) as daemon:
        world.finish(daemon, "Cat.md")
        retick(world, "Cat.md")
        world.work(daemon, lambda: world.properties("Cat.md")["run"] is False and world.is_answered("Cat.md"))

    text = world.read("Cat.md")
    assert word in text
    assert "Traceback" not in text
    assert text.count("> [!failure]") == 1, "an intact failure is replaced by the next answer"


def test_a_picture_that_came_out_as_nan_is_told_and_the_others_are_kept(world: World) -> None:
    world.request("Cat.md", "a red cat fake:nan", count=2, seed=5)
    with running(world) as daemon:
        world.finish(daemon, "Cat.md")

    assert "> [!lora-result]+ 1 image" in world.read("Cat.md")
    assert len(pictures(world)) == 1


def test_a_second_daemon_leaves_with_the_pid_of_the_first(world: World) -> None:
    import os

    with running(world), pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}"):
        world.daemon()


def test_no_vault_is_said(world: World) -> None:
    shutil.rmtree(world.vault)
    with pytest.raises(UserError, match="no such folder"):
        world.daemon()


def test_a_vault_that_goes_away_changes_nothing(world: World) -> None:
    world.request("Cat.md", "a red cat", seed=1)
    with running(world) as daemon:
        world.finish(daemon, "Cat.md")
        away = world.home / "unplugged"
        world.vault.rename(away)
        for _ in range(5):
            daemon._next_rescan = 0.0
            daemon.tick()
        away.rename(world.vault)
        retick(world, "Cat.md")
        world.work(daemon, lambda: "nothing changed" in str(world.properties("Cat.md").get("lv_message")))


def test_a_note_that_cannot_be_written_keeps_its_answer_and_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.request("Cat.md", "a red cat")
    with running(world) as daemon:
        replace = daemon.ctx.writer.replace
        attempts = 0

        def refused(*_args: object, **_kwargs: object) -> None:
            nonlocal attempts
            attempts += 1
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(daemon.ctx.writer, "replace", refused)
        world.work(daemon, lambda: "Cat.md" in told(daemon) and len(pictures(world)) == 1)
        for _ in range(50):
            daemon.tick()
        assert attempts <= 2, "at most one attempt a minute"

        monkeypatch.setattr(daemon.ctx.writer, "replace", replace)
        (world.vault / "Cat.md").write_text(world.read("Cat.md") + "\n")
        world.finish(daemon, "Cat.md")

    assert world.results("Cat.md") == 1


def test_pictures_that_cannot_be_published_keep_the_job_and_say_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.request("Cat.md", "a red cat", seed=1)
    with running(world) as daemon:
        publish = daemon.ctx.writer.publish

        def full(*_args: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(daemon.ctx.writer, "publish", full)
        world.work(daemon, lambda: "publish" in daemon.ctx.troubles)
        assert "No space left" in daemon.ctx.troubles["publish"]
        monkeypatch.setattr(daemon.ctx.writer, "publish", publish)
        monkeypatch.setattr(daemon.dispatcher, "_not_before", 0.0)
        world.finish(daemon, "Cat.md")

    assert world.results("Cat.md") == 1
    assert "publish" not in daemon.ctx.troubles


def test_an_upgrade_under_the_running_daemon_gives_the_job_back_and_asks_for_a_restart(world: World) -> None:
    world.request("Cat.md", "a red cat fake:slow=0.2")
    with running(world) as daemon:
        world.work(daemon, lambda: daemon.dispatcher.job is not None)
        job = daemon.dispatcher.job
        daemon.dispatcher._on_event(
            daemon.dispatcher.lanes[0], VersionMismatch(job, "9.9 (protocol 9)", "0.1.0 (protocol 1)")
        )

        assert daemon.restart_wanted
        with daemon.ctx.index.session() as session:
            from loravault.index import work

            row = work.job_by_id(session, job or "")
            assert row is not None
            assert (row.state, row.attempts) == ("queued", 0)
