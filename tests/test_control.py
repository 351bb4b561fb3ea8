"""The command line's door: the same answers beside a running daemon and without one."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import DatabaseError, OperationalError

from loravault import __version__, following
from loravault import control as control_module
from loravault import daemon as daemon_module
from loravault.control import Control, JobView
from loravault.errors import AlreadyRunning, UserError
from loravault.index import commands
from loravault.index.database import Index
from loravault.jobs.context import Event
from loravault.jobs.intake import Intake
from loravault.jobs.orders import Orders
from tests.world import FAKE_ENGINE, World

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    return World(tmp_path)


@contextlib.contextmanager
def daemon(world: World) -> Iterator[None]:
    """A daemon in a thread of its own, until the block ends."""
    stop, opened = threading.Event(), threading.Event()
    control = Control(world.config, FAKE_ENGINE)
    thread = threading.Thread(target=control.watch, args=(stop, opened.set))
    thread.start()
    try:
        assert opened.wait(30)
        yield
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()


@contextlib.contextmanager
def nobody(_world: World) -> Iterator[None]:
    yield


@pytest.fixture(params=[nobody, daemon], ids=["alone", "beside a daemon"])
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
        control.run_note("Plain.md", lambda _event: None)
    with pytest.raises(UserError, match=r"There is no note Nobody\.md"):
        control.run_note("Nobody.md", lambda _event: None)


def test_retry_runs_what_failed_and_says_when_nothing_did(control: Control, world: World) -> None:
    with pytest.raises(UserError, match="Nothing has failed"):
        control.retry(None, lambda _event: None)
    world.request("Cat.md", "a red cat <lora:late:1>", run=False)
    assert control.run_note("Cat.md", lambda _event: None).status == "failed"
    world.adapter("late.safetensors")
    control.reindex(lambda _event: None)

    views = control.retry(None, lambda _event: None)

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

    view = control.reindex(lambda _event: None)

    assert (view.adapters, view.broken, view.notes) == (2, 1, 1)
    assert [row.name for row in control.adapters()] == ["broken", "one", "two"]


def test_a_cancel_without_a_daemon_reaches_the_note(world: World) -> None:
    """What was queued when the daemon went away can be called off before it comes back."""
    world.request("Cat.md", "a red cat fake:slow=1")
    with daemon(world):
        for _ in range(400):
            if world.status("Cat.md") in ("queued", "running"):
                break
            threading.Event().wait(0.05)
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
    with daemon(world):
        assert Control(world.config).daemon_pid() == os.getpid()
        with pytest.raises(AlreadyRunning) as refused:
            Control(world.config, FAKE_ENGINE).watch(threading.Event())
    assert refused.value.pid == os.getpid()
    assert Control(world.config).daemon_pid() is None


def quiet(_event: Event) -> None:
    pass


def until(what: Callable[[], bool], timeout: float = 20.0) -> None:
    """Wait until something is so."""
    give_up = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < give_up
        time.sleep(0.02)


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
    def broken(_self: Intake, _rel: str) -> str:
        raise ZeroDivisionError("a bug of ours")

    world.request("Cat.md", "a red cat", run=False)
    with daemon(world):
        control = Control(world.config, FAKE_ENGINE)
        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, "loravault"):
            patch.setattr(Intake, "start", broken)
            with pytest.raises(UserError, match=r"`run` failed in the daemon \(ZeroDivisionError: a bug of ours\)"):
                control.run_note("Cat.md", quiet)
        assert control.run_note("Cat.md", quiet).status == "done"
    assert any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("beside", [nobody, daemon], ids=["alone", "beside a daemon"])
def test_a_note_that_cannot_be_written_ends_the_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch, beside: Callable[[World], contextlib.AbstractContextManager[None]]
) -> None:
    """`run` hung for ever, without a word where there is no terminal."""
    monkeypatch.setattr(following, "STUCK_S", 0.3)
    monkeypatch.setattr(control_module, "STUCK_S", 0.3)
    world.request("Cat.md", "a red cat fake:slow=0.1", run=False, steps=8)
    note = world.vault / "Cat.md"

    def gone_while_it_runs(_event: Event) -> None:
        note.unlink(missing_ok=True)

    with beside(world), pytest.raises(UserError, match=r"Cat\.md: (the note is gone|it could not be written)"):
        Control(world.config, FAKE_ENGINE).run_note("Cat.md", gone_while_it_runs)


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


def test_a_locked_index_does_not_end_a_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.request("Cat.md", "a red cat", run=False)
    look = following.Runs.look
    tries: list[int] = []

    def locked_at_first(self: following.Runs, session: object) -> bool:
        tries.append(1)
        if len(tries) < 3:
            raise OperationalError("SELECT", None, Exception("database is locked"))
        return look(self, session)  # type: ignore[arg-type]

    monkeypatch.setattr(following.Runs, "look", locked_at_first)
    monkeypatch.setattr(daemon_module, "TROUBLE_S", 0.05)

    assert Control(world.config, FAKE_ENGINE).run_note("Cat.md", quiet).status == "done"


class TestCancel:
    def test_without_a_target_only_the_note_that_is_running(self, world: World) -> None:
        """It cancelled everything, while its help said: the one that is running."""
        control = Control(world.config, FAKE_ENGINE)
        with daemon(world):
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


class TestAsking:
    """A daemon that holds the vault and does not obey."""

    @pytest.fixture
    def deaf(self, world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
        monkeypatch.setattr(Orders, "step", lambda _self: None)
        with daemon(world):
            yield Control(world.config, FAKE_ENGINE)

    def left(self, world: World) -> int:
        index = Index(world.config.state_dir / "index.sqlite", may_rebuild=False)
        with index.session() as session:
            count = len(commands.new_commands(session))
        index.close()
        return count

    def test_a_command_that_nobody_waits_for_is_not_obeyed_later(
        self, deaf: Control, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(following, "ANSWER_S", 0.3)

        with pytest.raises(UserError, match=r"taken back.*terminal \(or the log\) of `loravault watch`") as error:
            deaf.cancel("Cat")

        assert str(world.config.state_dir / "worker.log") in error.value.message
        assert self.left(world) == 0

    def test_ctrl_c_takes_it_back(self, deaf: Control, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        def ctrl_c(_seconds: float) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(following, "time", type("Clock", (), {**vars(time), "sleep": staticmethod(ctrl_c)}))
            with pytest.raises(KeyboardInterrupt, match="taken back"):
                deaf.reindex(quiet)

        assert self.left(world) == 0

    def test_a_daemon_that_stops_is_told_as_it_fits_the_command(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`cancel` said: The request is kept. It was not, and it was no request."""
        monkeypatch.setattr(Orders, "step", lambda _self: None)
        monkeypatch.setattr(following, "RESTART_S", 0.1)
        control = Control(world.config, FAKE_ENGINE)
        said: list[str] = []

        def ask() -> None:
            with pytest.raises(UserError) as error:
                control.cancel(None)
            said.append(error.value.message)

        with daemon(world):
            asker = threading.Thread(target=ask)
            asker.start()
            until(lambda: self.left(world) == 1)
        asker.join(20)

        assert said == ["The daemon has stopped. The command was not taken and does not wait: give it again."]
        assert self.left(world) == 0

    def test_an_index_that_is_gone_is_told_in_seconds(
        self, deaf: Control, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It waited two minutes beside a new, empty index of its own making."""
        monkeypatch.setattr(following, "INDEX_S", 0.2)
        monkeypatch.setattr(Index, "is_replaced", lambda _self: False)
        until((world.vault / "LoraVault" / "LoraVault.md").exists)  # its first look at the index is over
        path = world.config.state_dir / "index.sqlite"
        hidden = path.rename(path.with_suffix(".hidden"))
        try:
            with pytest.raises(UserError, match="is not there: stop `loravault watch` and start it again"):
                following.Asking(world.config).ask("cancel", target=None)
            assert not path.exists()
        finally:
            hidden.rename(path)

    def test_a_command_that_was_taken_back_meanwhile_is_not_obeyed(self, world: World) -> None:
        daemon = world.daemon()
        with daemon.ctx.index.session() as session:
            number = commands.ask(session, "nonsense", {}, time.time())
            row = commands.command(session, number)
            session.delete(row)

        daemon.orders._take(number)  # it was on the list of what waits

        with daemon.ctx.index.session() as session:
            assert commands.command(session, number) is None
        daemon.close()


def test_looking_makes_no_index_and_moves_none(world: World) -> None:
    control = Control(world.config, FAKE_ENGINE)

    assert (control.queue(), control.last_runs(), control.adapters()) == ([], [], [])

    assert not (world.config.state_path / "index.sqlite").exists()


def test_a_damaged_index_is_told_by_who_only_looks(world: World) -> None:
    """`loravault queue` renamed the index of the running daemon."""
    path = world.config.state_dir / "index.sqlite"
    path.write_bytes(b"no database" * 1000)

    with pytest.raises(UserError, match="is damaged"):
        Control(world.config, FAKE_ENGINE).queue()

    assert path.read_bytes() == b"no database" * 1000


def test_an_open_queue_opens_the_index_once_and_finds_a_new_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    control = Control(world.config, FAKE_ENGINE)
    opened: list[Index] = []

    class Counted(Index):
        def __init__(self, path: Path, *, may_rebuild: bool = True) -> None:
            super().__init__(path, may_rebuild=may_rebuild)
            opened.append(self)

    monkeypatch.setattr(following, "Index", Counted)
    path = world.config.state_dir / "index.sqlite"
    with control.open_queue() as queue:
        nothing: list[JobView] = []
        assert (queue(), opened) == (nothing, [])
        Index(path).close()
        assert [queue() for _ in range(3)] == [nothing] * 3
        assert len(opened) == 1
        for part in path.parent.glob("index.sqlite*"):
            part.unlink()
        Index(path).close()
        assert queue() == nothing
        assert len(opened) == 2


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
