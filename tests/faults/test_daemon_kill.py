"""Q1, Q3: kill -9 of the daemon at every commit point and at random, kill -9 of the worker: answered exactly once.

The twin that must be caught delivers without looking whether the answer already stands in the note.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loravault import failpoints
from loravault.vault.answers import Applied, strip_ours
from loravault.vault.note import parse_note
from tests.world import World

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

#: Points that a plain answer never passes: a ledger is rewritten when it is large (test_ledger kills there), many files
#: are made at once for cards and pages (tests/vault/test_bulk kills there), files are moved when a person asks for it
#: (tests/keeping/test_trash kills there), and adapters are trained (test_training_kill).
NOT_ON_THIS_PATH = frozenset(
    {"ledger.rewritten", "bulk.written", "bulk.synced", "bulk.linked", "move.intent", "move.renamed", "move.synced"}
    | {name for name in failpoints.NAMES if name.startswith("training.")}
)

COMMIT_POINTS = [name for name in failpoints.NAMES if name not in NOT_ON_THIS_PATH]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("LORAVAULT_CRASH_AT", raising=False)
    return World(tmp_path)


def serve(world: World, crash_at: str = "") -> subprocess.Popen[bytes]:
    env = {**os.environ, "LORAVAULT_CRASH_AT": crash_at}
    root = Path(__file__).parents[2]
    return subprocess.Popen([sys.executable, "-m", "tests.faults.served", str(world.home)], cwd=root, env=env)


def finish(world: World) -> None:
    process = serve(world)
    assert process.wait(timeout=180) == 0, world.story()


def check(world: World, originals: dict[str, bytes], blocks: int) -> None:
    """Every block of every request has exactly one answer: its pictures; and no byte of the user's changed."""
    pictures = 0
    for rel, before in originals.items():
        data = (world.vault / rel).read_bytes()
        note = parse_note(data)
        assert [region.fence_index for region in note.regions] == list(range(blocks)), f"{rel}\n{data.decode()}"
        assert all(region.intact for region in note.regions)
        assert {region.kind for region in note.regions} == {"result"}, "killing the daemon fails no request"
        assert strip_ours(data) == strip_ours(before)
        for region in note.regions:
            for name in (line.split("|")[0][3:] for line in region.lines if line.startswith("![[")):
                assert (world.vault / name).is_file(), f"{rel} names {name}"
                pictures += 1
    made = list((world.vault / "LoraVault" / "Images").rglob("lv-*"))
    assert len(made) == pictures, "a second try leaves no second picture"
    assert not list(world.vault.rglob(".lv-*")), "no temp is left"


def ask(world: World, count: int, blocks: int, prefix: str = "Note") -> dict[str, bytes]:
    prompts = [f"a red cat number {n}" for n in range(blocks)]
    paths = [world.request(f"{prefix} {n}.md", *prompts, seed=n) for n in range(count)]
    return {path.name: path.read_bytes() for path in paths}


@pytest.mark.parametrize("point", COMMIT_POINTS)
def test_a_kill_at_a_commit_point_loses_and_doubles_nothing(world: World, point: str) -> None:
    originals = ask(world, 2, 2)
    crashed = serve(world, crash_at=point).wait(timeout=180)
    assert crashed in (-signal.SIGKILL, 0)
    reached = crashed == -signal.SIGKILL
    finish(world)
    check(world, originals, 2)
    assert reached, f"{point} was never reached: the harness proves nothing about it"


def test_thirty_random_kills_of_the_daemon(world: World) -> None:
    """At moments all over the length of one undisturbed run, however fast this machine is."""
    chance = random.Random(11)
    originals = ask(world, 2, 2, prefix="Round 0")
    began = time.monotonic()
    assert serve(world).wait(timeout=180) == 0
    length = time.monotonic() - began
    kills, number = 0, 1
    while kills < 30:
        originals |= ask(world, 2, 2, prefix=f"Round {number}")
        number += 1
        process = serve(world)
        try:
            process.wait(timeout=chance.uniform(0.3, 1.1) * length)
        except subprocess.TimeoutExpired:
            process.kill()
            kills += 1
        process.wait()
    finish(world)
    check(world, originals, 2)


def test_thirty_random_kills_of_the_worker(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose worker dies is tried again, at most twice, then answered in words: one answer in any case."""
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.02")
    chance = random.Random(12)
    originals = ask(world, 12, 2)
    daemon = world.daemon()
    kills = 0
    next_kill = time.monotonic()
    give_up = time.monotonic() + 300
    try:
        while kills < 30 or not all(world.is_answered(rel) for rel in originals):
            assert time.monotonic() < give_up, world.story()
            if kills < 30 and all(world.is_answered(rel) for rel in originals):
                originals |= ask(world, 6, 2, prefix=f"More {kills}")
            daemon.tick()
            pid = daemon.dispatcher.lanes[0].supervisor.pid
            if kills < 30 and pid is not None and time.monotonic() >= next_kill:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                kills += 1
                next_kill = time.monotonic() + chance.uniform(0.05, 0.8)
            time.sleep(0.005)
    finally:
        daemon.close()
    for rel in originals:
        note = parse_note((world.vault / rel).read_bytes())
        assert [region.fence_index for region in note.regions] == [0, 1], world.read(rel)


def test_teeth_a_delivery_that_does_not_look_first_is_caught(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin appends its answer without asking whether it is there; a kill after the write must show it twice."""
    from loravault.index import work
    from loravault.jobs import pending

    originals = ask(world, 1, 1)
    finish(world)
    daemon = world.daemon()
    with daemon.ctx.index.session() as session:  # as a kill between the write and its row leaves it
        for run in work.last_runs(session, 9):
            run.closed, run.status = False, None
            session.add_all([run, *work.jobs_of(session, run.id)])
            for job in work.jobs_of(session, run.id):
                job.delivered = False
    daemon.close()

    honest = pending.apply_answers_told

    def careless(data: bytes, answers: object, *args: object, **kwargs: object) -> Applied:
        renamed = [pending.Answer(**{**vars(answer), "job": f"{answer.job[:6]}ff"}) for answer in answers]  # type: ignore[attr-defined]
        return honest(data, renamed, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(pending, "apply_answers_told", careless)
    daemon = world.daemon()
    try:
        world.work(daemon, lambda: not daemon.ctx.to_deliver and daemon.dispatcher.job is None)
    finally:
        daemon.close()
    with pytest.raises(AssertionError):
        check(world, originals, 1)


@pytest.mark.parametrize("point", [name for name in COMMIT_POINTS if name.startswith(("intake", "job", "deliver"))])
def test_a_worker_killed_at_a_commit_point_of_the_daemon_loses_and_doubles_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    originals = ask(world, 1, 2)
    daemon = world.daemon()
    reached: list[str] = []

    def kill(name: str) -> None:
        if name == point and len(reached) < 2:
            reached.append(name)
            pid = daemon.dispatcher.lanes[0].supervisor.pid
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):  # two answers may be handled in one go
                    os.kill(pid, signal.SIGKILL)

    monkeypatch.setattr(failpoints, "hook", kill)
    try:
        world.finish(daemon, *originals, timeout=60)
    finally:
        daemon.close()
    assert reached
    check(world, originals, 2)
