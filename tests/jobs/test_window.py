"""Several jobs in one worker, seen from the notes: drawn together, given back, and nothing lost by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loravault.daemon import Daemon
from loravault.index import work
from loravault.index.tables import JobRow
from loravault.jobs import supervisor as sup
from loravault.vault.note import parse_note
from tests.jobs.test_path import retick, running
from tests.jobs.test_wishes import set_property
from tests.world import World

NAMES = [f"Note {n}.md" for n in range(6)]


@contextmanager
def watched(daemon: Daemon) -> Iterator[list[sup.Event]]:
    """What the workers say, in order."""
    seen: list[sup.Event] = []
    handle = daemon.dispatcher._handle

    def noted(lane: object, event: sup.Event) -> None:
        seen.append(event)
        handle(lane, event)  # type: ignore[arg-type]

    daemon.dispatcher._handle = noted  # type: ignore[assignment, method-assign]
    yield seen


def rows(daemon: Daemon) -> dict[str, JobRow]:
    """First line of the prompt -> its job, of everything that is open."""
    with daemon.ctx.index.session() as session:
        return {row.first_line: row for row in work.open_jobs(session)}


def test_notes_that_are_alike_are_drawn_together(world: World) -> None:
    for n, name in enumerate(NAMES):
        world.request(name, f"a red cat {n}", seed=n)
    with running(world) as daemon, watched(daemon) as seen:
        world.finish(daemon, *NAMES)
    started = [event.job for event in seen if isinstance(event, sup.Started)]
    assert len(started) == len(set(started)) == 6
    first_end = next(n for n, event in enumerate(seen) if isinstance(event, sup.Finished))
    assert len({event.job for event in seen[:first_end] if isinstance(event, sup.Stepped)}) >= 3
    assert all(world.results(name) == 1 for name in NAMES)


def test_the_window_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.01")
    for n in range(12):
        world.request(f"Note {n}.md", f"a red cat {n}", seed=n, count=3, steps=9)
    with running(world) as daemon:
        (lane,) = daemon.dispatcher.lanes
        most = [0, 0]

        def over() -> bool:
            most[0] = max(most[0], len(lane.held))
            most[1] = max(most[1], sum(held.pictures for held in lane.held.values()))
            return all(world.is_answered(f"Note {n}.md") for n in range(12))

        world.work(daemon, over, 40)
    assert 2 <= most[0] <= 8
    assert 6 <= most[1] <= 16 + 3


def test_a_poison_job_fails_in_words_and_costs_its_companions_nothing(world: World) -> None:
    """It takes them along once; from then on it is alone."""
    names = ["A.md", "B poison.md", "C.md", "D.md"]
    for name in names:
        world.request(name, "a red cat fake:segv" if "poison" in name else f"a red cat {name}", seed=1)
    with running(world) as daemon, watched(daemon) as seen:
        world.finish(daemon, *names, timeout=40)
    assert [world.status(name) for name in names] == ["done", "failed", "done", "done"]
    assert "tried 3 times" in world.read("B poison.md")
    died = [event.job for event in seen if isinstance(event, sup.WorkerDied)]
    assert max(died.count(job) for job in died) == 3
    assert sorted(died.count(job) for job in set(died)) in ([1, 1, 1, 3], [1, 1, 3], [1, 3], [3])


def test_one_of_several_is_cancelled_in_its_note(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.05")  # none is drawn before the last is begun, however slow we are
    for name in NAMES[:3]:
        world.request(name, f"a red cat {name}", seed=1, steps=40, cancel=False)
    with running(world) as daemon:
        world.work(daemon, lambda: sum(held.fraction is not None for held in daemon.dispatcher.shown) == 3)
        set_property(world, NAMES[1], "cancel", "true")
        world.finish(daemon, *NAMES[:3], timeout=40)
    assert [world.status(name) for name in NAMES[:3]] == ["done", "cancelled", "done"]
    assert [world.results(name) for name in NAMES[:3]] == [1, 0, 1]


def test_who_goes_on_typing_while_it_waits_in_the_worker_gets_what_stands_there_then(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claimed ahead or not: until its drawing begins a request is what its note says."""
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.05")
    world.request("First.md", "a slow one", seed=1, steps=30)
    with running(world) as daemon:
        world.work(daemon, lambda: any(held.fraction for held in daemon.dispatcher.shown))
        monkeypatch.setattr(daemon.deliverer, "step", lambda: None)  # its box is not reset while somebody types
        path = world.request("Second.md", "a red cat", seed=2, steps=4)
        world.work(daemon, lambda: rows(daemon).get("a red cat", JobRow(state="")).state == "claimed")
        path.write_bytes(path.read_bytes().replace(b"a red cat", b"a red cat with a hat"))
        world.work(daemon, lambda: "a red cat with a hat" in rows(daemon))
        assert "a red cat" not in rows(daemon)
        monkeypatch.undo()
        world.finish(daemon, "First.md", "Second.md")
    text = world.read("Second.md")
    assert world.results("Second.md") == 1
    assert "block it answers is gone" not in text


def test_what_nobody_waits_for_leaves_the_worker_when_a_person_comes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.03")
    for name in NAMES[:3]:
        world.request(name, f"a red cat {name}", seed=1, steps=20 + int(name[5]))
    begun: list[str] = []
    with running(world) as daemon, watched(daemon) as seen:
        with daemon.ctx.index.session() as session:
            pass
        monkeypatch.setattr(daemon.dispatcher, "_not_before", float("inf"))
        world.work(daemon, lambda: len(rows(daemon)) == 3)
        with daemon.ctx.index.session() as session:
            for row in work.open_jobs(session):
                row.background = True
                session.add(row)
        monkeypatch.undo()
        monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.03")
        world.work(daemon, lambda: any(row.state == "claimed" for row in rows(daemon).values()))
        (lane,) = daemon.dispatcher.lanes
        assert len(lane.held) <= 2, "no further ahead than the worker needs"
        world.request("Person.md", "a blue dog", seed=9, steps=5)
        world.finish(daemon, "Person.md", *NAMES[:3], timeout=40)
        begun = [event.job for event in seen if isinstance(event, sup.Started)]
        assert any(isinstance(event, sup.JobReturned) for event in seen)
    assert len(begun) == 4
    person = str(world.properties("Person.md")["lv_job"])
    ends = [event.job for event in seen if isinstance(event, sup.Finished)]
    assert person
    assert ends.index(begun[1]) == 1
    assert world.results("Person.md") == 1


def test_nothing_that_waits_counts_a_try_when_the_daemon_leaves(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.05")
    for name in NAMES[:4]:
        world.request(name, f"a red cat {name}", seed=1, steps=30 + int(name[5]))
    with running(world) as daemon:
        world.work(daemon, lambda: sum(row.state == "claimed" for row in rows(daemon).values()) == 3)
    with running(world) as daemon:
        assert {(row.state, row.attempts, row.interrupted) for row in rows(daemon).values()} == {("queued", 0, 0)}
        monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0")
    with running(world) as daemon:
        world.finish(daemon, *NAMES[:4])


def test_a_daemon_that_is_killed_blames_only_what_was_begun(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.05")
    for name in NAMES[:3]:
        world.request(name, f"a red cat {name}", seed=1, steps=30 + int(name[5]))
    with running(world) as daemon:
        world.work(daemon, lambda: sum(row.state == "claimed" for row in rows(daemon).values()) == 2)
        monkeypatch.setattr(
            daemon.dispatcher, "stop", daemon.dispatcher.lanes[0].supervisor.close
        )  # as a kill leaves the rows
    with running(world) as daemon:
        told = sorted((row.state, row.attempts, row.interrupted) for row in rows(daemon).values())
        assert told == [("queued", 0, 0), ("queued", 0, 0), ("queued", 1, 1)]
        monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0")
    with running(world) as daemon:
        world.finish(daemon, *NAMES[:3])


def test_a_path_that_cannot_be_said_fails_its_own_job(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stopped the queue for a minute, again and again, because it was always the next."""
    world.request("A bad.md", "a red cat", seed=1)
    world.request("B good.md", "a blue dog", seed=1)
    real: Callable[..., sup.Order] = sup.order

    def picky(job: str, spec: object, *args: object, **more: object) -> sup.Order:
        out = Path("/\udce9") if "cat" in spec.prompt else args[0]  # type: ignore[attr-defined]
        return real(job, spec, out, **more)

    monkeypatch.setattr(sup, "order", picky)
    with running(world) as daemon:
        world.finish(daemon, "A bad.md", "B good.md")
    assert world.status("A bad.md") == "failed"
    assert "rename it" in world.read("A bad.md")
    assert world.status("B good.md") == "done"


def test_a_bug_while_an_event_is_handled_ends_neither_the_job_nor_the_daemon(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job was queued again while its worker still had it, and handing it over a second time raised."""
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.02")
    world.request("Cat.md", "a red cat", seed=1, steps=20)
    with running(world) as daemon:
        progress, left = daemon.dispatcher._progress, [1]

        def buggy(held: object, phase: str, fraction: float | None) -> None:
            if fraction is not None and left[0]:
                left[0] -= 1
                raise ZeroDivisionError
            progress(held, phase, fraction)  # type: ignore[arg-type]

        monkeypatch.setattr(daemon.dispatcher, "_progress", buggy)
        world.finish(daemon, "Cat.md")
    assert left == [0]
    assert (world.status("Cat.md"), world.results("Cat.md")) == ("done", 1)


def test_a_batch_that_ran_out_of_memory_is_answered_note_by_note(world: World) -> None:
    names = ["A.md", "B oom.md", "C.md"]
    for name in names:
        world.request(name, "a red cat fake:oom" if "oom" in name else f"a red cat {name}", seed=1, steps=30)
    with running(world) as daemon:
        world.finish(daemon, *names)
        assert "too little memory" in world.read("B oom.md")
        retick(world, "B oom.md")
        world.finish(daemon, *names)
    assert [world.status(name) for name in names] == ["done", "failed", "done"]
    assert [len(parse_note((world.vault / name).read_bytes()).regions) for name in names] == [1, 1, 1]
