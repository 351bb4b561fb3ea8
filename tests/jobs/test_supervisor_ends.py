"""How a worker ends: dead, hung, cancelled, idle, closed or orphaned; one answer per job all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loravault.errors import UserError
from loravault.jobs.events import (
    Finished,
    JobCancelled,
    PhaseChanged,
    Started,
    Stepped,
    WorkerDied,
)
from tests.jobs.supervising import ROOT, answer, gone, run, spec, supervisor, until, wait_gone


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("die", "killed, most likely because memory ran out in the phase “draw”"),
        ("segv", "segmentation fault"),
        ("exit", "left in the phase “draw” without an answer"),
        ("half", "half a line"),
        ("garbage", "not a message: 'loading"),
        ("long", "a line of more than 8388608 bytes"),
        ("stranger", "'somebody-else', which it was not given"),
    ],
)
def test_death_and_nonsense_are_told_and_the_next_job_runs(mode: str, words: str, tmp_path: Path) -> None:
    with supervisor() as boss:
        began = time.monotonic()
        died = run(boss, f"fake:{mode}", tmp_path)[-1]
        assert isinstance(died, WorkerDied)
        assert died.job == "j1"
        assert words in died.reason
        assert isinstance(run(boss, "a cat", tmp_path, "j2")[-1], Finished)
        assert time.monotonic() - began < 5


def test_a_line_of_100_mb_costs_no_memory(tmp_path: Path) -> None:
    import resource

    with supervisor() as boss:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run(boss, "fake:long", tmp_path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024


@pytest.mark.parametrize("mode", ["hang", "stop"])
def test_a_worker_that_stands_still_is_killed_after_its_deadline(mode: str, tmp_path: Path) -> None:
    with supervisor(env={"LORAVAULT_FAKE_DEADLINE_S": "0.2"}) as boss:
        boss.start_job("j1", spec(f"fake:{mode}"), tmp_path)
        events = until(boss, answer)
        died = events[-1]
        assert isinstance(died, WorkerDied)
        assert "hung in the phase “draw”" in died.reason
        assert boss.pid is None
        started = next(event for event in events if isinstance(event, Started))
        until_gone = time.monotonic() + 3
        while not gone(started.pid):
            boss.poll()
            assert time.monotonic() < until_gone
            time.sleep(0.01)


def test_a_busy_worker_is_never_killed_however_late_it_is(tmp_path: Path) -> None:
    with supervisor(env={"LORAVAULT_FAKE_DEADLINE_S": "0.06"}, stall_s=0.25) as boss:
        events = run(boss, "fake:spin", tmp_path, steps=1)
        assert isinstance(events[-1], Finished)


def test_without_a_hello_the_worker_is_given_up(tmp_path: Path) -> None:
    with supervisor(env={"LORAVAULT_FAKE": "mute"}, start_deadline_s=0.2) as boss:
        died = run(boss, "a cat", tmp_path)[-1]
        assert isinstance(died, WorkerDied)
        assert "phase “start”" in died.reason


def test_a_worker_that_cannot_start_says_its_last_words(tmp_path: Path) -> None:
    with supervisor(env={"LORAVAULT_FAKE": "crash"}) as boss:
        died = run(boss, "a cat", tmp_path)[-1]
        assert isinstance(died, WorkerDied)
        assert "exit code 1: ImportError: no module named torch" in died.reason


def test_a_command_that_does_not_exist_is_a_sentence(tmp_path: Path) -> None:
    with (
        supervisor(command=["/no/such/python"]) as boss,
        pytest.raises(UserError, match="could not be started: No such"),
    ):
        boss.start_job("j1", spec(), tmp_path)


def test_a_worker_that_ignores_a_cancel_is_ended(tmp_path: Path) -> None:
    with supervisor(cancel_grace_s=0.2) as boss:
        boss.start_job("j1", spec("fake:deaf fake:slow=0.05", steps=1000), tmp_path)
        until(boss, lambda event: isinstance(event, Stepped))
        boss.cancel("j1")
        assert isinstance(until(boss, answer)[-1], JobCancelled)
        assert boss.pid is None


def test_an_idle_worker_leaves_and_the_next_job_gets_a_new_one(tmp_path: Path) -> None:
    with supervisor(idle_exit_s=0.1) as boss:
        run(boss, "a cat", tmp_path)
        pid = boss.pid
        assert pid is not None
        due = boss.due_in()
        assert due is not None
        assert due <= 0.1
        time.sleep(0.12)
        assert boss.poll() == []
        assert boss.pid is None
        wait_gone(pid, 2.0)
        while boss.due_in() is not None:
            boss.poll()
            time.sleep(0.01)
        assert isinstance(run(boss, "a cat", tmp_path, "j2")[-1], Finished)


def test_an_idle_worker_that_dies_is_told_without_a_job(tmp_path: Path) -> None:
    with supervisor() as boss:
        run(boss, "a cat", tmp_path)
        assert boss.pid is not None
        os.kill(boss.pid, signal.SIGKILL)
        died = until(boss, answer)[-1]
        assert isinstance(died, WorkerDied)
        assert died.job is None


def test_close_ends_a_busy_worker(tmp_path: Path) -> None:
    with supervisor() as boss:
        boss.start_job("j1", spec("fake:slow=5"), tmp_path)
        until(boss, lambda event: isinstance(event, PhaseChanged))
        pid = boss.pid
        assert pid is not None
        began = time.monotonic()
        boss.close()
        assert time.monotonic() - began < 3
        assert gone(pid)
        assert boss.poll() == []


def test_close_ends_a_stopped_worker(tmp_path: Path) -> None:
    with supervisor() as boss:
        run(boss, "a cat", tmp_path)
        pid = boss.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        boss.close(timeout_s=0.2)
        assert gone(pid)


ORPHAN = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.jobs.supervising import FAKE, spec, ROOT
from loravault.jobs.supervisor import Supervisor
import os
boss = Supervisor(FAKE, {**os.environ, "PYTHONPATH": str(ROOT)})
boss.start_job("j1", spec("fake:slow=0.02", steps=100000), Path(sys.argv[2]))
while not any(type(event).__name__ == "Stepped" for event in boss.poll()):
    time.sleep(0.01)
print(boss.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_the_worker_of_a_killed_daemon_is_gone_within_two_seconds(stopped: bool, tmp_path: Path) -> None:
    """kill -9 of the daemon while a job runs; on Linux even a stopped worker goes, by the parent-death signal."""
    command = [sys.executable, "-c", ORPHAN, str(ROOT), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        pid = int(daemon.stdout.readline())
        if stopped:
            os.kill(pid, signal.SIGSTOP)
        daemon.kill()
        daemon.wait()
        wait_gone(pid, 2.0)
