"""What the daemon relies on, asked of the fake worker and the real one alike: the daemon's tests trust the fake."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loravault.formats.generation import AdapterUse, BaseRef, GenerationSpec
from loravault.formats.outcome import Provenance
from loravault.jobs.events import (
    Event,
    Finished,
    JobCancelled,
    JobFailed,
    JobReturned,
    PhaseChanged,
    Started,
    Stepped,
    WorkerDied,
)
from loravault.jobs.supervisor import Supervisor, order
from tests.imagemeta import read_meta
from tests.jobs.supervising import FAKE, ROOT, answer, gone, until

REAL = [sys.executable, "-m", "loravault.jobs.child"]


@pytest.fixture(scope="module", params=["fake", pytest.param("real", marks=pytest.mark.engine)])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Supervisor, BaseRef]]:
    """A supervisor of one of the two, and a base that this one can draw with."""
    base = BaseRef(name="tiny", path="/nowhere", family="tiny")
    if request.param == "real":
        from tests.tiny import make_base

        base = make_base(tmp_path_factory.mktemp("contract") / "tiny")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "LORAVAULT_FAKE_STEP_S": "0.005"}
    boss = Supervisor(FAKE if request.param == "fake" else REAL, environment)
    yield boss, base
    boss.close()


def spec(base: BaseRef, *, seeds: tuple[int, ...] = (1,), steps: int = 3, **more: object) -> GenerationSpec:
    values: dict[str, object] = {"sampler": "Euler", "prompt": "a cat", "negative": "", **more}
    return GenerationSpec(base=base, seeds=seeds, steps=steps, width=64, height=64, cfg=5.0, **values)  # type: ignore[arg-type]


def run(boss: Supervisor, wanted: GenerationSpec, folder: Path, job: str = "c1") -> list[Event]:
    boss.start_job(job, wanted, folder, stem=f"lv-{job}", provenance=Provenance(job=job, fingerprint="f" * 16))
    events = until(boss, answer, 60)
    assert sum(answer(event) for event in events) == 1
    return events


def test_a_job_becomes_files_that_say_where_they_come_from(world: tuple[Supervisor, BaseRef], tmp_path: Path) -> None:
    boss, base = world
    events = run(boss, spec(base, seeds=(8, 9)), tmp_path / "deep" / "folder")
    assert isinstance(next(event for event in events if event != PhaseChanged("c1", "start")), Started)
    assert any(isinstance(event, PhaseChanged) and event.name == "draw" for event in events)
    fractions = [event.fraction for event in events if isinstance(event, Stepped)]
    assert len(fractions) >= 3
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    done = events[-1]
    assert isinstance(done, Finished)
    assert [(image.index, image.seed) for image in done.outcome.images] == [(0, 8), (1, 9)]
    assert sorted(path.name for path in (tmp_path / "deep" / "folder").iterdir()) == ["lv-c1-1.webp", "lv-c1-2.webp"]
    for index, image in enumerate(done.outcome.images):
        assert Path(image.path).parent == tmp_path / "deep" / "folder"
        meta = read_meta(image.path)
        assert meta is not None
        assert (meta.format, meta.width, meta.height) == ("webp", 64, 64)
        assert meta.chunk is not None
        expected = {"v": 1, "job": "c1", "fingerprint": "f" * 16, "index": index}
        assert {key: meta.chunk[key] for key in expected} == expected
        assert meta.infotext is not None
        assert meta.infotext.startswith("a cat\n")
        assert f"Seed: {image.seed}" in meta.infotext
    assert done.outcome.seconds > 0


def test_the_same_job_again_replaces_its_files(world: tuple[Supervisor, BaseRef], tmp_path: Path) -> None:
    """A retry after a crash writes under the same names."""
    boss, base = world
    for _ in range(2):
        assert isinstance(run(boss, spec(base), tmp_path)[-1], Finished)
    assert [path.name for path in tmp_path.iterdir()] == ["lv-c1-1.webp"]


def test_a_cancel_is_answered_and_the_worker_goes_on(world: tuple[Supervisor, BaseRef], tmp_path: Path) -> None:
    boss, base = world
    pid = boss.pid
    boss.start_job("c2", spec(base, steps=400), tmp_path)

    def cancel(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 2:
            assert boss.cancel("c2")

    events = until(boss, answer, 60, doing=cancel)
    assert events[-1] == JobCancelled("c2")
    assert max(event.step for event in events if isinstance(event, Stepped)) < 100
    assert not list(tmp_path.iterdir())
    assert isinstance(run(boss, spec(base), tmp_path, "c2")[-1], Finished)
    assert boss.pid == pid


def test_jobs_of_one_mark_are_drawn_together_and_each_is_answered(
    world: tuple[Supervisor, BaseRef], tmp_path: Path
) -> None:
    """One of them is cancelled, one waits until the others are done, one is asked back."""
    boss, base = world
    wanted = {"t1": spec(base, steps=40), "t2": spec(base, steps=40, prompt="dogs", seeds=(2, 3)),
              "t3": spec(base, steps=40, prompt="x"), "t4": spec(base, steps=9), "t5": spec(base, steps=8)}  # fmt: skip
    boss.start([order(job, one, tmp_path, provenance=Provenance(job=job)) for job, one in wanted.items()])
    ends: dict[str, Event] = {}
    seen: list[Event] = []

    def enough(event: Event) -> bool:
        seen.append(event)
        if isinstance(event, Finished | JobFailed | JobCancelled | JobReturned):
            assert event.job not in ends
            ends[event.job] = event
        elif isinstance(event, Stepped) and (event.job, event.step) == ("t3", 2):
            boss.cancel("t3")
            boss.withdraw("t4")
        return len(ends) == 5

    until(boss, enough, 60)
    assert {job: type(end) for job, end in ends.items()} == {
        "t1": Finished, "t2": Finished, "t3": JobCancelled, "t4": JobReturned, "t5": Finished,
    }  # fmt: skip
    assert [event.job for event in seen if isinstance(event, Started)] == ["t1", "t2", "t3", "t5"]
    first_end = next(n for n, event in enumerate(seen) if isinstance(event, Finished))
    assert {event.job for event in seen[:first_end] if isinstance(event, Stepped)} == {"t1", "t2", "t3"}
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["t1-1", "t2-1", "t2-2", "t5-1"]


def test_a_refusal_is_a_sentence_and_the_worker_goes_on(world: tuple[Supervisor, BaseRef], tmp_path: Path) -> None:
    boss, base = world
    run(boss, spec(base), tmp_path)
    pid = boss.pid
    use = AdapterUse(name="ink", path=str(tmp_path / "gone.safetensors"), weight_id="w1-0", te=1, unet=1)
    failed = run(boss, spec(base, prompt="fake:user", adapters=(use,)), tmp_path)[-1]
    assert isinstance(failed, JobFailed)
    assert failed.kind == "user"
    assert failed.message.endswith((".", "?"))
    assert isinstance(run(boss, spec(base), tmp_path)[-1], Finished)
    assert boss.pid == pid


def test_death_between_two_steps_is_told_and_a_new_worker_answers(
    world: tuple[Supervisor, BaseRef], tmp_path: Path
) -> None:
    import signal

    boss, base = world
    boss.start_job("c3", spec(base, steps=400), tmp_path)
    until(boss, lambda event: isinstance(event, Stepped), 60)
    pid = boss.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    died = until(boss, answer, 10)[-1]
    assert isinstance(died, WorkerDied)
    assert died.job == "c3"
    assert gone(pid)
    assert isinstance(run(boss, spec(base), tmp_path, "c3")[-1], Finished)


def test_the_end_of_stdin_ends_a_busy_worker_within_two_seconds(
    world: tuple[Supervisor, BaseRef], tmp_path: Path
) -> None:
    boss, base = world
    boss.start_job("c4", spec(base, steps=400), tmp_path)
    until(boss, lambda event: isinstance(event, Stepped), 60)
    pid = boss.pid
    assert pid is not None
    began = time.monotonic()
    boss.close()
    assert gone(pid)
    assert time.monotonic() - began < 2
