"""Several unanswered jobs of one worker: each is answered once, in any order, and only what was begun counts a try."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from loravault.jobs.events import (
    Event,
    Finished,
    JobCancelled,
    JobFailed,
    JobReturned,
    PhaseChanged,
    Started,
    Stepped,
    VersionMismatch,
    WorkerDied,
)
from loravault.jobs.supervisor import Order, Supervisor, order
from tests.jobs.supervising import run, spec, supervisor, until

ENDS = (Finished, JobFailed, JobCancelled, JobReturned, WorkerDied, VersionMismatch)


def jobs(folder: Path, *prompts: str, alone: int = -1, **more: object) -> list[Order]:
    """Jobs j0, j1, … of one mark; an odd one out is asked for by a prompt that begins with its number of steps."""
    made = []
    for n, prompt in enumerate(prompts):
        steps, _, rest = prompt.partition("|")
        wanted = spec(rest, steps=int(steps)) if rest else spec(prompt, **more)  # type: ignore[arg-type]
        made.append(order(f"j{n}", wanted, folder, alone=n == alone, background="fake:nobody" in prompt))
    return made


def answers(
    boss: Supervisor, count: int, doing: Callable[[Event], None] | None = None, seconds: float = 20
) -> dict[str, Event]:
    """Polls until so many jobs have their end. Each has one."""
    ends: dict[str, Event] = {}
    seen: list[Event] = []

    def enough(event: Event) -> bool:
        seen.append(event)
        if isinstance(event, ENDS) and event.job is not None:
            assert event.job not in ends, "answered twice"
            ends[event.job] = event
        return len(ends) >= count

    until(boss, enough, seconds, doing)
    for event in boss.poll():
        if isinstance(event, ENDS) and event.job is not None:
            assert event.job not in ends, "answered twice"
            ends[event.job] = event
    boss.seen = seen  # type: ignore[attr-defined]
    return ends


def kinds(ends: dict[str, Event]) -> dict[str, str]:
    return {job: type(end).__name__ for job, end in sorted(ends.items())}


def test_jobs_that_are_handed_over_together_are_begun_together(tmp_path: Path) -> None:
    with supervisor() as boss:
        boss.start(jobs(tmp_path, "a", "b", "9|odd", "c", seeds=(1,)))
        assert boss.busy == "j0"
        ends = answers(boss, 4)
        assert set(kinds(ends).values()) == {"Finished"}
        assert boss.busy is None
        events = boss.seen  # type: ignore[attr-defined]
        begun = [event.job for event in events if isinstance(event, Started)]
        assert begun == ["j0", "j1", "j3", "j2"]
        first_end = next(n for n, event in enumerate(events) if isinstance(event, Finished))
        assert {event.job for event in events[:first_end] if isinstance(event, Stepped)} == {"j0", "j1", "j3"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"j{n}-1.webp" for n in range(4)]


def test_a_worker_may_answer_in_any_order(tmp_path: Path) -> None:
    with supervisor() as boss:
        boss.start(jobs(tmp_path, "fake:late a", "b", "c"))
        ends = answers(boss, 3)
        assert set(kinds(ends).values()) == {"Finished"}
        assert list(ends)[-1] == "j0"


def test_only_what_was_begun_counts_a_try_when_the_worker_dies(tmp_path: Path) -> None:
    with supervisor() as boss:
        boss.start(jobs(tmp_path, "a", "fake:die b", "9|c", "8|d"))
        ends = answers(boss, 4)
        expected = {"j0": "WorkerDied", "j1": "WorkerDied", "j2": "JobReturned", "j3": "JobReturned"}
        assert kinds(ends) == expected
        assert isinstance(run(boss, "a cat", tmp_path, "j0")[-1], Finished)


def test_one_that_is_to_be_alone_is_begun_alone(tmp_path: Path) -> None:
    with supervisor() as boss:
        boss.start(jobs(tmp_path, "fake:die a", "b", "c", alone=0))
        assert kinds(answers(boss, 3)) == {"j0": "WorkerDied", "j1": "JobReturned", "j2": "JobReturned"}


def test_a_worker_that_cannot_start_costs_the_first_job_a_try_so_that_it_ends_some_day(tmp_path: Path) -> None:
    with supervisor(env={"LORAVAULT_FAKE": "crash"}) as boss:
        boss.start(jobs(tmp_path, "a", "b"))
        assert kinds(answers(boss, 2)) == {"j0": "WorkerDied", "j1": "JobReturned"}


def test_another_version_gives_everything_back(tmp_path: Path) -> None:
    with supervisor(env={"LORAVAULT_FAKE": "version"}) as boss:
        boss.start(jobs(tmp_path, "a", "b"))
        assert kinds(answers(boss, 2)) == {"j0": "VersionMismatch", "j1": "JobReturned"}


@pytest.mark.parametrize(("mode", "kind"), [("oom", "oom"), ("bug", "internal")])
def test_after_a_failure_that_nobody_understands_the_others_get_a_new_worker(
    tmp_path: Path, mode: str, kind: str
) -> None:
    with supervisor() as boss:
        boss.start(jobs(tmp_path, f"fake:{mode} a", "b", "9|c", steps=50))
        ends = answers(boss, 3)
        assert kinds(ends) == {"j0": "JobFailed", "j1": "JobReturned", "j2": "JobReturned"}
        assert isinstance(ends["j0"], JobFailed)
        assert ends["j0"].kind == kind
        assert boss.pid is None


def test_a_refusal_costs_its_own_job_only(tmp_path: Path) -> None:
    with supervisor() as boss:
        boss.start(jobs(tmp_path, "a", "fake:user b", "c"))
        assert kinds(answers(boss, 3)) == {"j0": "Finished", "j1": "JobFailed", "j2": "Finished"}


def test_one_of_a_batch_is_cancelled_and_the_others_go_on(tmp_path: Path) -> None:
    with supervisor() as boss:
        # so slow that the worker is told long before its last step, however seldom it gets the processor
        boss.start(jobs(tmp_path, "a", "fake:slow=0.04 b", "c", steps=40, seeds=(1,)))
        cancelled = Counter[str]()

        def cancel(event: Event) -> None:
            if isinstance(event, Stepped) and event.step == 2 and not cancelled["j1"]:
                cancelled["j1"] += boss.cancel("j1")

        ends = answers(boss, 3, cancel)
        assert kinds(ends) == {"j0": "Finished", "j1": "JobCancelled", "j2": "Finished"}
        assert next(iter(ends)) == "j1", "at once"


def test_one_that_waits_is_cancelled_at_once_although_the_worker_is_busy(tmp_path: Path) -> None:
    with supervisor(cancel_grace_s=0.5) as boss:
        boss.start(jobs(tmp_path, "fake:slow=0.02 a", "99|b", steps=60))

        def cancel(event: Event) -> None:
            if isinstance(event, Stepped) and event.step == 2 and event.job == "j0":
                boss.cancel("j1")

        ends = answers(boss, 2, cancel)
        assert kinds(ends) == {"j0": "Finished", "j1": "JobCancelled"}
        assert list(ends) == ["j1", "j0"]


def test_one_that_waits_comes_back_when_it_is_asked_for_and_what_is_begun_goes_on(tmp_path: Path) -> None:
    with supervisor() as boss:
        boss.start(jobs(tmp_path, "fake:slow=0.01 a", "99|b", "98|c", steps=40))
        asked: list[bool] = []

        def withdraw(event: Event) -> None:
            if isinstance(event, Stepped) and event.step == 2 and event.job == "j0":
                asked.extend([boss.withdraw("j0"), boss.withdraw("j1"), boss.withdraw("nobody")])

        ends = answers(boss, 3, withdraw, 40)
        assert asked == [False, True, False]
        assert kinds(ends) == {"j0": "Finished", "j1": "JobReturned", "j2": "Finished"}
        assert next(iter(ends)) == "j1"
        boss.start(jobs(tmp_path, "again", "again")[1:])
        assert kinds(answers(boss, 1)) == {"j1": "Finished"}, "it can be handed over again"


def test_before_the_worker_is_there_everything_comes_back_at_once(tmp_path: Path) -> None:
    with supervisor(env={"LORAVAULT_FAKE": "late"}) as boss:
        boss.start(jobs(tmp_path, "a", "b"))
        assert boss.withdraw("j1")
        assert [event for event in boss.poll() if isinstance(event, ENDS)] == [JobReturned("j1")]
        assert kinds(answers(boss, 1)) == {"j0": "Finished"}


def test_what_nobody_waits_for_begins_last(tmp_path: Path) -> None:
    with supervisor() as boss:
        boss.start(jobs(tmp_path, "a", "9|fake:nobody b", "8|c"))
        answers(boss, 3)
        events = boss.seen  # type: ignore[attr-defined]
        assert [event.job for event in events if isinstance(event, Started)] == ["j0", "j2", "j1"]


def test_a_cancel_of_one_that_waits_does_not_hide_that_the_worker_hangs(tmp_path: Path) -> None:
    with supervisor(env={"LORAVAULT_FAKE_DEADLINE_S": "0.4"}) as boss:
        boss.start(jobs(tmp_path, "fake:hang a", "99|b"))

        def cancel(event: Event) -> None:
            if isinstance(event, PhaseChanged) and event.name == "draw":
                boss.cancel("j1")

        ends = answers(boss, 2, cancel, 8)
        assert kinds(ends) == {"j0": "WorkerDied", "j1": "JobCancelled"}


def test_a_killed_worker_answers_every_job_once_at_any_moment(tmp_path: Path) -> None:
    """Whatever it was at: finished, begun or waiting; a new worker makes the rest."""
    with supervisor() as boss:
        for moment in range(0, 30, 3):
            folder = tmp_path / str(moment)
            boss.start(jobs(folder, "a", "b", "5|c", "d", "6|e"))
            left = [moment]

            def kill(_event: Event, left: list[int] = left) -> None:
                left[0] -= 1
                if left[0] == 0 and boss.pid is not None:
                    os.kill(boss.pid, signal.SIGKILL)

            ends = answers(boss, 5, kill)
            assert len(ends) == 5
            for job, end in ends.items():
                if isinstance(end, Finished):
                    assert (folder / f"{job}-1.webp").is_file()
