"""The command line's door: the same answers beside a running daemon and without one."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from loravault.control import Control
from loravault.errors import AlreadyRunning, UserError
from loravault.jobs.context import Event
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
    assert "nothing to cancel" in control.cancel(None)
    assert "for Cat" in control.cancel("Cat")


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

    assert "Cancelled 1 block in Cat.md" in control.cancel("Cat.md")

    assert control.queue() == []
    assert world.status("Cat.md") == "cancelled"


def test_two_daemons_are_one_too_many(world: World) -> None:
    with daemon(world):
        assert Control(world.config).daemon_pid() == os.getpid()
        with pytest.raises(AlreadyRunning) as refused:
            Control(world.config, FAKE_ENGINE).watch(threading.Event())
    assert refused.value.pid == os.getpid()
    assert Control(world.config).daemon_pid() is None
