"""Beside a daemon: a command that is given and not taken, and a run that is followed to its end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from loravault import control as control_module
from loravault import daemon as daemon_module
from loravault import following
from loravault.control import Control, JobView
from loravault.errors import UserError
from loravault.index import commands
from loravault.index.database import Index
from loravault.jobs.context import Event
from loravault.jobs.orders import Orders
from tests.world import FAKE_ENGINE, World, nobody, quiet, served, until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    return World(tmp_path)


@pytest.mark.parametrize("beside", [nobody, served], ids=["alone", "beside a daemon"])
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


class TestAsking:
    """A daemon that holds the vault and does not obey."""

    @pytest.fixture
    def deaf(self, world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
        monkeypatch.setattr(Orders, "step", lambda _self: None)
        with served(world):
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

        with served(world):
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
