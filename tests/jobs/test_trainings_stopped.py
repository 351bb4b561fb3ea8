"""A training that something stops with a fake engine: what stays, and that it goes on from there."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from loravault import failpoints
from loravault.daemon import Daemon
from loravault.failpoints import NAMES
from tests.jobs.test_path import retick, running
from tests.jobs.training_notes import NOTE, adapter_files, ask, check_pictures, lines, regions, trained
from tests.world import World


def test_cancel_keeps_what_was_learned_and_the_next_tick_goes_on(world: World, monkeypatch: Any) -> None:
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.03")
    note = ask(world, steps=80)
    with running(world) as daemon:
        world.work(daemon, lambda: ("plan", False) in regions(world))
        world.work(daemon, lambda: any(step >= 10 for step in daemon.dispatcher.trainings.reached.values()))
        note.write_bytes(note.read_bytes().replace(b"run: false", b"run: false\ncancel: true"))
        world.work(daemon, lambda: world.status(NOTE) == "cancelled")
        said = lines(world)
        assert "was stopped at step" in said
        assert "tick `run` and it goes on from there" in said
        [state] = (world.config.state_dir / "training").glob("*/state.json")
        kept = json.loads(state.read_text())["step"]
        assert kept >= 10
        retick(world, NOTE)
        steps: list[str] = []
        daemon.ctx.listeners.append(lambda event: steps.append(event.text) if event.kind == "progress" else None)
        world.finish(daemon, NOTE, timeout=30)
    assert regions(world) == [("result", False)], "the answer of the stopped one has given way"
    assert steps[0].startswith(f"step {kept + 1} of 80, loss "), "nothing is learned twice"


def test_a_stopped_daemon_goes_on_where_it_was(world: World, monkeypatch: Any) -> None:
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.03")
    ask(world, steps=60)
    with running(world) as daemon:
        world.work(daemon, lambda: any(step >= 5 for step in daemon.dispatcher.trainings.reached.values()))
    steps: list[str] = []
    with running(world) as daemon:
        daemon.ctx.listeners.append(lambda event: steps.append(event.text) if event.kind == "progress" else None)
        world.finish(daemon, NOTE)
    assert int(steps[0].split()[1]) > 5
    assert trained(world) == ["my-cat"]


def test_a_worker_that_dies_while_it_makes_progress_is_no_failure(world: World, monkeypatch: Any) -> None:
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.02")
    ask(world, steps=100)
    kills = 0
    with running(world) as daemon:
        last = 0

        def killed_often() -> bool:
            nonlocal kills, last
            at = max(daemon.dispatcher.trainings.reached.values(), default=0)
            pid = daemon.dispatcher.lanes[0].supervisor.pid
            if kills < 6 and at >= last + 5 and pid is not None and daemon.dispatcher.trainings.reached:
                os.kill(pid, signal.SIGKILL)
                kills, last = kills + 1, at
            return world.is_answered(NOTE)

        world.work(daemon, killed_often, timeout=60)
    assert kills == 6
    assert world.status(NOTE) == "done"
    assert regions(world) == [("result", False)]


def test_a_worker_that_always_dies_at_the_same_step_fails_in_words(world: World) -> None:
    ask(world, class_word="fake:die")
    with running(world) as daemon:
        world.finish(daemon, NOTE, timeout=40)
    assert world.status(NOTE) == "failed"
    assert "never came to its end" in lines(world)


def test_a_loras_folder_that_is_away_keeps_the_adapter_and_says_so(world: World, monkeypatch: Any) -> None:
    from loravault.jobs import trainings

    monkeypatch.setattr(trainings, "RETRY_S", 0.2)
    ask(world)
    away = world.loras.with_name("away")
    world.loras.rename(away)
    with running(world) as daemon:
        world.work(daemon, lambda: any(key.startswith("training.") for key in daemon.ctx.troubles))
        assert "It is kept" in " ".join(daemon.ctx.troubles.values())
        away.rename(world.loras)
        world.finish(daemon, NOTE)
        assert not any(key.startswith("training.") for key in daemon.ctx.troubles)
    assert trained(world) == ["my-cat"]
    assert adapter_files(world) == ["Characters/my-cat.safetensors"]


class Crash(BaseException):
    """Stands for the end of the process."""


def crash_at(point: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon works until it comes there for the first time."""

    def crash(name: str) -> None:
        if name == point:
            patched.setattr(failpoints, "hook", None)
            raise Crash

    daemon = world.daemon()
    with monkeypatch.context() as patched:
        patched.setattr(failpoints, "hook", crash)
        with pytest.raises(Crash):
            world.finish(daemon, NOTE)
    _abandon(daemon)


TRAINING_POINTS = [name for name in NAMES if name.startswith("training.")]


@pytest.mark.parametrize("point", TRAINING_POINTS)
def test_a_daemon_that_ends_at_a_commit_point_answers_once_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """In one process, so fast; tests/faults kills a real one at the same points."""
    ask(world)
    crash_at(point, world, monkeypatch)
    with running(world) as again:
        world.finish(again, NOTE)
    assert world.status(NOTE) == "done"
    assert regions(world) == [("result", False)]
    assert adapter_files(world) == ["Characters/my-cat.safetensors"]
    if point != "training.planned":
        assert trained(world) == ["my-cat"], "nothing is trained twice"
    check_pictures(world)


def test_a_lost_index_costs_no_answer_and_no_second_adapter(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(world)
    crash_at("training.placed", world, monkeypatch)
    for path in world.config.state_dir.glob("index.sqlite*"):
        path.unlink()
    with running(world) as again:
        world.finish(again, NOTE)
    assert trained(world) == ["my-cat"]
    assert adapter_files(world) == ["Characters/my-cat.safetensors"]
    assert regions(world) == [("result", False)]


def _abandon(daemon: Daemon) -> None:
    """As a crash leaves it: nothing is put in order, but what holds the vault is gone."""
    daemon.dispatcher.lanes[0].supervisor.close()
    daemon.keepers.close()
    daemon.ctx.index.close()
    assert daemon._lock is not None
    daemon._lock.release()
