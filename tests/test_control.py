"""The command line's door: the same answers beside a running daemon and without one."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import DatabaseError, OperationalError

from loravault import __version__
from loravault import control as control_module
from loravault.control import Control
from loravault.errors import AlreadyRunning, UserError
from loravault.index import commands
from loravault.jobs.context import Event
from loravault.jobs.intake import Intake
from tests.world import FAKE_ENGINE, World, nobody, quiet, served, until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    return World(tmp_path)


@pytest.fixture(params=[nobody, served], ids=["alone", "beside a daemon"])
def control(world: World, request: pytest.FixtureRequest) -> Iterator[Control]:
    with request.param(world):
        yield Control(world.config, FAKE_ENGINE)


def test_a_note_is_run_and_followed_to_its_answer(control: Control, world: World) -> None:
    world.request("Cat.md", "a red cat fake:slow=0.15", run=False, steps=16)
    events: list[Event] = []

    view = control.run_note("Cat.md", events.append)

    assert (view.note, view.status) == ("Cat.md", "done")
    assert [(world.vault / path).is_file() for path in view.images] == [True]
    assert world.status("Cat.md") == "done"
    assert any(event.kind == "progress" and event.fraction for event in events)
    assert control.queue() == []


def test_what_is_no_request_is_a_sentence(control: Control, world: World) -> None:
    world.note("Plain.md", "# just a note\n")
    with pytest.raises(UserError, match="is not a request"):
        control.run_note("Plain.md", quiet)
    with pytest.raises(UserError, match=r"There is no note Nobody\.md"):
        control.run_note("Nobody.md", quiet)


def test_retry_runs_what_failed_and_says_when_nothing_did(control: Control, world: World) -> None:
    with pytest.raises(UserError, match="Nothing has failed"):
        control.retry(None, quiet)
    world.request("Cat.md", "a red cat <lora:late:1>", run=False)
    assert control.run_note("Cat.md", quiet).status == "failed"
    world.adapter("late.safetensors")
    control.reindex(quiet)

    views = control.retry(None, quiet)

    assert [view.status for view in views] == ["done"]
    assert "> [!failure]" not in world.read("Cat.md")


def test_cancel_says_what_it_did(control: Control) -> None:
    assert "nothing to cancel" in control.cancel(None).message
    assert "nothing to cancel" in control.cancel(None, everything=True).message
    assert "for Cat" in control.cancel("Cat").message


def test_reindex_counts_what_there_is(control: Control, world: World) -> None:
    world.adapter("one.safetensors")
    world.adapter("deep/two.safetensors")
    (world.loras / "broken.safetensors").write_bytes(b"<html>")
    os.utime(world.loras / "broken.safetensors", (1, 1))
    world.request("Cat.md", "a red cat", run=False)

    view = control.reindex(quiet)

    assert (view.adapters, view.broken, view.notes) == (2, 1, 1)
    assert [row.name for row in control.adapters()] == ["broken", "one", "two"]


def test_a_cancel_without_a_daemon_reaches_the_note(world: World) -> None:
    """What was queued when the daemon went away can be called off before it comes back."""
    world.request("Cat.md", "a red cat fake:slow=1")
    with served(world):
        until(lambda: world.status("Cat.md") in ("queued", "running"))
    control = Control(world.config, FAKE_ENGINE)
    assert len(control.queue()) == 1

    job = control.queue()[0].id
    assert "1 in the queue: name one, or say --all" in control.cancel(None).message
    assert control.queue()[0].id == job
    done = control.cancel("Cat.md")
    assert "Cancelled 1 block in Cat.md" in done.message
    assert done.jobs == (job,)

    assert control.queue() == []
    assert world.status("Cat.md") == "cancelled"


def test_two_daemons_are_one_too_many(world: World) -> None:
    with served(world):
        assert Control(world.config).daemon_pid() == os.getpid()
        with pytest.raises(AlreadyRunning) as refused:
            Control(world.config, FAKE_ENGINE).watch(threading.Event())
    assert refused.value.pid == os.getpid()
    assert Control(world.config).daemon_pid() is None


def fails(control: Control, world: World, *rels: str) -> None:
    """These notes ask for an adapter that is not there, ran, and failed."""
    for rel in rels:
        world.request(rel, "a red cat <lora:late:1>", run=False)
        assert control.run_note(rel, quiet).status == "failed"


class TestRetry:
    def test_one_deleted_note_keeps_no_other_from_it(self, control: Control, world: World) -> None:
        """The first note that was gone ended `retry` for all of them."""
        fails(control, world, "A.md", "B.md")
        world.adapter("late.safetensors")
        control.reindex(quiet)
        (world.vault / "A.md").unlink()

        views = {view.note: view for view in control.retry(None, quiet)}

        assert (views["A.md"].status, views["B.md"].status) == ("failed", "done")
        assert "There is no note A.md" in str(views["A.md"].message)

    @pytest.mark.parametrize("target", ["{}", "../out.md", "a/../../out.md", ".obsidian/x.md", "x" * 300])
    def test_it_stays_in_the_vault(self, control: Control, world: World, target: str) -> None:
        """`retry /abs/note.md` read a note outside; a long name was an OSError that ended the daemon."""
        outside = world.home / "out.md"
        outside.write_text("---\nloravault: generate\n---\n```prompt\na cat\n```\n")

        with pytest.raises(UserError):
            control.retry(target.format(outside), quiet)

        assert control.queue() == []
        with pytest.raises(UserError, match="Nothing has failed"):
            control.retry(None, quiet)


def test_a_command_that_breaks_does_not_end_the_daemon(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_self: Intake, _rel: str, _kind: str | None = None) -> str:
        raise ZeroDivisionError("a bug of ours")

    world.request("Cat.md", "a red cat", run=False)
    with served(world):
        control = Control(world.config, FAKE_ENGINE)
        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, "loravault"):
            patch.setattr(Intake, "start", broken)
            with pytest.raises(UserError, match=r"`run` failed in the daemon \(ZeroDivisionError: a bug of ours\)"):
                control.run_note("Cat.md", quiet)
        assert control.run_note("Cat.md", quiet).status == "done"
    assert any(record.exc_info for record in caplog.records)


def test_a_write_that_was_refused_before_is_tried_again_by_a_command(world: World) -> None:
    """What is told of an earlier write is no answer to this one."""
    world.request("Cat.md", "a red cat", run=False)
    daemon = world.daemon()
    daemon.tick()
    with daemon.ctx.index.session() as session:
        from loravault.index import notes

        row = notes.note_or_new(session, "Cat.md")
        row.write_problem = "it could not be written (Read-only file system)."
        session.add(row)
    daemon.ctx.deliver_later["Cat.md"] = float("inf")

    daemon.orders.obey("run", {"note": "Cat.md"})

    world.finish(daemon, "Cat.md")
    daemon.close()


class TestCancel:
    def test_without_a_target_only_the_note_that_is_running(self, world: World) -> None:
        """It cancelled everything, while its help said: the one that is running."""
        control = Control(world.config, FAKE_ENGINE)
        with served(world):
            world.request("A.md", "a red cat fake:slow=0.1", steps=100)
            until(lambda: [job.status for job in control.queue()] == ["running"])
            world.request("B.md", "a blue cat fake:slow=0.1", steps=100)
            until(lambda: len(control.queue()) == 2)

            view = control.cancel(None)

            assert "in A.md" in view.message
            assert len(view.jobs) == 1
            until(lambda: world.status("A.md") == "cancelled")
            assert [job.note for job in control.queue()] == ["B.md"]
            assert "in B.md" in control.cancel(None, everything=True).message
            until(lambda: control.queue() == [])


class TestUpgrade:
    """The worker is of another version than we are."""

    @pytest.fixture
    def executed(self, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
        calls: list[list[str]] = []
        monkeypatch.setenv("LORAVAULT_FAKE", "version")
        monkeypatch.setattr(os, "execv", lambda _path, arguments: calls.append(arguments))
        # set, then deleted: whatever the test leaves there is removed after it
        monkeypatch.setenv(control_module.RESTARTED, "")
        return calls

    def test_a_run_in_the_foreground_says_so(self, world: World, executed: list[list[str]]) -> None:
        """It printed `note: None`."""
        world.request("Cat.md", "a red cat", run=False)

        with pytest.raises(UserError, match="upgraded while this ran"):
            Control(world.config, FAKE_ENGINE).run_note("Cat.md", quiet)

        assert executed == []

    def test_the_daemon_restarts_once_and_then_tells_both_versions(
        self, world: World, executed: list[list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(control_module, "_installed_version", lambda: "9.9.9")
        world.request("Cat.md", "a red cat")
        control = Control(world.config, FAKE_ENGINE)

        control.watch(threading.Event())
        assert len(executed) == 1
        assert executed[0][:3] == [sys.executable, "-m", "loravault"]
        with pytest.raises(UserError, match=rf"The worker is loravault 9\.9\.9 and the daemon is {__version__}"):
            control.watch(threading.Event())

        assert len(executed) == 1

    def test_a_second_upgrade_of_a_long_lived_daemon_is_no_loop(
        self, world: World, executed: list[list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(control_module.RESTARTED, "0.0.1")
        world.request("Cat.md", "a red cat")

        Control(world.config, FAKE_ENGINE).watch(threading.Event())

        assert len(executed) == 1


def test_the_installed_version_is_asked_of_a_new_process() -> None:
    assert control_module._installed_version() == __version__


def test_the_last_runs_are_told_newest_first(control: Control, world: World) -> None:
    for rel in ("A.md", "B.md"):
        world.request(rel, "a red cat", run=False)
        control.run_note(rel, quiet)

    assert [(view.note, view.status) for view in control.last_runs()] == [("B.md", "done"), ("A.md", "done")]


def test_an_answer_that_could_not_be_written_is_said_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk at the wrong moment: the command was carried out, so it is neither repeated nor left unanswered."""

    def full(*_args: object) -> None:
        raise OperationalError("UPDATE", None, Exception("database or disk is full"))

    daemon = world.daemon()
    with daemon.ctx.index.session() as session:
        number = commands.ask(session, "cancel", {"target": "Cat"}, time.time())
    with monkeypatch.context() as patch:
        patch.setattr(commands, "answer", full)
        with pytest.raises(OperationalError):
            daemon.orders.step()

    daemon.orders.step()

    with daemon.ctx.index.session() as session:
        row = commands.command(session, number)
    assert row is not None
    assert row.state == "done"
    daemon.close()


def test_damage_is_left_to_whoever_can_mend_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = world.daemon()
    for error, raised in ((DatabaseError, True), (OperationalError, False)):
        problem = error("SELECT", None, Exception("malformed" if raised else "database is locked"))

        def broken(_kind: str, _args: object, problem: DatabaseError = problem) -> None:
            raise problem

        monkeypatch.setattr(daemon.orders, "obey", broken)
        with daemon.ctx.index.session() as session:
            commands.ask(session, "reindex", {}, time.time())
        with pytest.raises(DatabaseError) if raised else contextlib.nullcontext():
            daemon.orders.step()
    daemon.close()
