"""What the daemon relies on of a training, asked of the fake worker and the real one alike."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from loravault.formats.generation import BaseRef, GenerationSpec
from loravault.formats.outcome import Provenance
from loravault.formats.training import TrainingPicture, TrainingSpec, TrainingWishes
from loravault.jobs.events import (
    Event,
    JobCancelled,
    JobFailed,
    JobPaused,
    TrainingDone,
    TrainingPlanned,
    TrainingStepped,
    WorkerDied,
)
from loravault.jobs.supervisor import Supervisor, training_order
from loravault.library.identify import read_adapter
from tests.imagemeta import read_meta
from tests.jobs.supervising import FAKE, ROOT, until

REAL = [sys.executable, "-m", "loravault.jobs.child"]
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module", params=["fake", pytest.param("real", marks=pytest.mark.engine)])
def boss(request: pytest.FixtureRequest) -> Iterator[Supervisor]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "LORAVAULT_FAKE_STEP_S": "0.01"}
    made = Supervisor(FAKE if request.param == "fake" else REAL, environment)
    yield made
    made.close()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseRef:
    from tests.tiny import make_base

    return replace(make_base(tmp_path_factory.mktemp("contract") / "tiny"), family="sd15")


def spec(base: BaseRef, home: Path, *, steps: int = 4, count: int = 2) -> TrainingSpec:
    shown = []
    for number in range(count):
        path = home / f"{number}.png"
        home.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (40 * number, 90, 160)).save(path)
        shown.append(TrainingPicture(path=str(path), name=path.name, caption="a cat"))
    sample = GenerationSpec(
        base=base, prompt="sks cat", seeds=(7,), width=64, height=64, steps=2, cfg=5.0, sampler="Euler"
    )
    return TrainingSpec(
        base=base, name="my-cat", trigger="sks cat", pictures=tuple(shown), samples=(sample,),
        wishes=TrainingWishes(steps=steps, rank=2, resolutions=(64,), batch=1, te_rate=0.0, checkpoints=1),
        state_dir=str(home / "state"), cache_dir=str(home / "cache"),
    )  # fmt: skip


def ended(event: Event) -> bool:
    return isinstance(event, TrainingDone | JobFailed | JobCancelled | JobPaused | WorkerDied)


def train(
    boss: Supervisor, wanted: TrainingSpec, folder: Path, doing: Callable[[Event], None] | None = None
) -> list[Event]:
    boss.start([training_order("t1", wanted, folder, Provenance(job="t1", fingerprint="f" * 16))])
    events = until(boss, ended, 200, doing=doing)
    assert sum(ended(event) for event in events) == 1
    return events


def test_it_is_planned_stepped_and_done_in_this_order_and_leaves_what_it_names(
    boss: Supervisor, base: BaseRef, tmp_path: Path
) -> None:
    events = train(boss, spec(base, tmp_path / "in"), tmp_path / "out")
    kinds = [type(event) for event in events]
    assert kinds.count(TrainingPlanned) == 1
    assert kinds.index(TrainingPlanned) < kinds.index(TrainingStepped)
    planned = next(event for event in events if isinstance(event, TrainingPlanned)).prepared
    assert (planned.plan.steps, planned.survey.usable) == (4, 2)
    assert planned.forecast.seconds > 0
    steps = [event.step for event in events if isinstance(event, TrainingStepped)]
    assert [step.step for step in steps] == sorted(step.step for step in steps)
    assert (steps[-1].step, steps[-1].steps) == (4, 4)
    done = events[-1]
    assert isinstance(done, TrainingDone)
    last = done.outcome.checkpoints[-1]
    record = read_adapter(Path(last.path), "r", "my-cat.safetensors", ())
    assert (record.state, list(record.trigger_words)) == ("ok", ["sks cat"])
    [picture] = last.samples
    chunk = (read_meta(picture.path) or pytest.fail("no picture")).chunk or {}
    assert chunk["job"] == "t1"
    assert chunk["stands_for"] == record.weight_id
    assert [one["id"] for one in chunk["adapters"]] == [record.weight_id]
    assert len(done.outcome.base_samples) == 1
    assert done.chart is not None
    assert done.strip is not None
    assert Path(done.chart).is_file()
    assert Path(done.strip).is_file()


@pytest.mark.parametrize("how", ["cancel", "pause"])
def test_stopped_it_goes_on_where_it_was(boss: Supervisor, base: BaseRef, tmp_path: Path, how: str) -> None:
    wanted = spec(base, tmp_path / "in", steps=60)

    asked: list[int] = []

    def stop(event: Event) -> None:
        if isinstance(event, TrainingStepped) and event.step.step >= 3 and not asked:
            asked.append(event.step.step)
            assert boss.cancel("t1") if how == "cancel" else boss.pause("t1")

    first = train(boss, wanted, tmp_path / "out", stop)
    assert isinstance(first[-1], JobCancelled if how == "cancel" else JobPaused | TrainingDone)
    reached = max(event.step.step for event in first if isinstance(event, TrainingStepped))
    second = train(boss, wanted, tmp_path / "out")
    assert isinstance(second[-1], TrainingDone)
    if how == "cancel":
        assert min(event.step.step for event in second if isinstance(event, TrainingStepped)) > 3
        assert reached < 60


def test_a_refusal_is_a_sentence_and_the_worker_goes_on(boss: Supervisor, base: BaseRef, tmp_path: Path) -> None:
    train(boss, spec(base, tmp_path / "ok"), tmp_path / "out")
    pid = boss.pid
    failed = train(boss, spec(base, tmp_path / "in", count=0), tmp_path / "out")[-1]
    assert isinstance(failed, JobFailed)
    assert failed.kind == "user"
    assert "no picture" in failed.message
    assert boss.pid == pid


def uncaptioned(wanted: TrainingSpec, captioner: Path) -> TrainingSpec:
    first, *rest = wanted.pictures
    shown = (first, *(replace(one, caption=None) for one in rest))
    return replace(wanted, pictures=shown, captioner=str(captioner))


def test_pictures_without_a_caption_are_described_and_the_plan_says_so(
    boss: Supervisor, base: BaseRef, tmp_path: Path
) -> None:
    from tests.tiny_captioners import make_blip

    wanted = uncaptioned(spec(base, tmp_path / "in", count=3), make_blip(tmp_path / "tiny-blip"))
    events = train(boss, wanted, tmp_path / "out")
    told = next(event for event in events if isinstance(event, TrainingPlanned)).prepared
    assert told.described is not None
    assert (told.described.by, told.described.count, told.described.usable) == ("tiny-blip", 2, 3)
    assert [name for name, _ in told.described.captions] == ["1.png", "2.png"]
    assert all(caption for _, caption in told.described.captions)
    assert told.warnings == ()
    done = events[-1]
    assert isinstance(done, TrainingDone)
    assert done.outcome.prepared.described == replace(told.described, captions=())


def test_a_captioner_that_cannot_be_used_is_a_warning(boss: Supervisor, base: BaseRef, tmp_path: Path) -> None:
    wanted = uncaptioned(spec(base, tmp_path / "in"), tmp_path / "gone")
    events = train(boss, wanted, tmp_path / "out")
    told = next(event for event in events if isinstance(event, TrainingPlanned)).prepared
    assert told.described is None
    assert ["The captioner “gone” cannot be used" in one for one in told.warnings] == [True]
    done = events[-1]
    assert isinstance(done, TrainingDone)
    assert told.warnings[0] in done.outcome.warnings
