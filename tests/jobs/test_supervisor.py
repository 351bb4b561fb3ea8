"""The supervisor against a fake worker that dies, hangs and lies: one answer per job, and nothing blocks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from loravault import __version__
from loravault.errors import UserError
from loravault.formats.generation import AdapterUse, BaseRef, GenerationSpec
from loravault.formats.outcome import Provenance
from loravault.jobs import protocol
from loravault.jobs.events import (
    Event,
    Finished,
    JobCancelled,
    JobFailed,
    PhaseChanged,
    Started,
    Stepped,
    VersionMismatch,
    WorkerDied,
)
from loravault.jobs.supervisor import Supervisor
from loravault.library.imagemeta import read_meta

ROOT = Path(__file__).parents[2]
FAKE = [sys.executable, str(ROOT / "tests" / "fakes" / "engine_child.py")]


def spec(prompt: str = "a cat", *, seeds: tuple[int, ...] = (1,), steps: int = 4, **more: Any) -> GenerationSpec:
    base = BaseRef(name="demo", path="/nowhere", family="demo")
    values: dict[str, Any] = {"base": base, "width": 16, "height": 16, "cfg": 7.0, "sampler": "Euler", **more}
    return GenerationSpec(prompt=prompt, seeds=seeds, steps=steps, **values)


@contextmanager
def supervisor(
    *, env: dict[str, str] | None = None, command: list[str] | None = None, **more: Any
) -> Iterator[Supervisor]:
    """A supervisor of the fake that does not wait long for anything."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    more = {"stall_s": 0.15, "term_grace_s": 0.2, **more}
    made = Supervisor(command or FAKE, environment, **more)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Supervisor]:
    """One worker for the tests that do it no harm: starting one costs 0.1 s."""
    with supervisor() as made:
        yield made


def until(
    boss: Supervisor,
    enough: Callable[[Event], bool],
    seconds: float = 20.0,
    doing: Callable[[Event], None] | None = None,
) -> list[Event]:
    """Polls until an event is `enough`; returns all of them."""
    events: list[Event] = []
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        new = boss.poll()
        events += new
        for event in new if doing is not None else ():
            doing(event)
        if any(enough(event) for event in new):
            return events
        time.sleep(0.005)
    raise AssertionError(f"nothing within {seconds} s after {events[-20:]}")


def answer(event: Event) -> bool:
    return isinstance(event, Finished | JobFailed | JobCancelled | WorkerDied | VersionMismatch)


def run(boss: Supervisor, prompt: str, folder: Path, job: str = "j1", **more: Any) -> list[Event]:
    boss.start_job(job, spec(prompt, **more), folder, provenance=Provenance(job=job, fingerprint="f" * 16))
    events = until(boss, answer)
    assert sum(answer(event) for event in events) == 1
    assert boss.busy is None
    return events


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").exists() and ") Z " in Path(f"/proc/{pid}/stat").read_text()


def wait_gone(pid: int, seconds: float) -> float:
    began = time.monotonic()
    while not gone(pid):
        assert time.monotonic() - began < seconds, f"process {pid} lives on"
        time.sleep(0.01)
    return time.monotonic() - began


def test_a_job_is_started_stepped_and_finished_in_this_order(shared: Supervisor, tmp_path: Path) -> None:
    boss = shared
    events = run(boss, "a cat", tmp_path / "new", seeds=(3, 4), steps=4)
    kinds = [type(event) for event in events]
    assert kinds[0] is Started
    assert kinds[1] is PhaseChanged
    assert kinds[-1] is Finished
    steps = [event for event in events if isinstance(event, Stepped)]
    assert [event.fraction for event in steps] == [n / 8 for n in range(1, 9)]
    outcome = events[-1].outcome  # type: ignore[union-attr]
    assert [Path(image.path).name for image in outcome.images] == ["j1-1.webp", "j1-2.webp"]
    meta = read_meta(outcome.images[1].path)
    assert meta is not None
    assert meta.chunk is not None
    assert (meta.chunk["job"], meta.chunk["fingerprint"], meta.chunk["index"]) == ("j1", "f" * 16, 1)


def test_one_worker_serves_one_job_after_the_other(shared: Supervisor, tmp_path: Path) -> None:
    boss = shared
    run(boss, "one", tmp_path, "j1")
    pid = boss.pid
    run(boss, "fake:user two", tmp_path, "j2")
    run(boss, "three", tmp_path, "j3")
    assert boss.pid == pid
    assert boss.device == "fake"


def test_a_second_job_while_one_runs_is_a_bug_of_the_caller(shared: Supervisor, tmp_path: Path) -> None:
    boss = shared
    boss.start_job("j1", spec(), tmp_path)
    with pytest.raises(RuntimeError, match="busy with j1"):
        boss.start_job("j2", spec(), tmp_path)
    until(boss, answer)


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("die", "killed, most likely because memory ran out in the phase “draw”"),
        ("segv", "segmentation fault"),
        ("exit", "left in the phase “draw” without an answer"),
        ("half", "half a line"),
        ("garbage", "not a message: 'loading"),
        ("long", "a line of more than 1048576 bytes"),
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


@pytest.mark.parametrize("mode", ["version", "protocol"])
def test_another_version_is_noticed_before_a_job_is_sent(mode: str, tmp_path: Path) -> None:
    with supervisor(env={"LORAVAULT_FAKE": mode}) as boss:
        events = run(boss, "a cat", tmp_path)
        assert [type(event) for event in events] == [VersionMismatch]
        assert isinstance(events[0], VersionMismatch)
        assert events[0].job == "j1"
        assert events[0].ours.startswith(__version__)
        assert events[0].theirs != events[0].ours
        assert not list(tmp_path.iterdir())


def test_noise_of_libraries_does_not_disturb(tmp_path: Path) -> None:
    """Before the hello anything may print; afterwards fd 1 is stderr, for C libraries too, and lands in the log."""
    log = tmp_path / "log" / "worker.log"
    with supervisor(env={"LORAVAULT_FAKE": "noise"}, log_path=log) as boss:
        assert isinstance(run(boss, "fake:noise", tmp_path)[-1], Finished)
    text = log.read_text()
    assert "a site hook greets you" in text
    assert "noise of a C library" in text
    assert "more noise on fd 1" in text
    assert log.stat().st_mode & 0o777 == 0o600


def test_answers_of_the_engine_that_are_no_pictures(tmp_path: Path) -> None:
    with supervisor() as boss:
        refused = run(boss, "fake:user", tmp_path)[-1]
        assert refused == JobFailed("j1", "The fake engine was told to refuse this.", "user")
        pid = boss.pid
        bug = run(boss, "fake:bug", tmp_path)[-1]
        assert isinstance(bug, JobFailed)
        assert bug.kind == "internal"
        assert "ValueError: a fake bug in two lines" in bug.message
        assert boss.pid is None, "nobody knows what state a worker is in after a bug"
        oom = run(boss, "fake:oom", tmp_path)[-1]
        assert isinstance(oom, JobFailed)
        assert oom.kind == "oom"
        assert boss.pid is None
        run(boss, "a cat", tmp_path)
        assert boss.pid != pid


def test_cancel_stops_between_two_steps_and_tells_what_was_finished(shared: Supervisor, tmp_path: Path) -> None:
    boss = shared
    boss.start_job("j1", spec("fake:slow=0.01", seeds=(1, 2, 3), steps=20), tmp_path)

    def cancel(event: Event) -> None:
        if isinstance(event, Stepped) and (event.image, event.step) == (1, 2):
            assert boss.cancel("j1")

    events = until(boss, answer, doing=cancel)
    assert isinstance(events[-1], JobCancelled)
    assert [image.index for image in events[-1].images] == [0]
    steps = [event for event in events if isinstance(event, Stepped)]
    assert steps[-1].image < 2
    pid = boss.pid
    assert isinstance(run(boss, "a cat", tmp_path, "j1")[-1], Finished), "the same id may run again"
    assert boss.pid == pid


def test_a_cancel_that_crossed_the_answer_does_not_stop_the_next_try(shared: Supervisor, tmp_path: Path) -> None:
    """The daemon sent it before it read the answer; it stayed with the worker and ended the second try at once."""
    run(shared, "a cat", tmp_path, "j1")
    assert shared._worker is not None
    shared._worker.process.send(protocol.encode(protocol.Cancel("j1")))
    assert isinstance(run(shared, "a cat", tmp_path, "j1")[-1], Finished)


def test_cancel_before_the_worker_is_there_answers_at_once(tmp_path: Path) -> None:
    with supervisor() as boss:
        boss.start_job("j1", spec(), tmp_path)
        assert boss.cancel("j1")
        assert boss.poll() == [JobCancelled("j1")]
        assert not boss.cancel("j1")
        assert isinstance(run(boss, "a cat", tmp_path, "j2")[-1], Finished)


def test_a_worker_that_ignores_a_cancel_is_ended(tmp_path: Path) -> None:
    with supervisor(cancel_grace_s=0.2) as boss:
        boss.start_job("j1", spec("fake:deaf fake:slow=0.05", steps=1000), tmp_path)
        until(boss, lambda event: isinstance(event, Stepped))
        boss.cancel("j1")
        assert isinstance(until(boss, answer)[-1], JobCancelled)
        assert boss.pid is None


def test_cancel_of_another_job_changes_nothing(shared: Supervisor, tmp_path: Path) -> None:
    boss = shared
    boss.start_job("j1", spec("fake:slow=0.01"), tmp_path)
    assert not boss.cancel("j2")
    assert isinstance(until(boss, answer)[-1], Finished)


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


def test_wake_is_called_for_every_answer_so_that_nobody_has_to_poll_blindly(tmp_path: Path) -> None:
    woken = threading.Event()
    with supervisor(wake=woken.set) as boss:
        boss.start_job("j1", spec(), tmp_path)
        give_up = time.monotonic() + 5
        events: list[Event] = []
        while not any(answer(event) for event in events):
            assert woken.wait(give_up - time.monotonic())
            woken.clear()
            events += boss.poll()


def test_warming_up_starts_the_worker_before_there_is_a_job(tmp_path: Path) -> None:
    with supervisor() as boss:
        boss.warm_up()
        pid = boss.pid
        give_up = time.monotonic() + 5
        while not boss.device:
            boss.poll()
            assert time.monotonic() < give_up
            time.sleep(0.01)
        run(boss, "a cat", tmp_path)
        assert boss.pid == pid


def test_a_flood_of_messages_is_held_back_by_the_pipe(shared: Supervisor, tmp_path: Path) -> None:
    boss = shared
    boss.start_job("j1", spec("fake:flood", steps=2), tmp_path)
    time.sleep(0.3)
    assert isinstance(until(boss, answer)[-1], Finished)


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


def test_an_undecodable_path_is_refused_in_words(shared: Supervisor, tmp_path: Path) -> None:
    use = AdapterUse(name="x", path="/loras/\udce9.safetensors", weight_id="w1-0", te=1, unet=1)
    with pytest.raises(UserError, match="rename it"):
        shared.start_job("j1", spec(adapters=(use,)), tmp_path)
    assert shared.busy is None


def test_the_worker_is_told_to_stay_off_the_network(tmp_path: Path) -> None:
    script = "import os, sys; sys.exit('offline=' + os.environ['HF_HUB_OFFLINE'] + os.environ['PYTHONSAFEPATH'])"
    with supervisor(command=[sys.executable, "-c", script], env={"HF_HUB_OFFLINE": "0"}) as boss:
        died = run(boss, "a cat", tmp_path)[-1]
        assert isinstance(died, WorkerDied)
        assert "offline=11" in died.reason


ORPHAN = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.jobs.test_supervisor import FAKE, spec, ROOT
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
