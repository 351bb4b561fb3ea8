"""kill -9 in the middle of a training, the index kept or lost: one adapter, one answer, and nothing trained twice.

The twin that must be caught forgets what the worker has made.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loravault import failpoints
from loravault.vault.answers import strip_ours
from tests.faults.test_daemon_kill import finish, serve
from tests.jobs.training_notes import adapter_files, ask, check_pictures, regions, trained
from tests.world import World

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

REL = "My cat.md"
TRAINING = tuple(name for name in failpoints.NAMES if name.startswith("training."))
POINTS = (
    "intake.recorded", "job.claimed", "job.begun", *TRAINING, "job.finished", "deliver.before-note",
    "deliver.before-note:2", "deliver.before-note:3", "deliver.after-note:2", "deliver.after-note:3",
    "deliver.after-close:2", "deliver.after-close:3", "write.exchanged:2", "write.exchanged:3",
)  # fmt: skip
#: Up to here a worker may have been at it without anybody having written down what it made.
BEFORE_IT_IS_MADE = ("intake.recorded", "job.claimed", "job.begun", "training.planned", "deliver.before-note")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("LORAVAULT_CRASH_AT", raising=False)
    # slow enough that the plan stands in the note before the end
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.02")
    return World(tmp_path)


def check(world: World, before: bytes) -> None:
    assert world.status(REL) == "done", world.read(REL)
    assert regions(world, REL) == [("result", False)], world.read(REL)
    assert adapter_files(world) == ["Characters/my-cat.safetensors"]
    assert strip_ours((world.vault / REL).read_bytes()) == strip_ours(before)
    check_pictures(world, REL)
    assert len(list((world.vault / "LoraVault" / "Images").rglob("lv-2*"))) == 3, "a sample, the strip, the plot"


@pytest.mark.parametrize("lost", [False, True], ids=["index-kept", "index-lost"])
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_loses_and_doubles_no_adapter(world: World, point: str, lost: bool) -> None:
    before = ask(world, REL, steps=40).read_bytes()
    assert serve(world, crash_at=point).wait(timeout=120) == -signal.SIGKILL, f"{point} was never reached"
    if lost:
        for path in world.config.state_dir.glob("index.sqlite*"):
            path.unlink()
    finish(world)
    check(world, before)
    if point.partition(":")[0] not in BEFORE_IT_IS_MADE:
        assert trained(world) == ["my-cat"]


def test_twenty_random_kills_of_the_daemon(world: World) -> None:
    """A training that is killed again and again goes on from its state: it is no failure as long as it gets further."""
    chance = random.Random(21)
    before = ask(world, REL, steps=400).read_bytes()
    kills = 0
    while kills < 20:
        process = serve(world)
        try:
            process.wait(timeout=chance.uniform(0.8, 2.2))
            break
        except subprocess.TimeoutExpired:
            process.kill()
            kills += 1
            process.wait()
    assert kills >= 5, "it was over too soon to prove anything"
    finish(world)
    check(world, before)


def test_twenty_random_kills_of_the_worker(world: World) -> None:
    chance = random.Random(22)
    before = ask(world, REL, steps=300).read_bytes()
    daemon = world.daemon()
    kills, last, wait = 0, 0, 1
    give_up = time.monotonic() + 300
    try:
        while not world.is_answered(REL):
            assert time.monotonic() < give_up, world.story()
            daemon.tick()
            at = max(daemon.dispatcher.trainings.reached.values(), default=0)
            pid = daemon.dispatcher.lanes[0].supervisor.pid
            if kills < 20 and pid is not None and at >= last + wait:  # three without any step would be a failure
                os.kill(pid, signal.SIGKILL)
                kills, last, wait = kills + 1, at, chance.randint(1, 14)
            time.sleep(0.005)
    finally:
        daemon.close()
    assert kills >= 5
    check(world, before)


def test_teeth_one_that_forgets_what_was_made_trains_twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from loravault.jobs.trainings import Trainings

    before = ask(world, REL, steps=10).read_bytes()
    assert serve(world, crash_at="training.made").wait(timeout=120) == -signal.SIGKILL
    monkeypatch.setattr(Trainings, "take_up", lambda _self, _job: False)
    daemon = world.daemon()
    try:
        world.finish(daemon, REL)
    finally:
        daemon.close()
    assert trained(world) == ["my-cat", "my-cat"], "the harness would see it"
    check(world, before)
