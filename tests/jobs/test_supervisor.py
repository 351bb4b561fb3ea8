"""The supervisor against a fake worker that dies, hangs and lies: one answer per job, and nothing blocks."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loravault import __version__
from loravault.errors import UserError
from loravault.formats.generation import AdapterUse
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
from tests.imagemeta import read_meta
from tests.jobs.supervising import answer, run, spec, supervisor, until


@pytest.fixture(scope="module")
def shared() -> Iterator[Supervisor]:
    """One worker for the tests that do it no harm: starting one costs 0.1 s."""
    with supervisor() as made:
        yield made


def test_a_job_is_started_stepped_and_finished_in_this_order(shared: Supervisor, tmp_path: Path) -> None:
    boss = shared
    events = run(boss, "a cat", tmp_path / "new", seeds=(3, 4), steps=4)
    kinds = [type(event) for event in events if event != PhaseChanged("j1", "start")]  # of the worker, not the job
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


def test_the_same_job_while_it_has_no_answer_is_a_bug_of_the_caller(shared: Supervisor, tmp_path: Path) -> None:
    boss = shared
    boss.start_job("j1", spec(), tmp_path)
    with pytest.raises(RuntimeError, match="j1 has no answer yet"):
        boss.start_job("j1", spec(), tmp_path)
    until(boss, answer)


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


def test_cancel_of_another_job_changes_nothing(shared: Supervisor, tmp_path: Path) -> None:
    boss = shared
    boss.start_job("j1", spec("fake:slow=0.01"), tmp_path)
    assert not boss.cancel("j2")
    assert isinstance(until(boss, answer)[-1], Finished)


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
