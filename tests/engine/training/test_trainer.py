"""From a spec to an adapter, with everything that can come between."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loravault.engine.ends import Paused, Stopped
from loravault.engine.training import loop as loop_module
from loravault.engine.training import steps as steps_module
from loravault.engine.training.checkpoints import StateFolder
from loravault.engine.training.facts import RATES
from loravault.errors import UserError
from loravault.formats.generation import BaseRef
from loravault.formats.safetensors_header import read_header
from loravault.formats.training import TrainingOutcome
from tests.engine.training.lessons import Lesson, pictures, same, spec_of, tensors
from tests.tiny_families import make_family

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseRef:
    return make_family(tmp_path_factory.mktemp("trainer") / "sd15", "sd15")


@pytest.fixture(scope="module")
def whole(base: BaseRef, tmp_path_factory: pytest.TempPathFactory) -> TrainingOutcome:
    """The training of `spec_of`, never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    return Lesson(spec_of(folder, base), folder / "out").run()


def changed(one: str, other: str) -> float:
    return float(np.abs(np.asarray(Image.open(one), dtype=float) - np.asarray(Image.open(other), dtype=float)).mean())


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl", "sd3", "flux"])
def test_a_trained_adapter_is_loaded_again_and_changes_the_picture(tmp_path: Path, family: str) -> None:
    """Every family, from pictures to files: samples of the base and of each file, with the same seeds."""
    base = make_family(tmp_path / family, family)
    lesson = Lesson(spec_of(tmp_path, base, samples=1, steps=12, rank=8, alpha=16.0), tmp_path / "out")
    outcome = lesson.run()
    assert [one.step for one in outcome.checkpoints] == [6, 12]
    assert [Path(one.path).name for one in outcome.checkpoints] == ["dots-000006.safetensors", "dots.safetensors"]
    assert len(outcome.base_samples) == 1
    for one in outcome.checkpoints:
        assert [sample.index for sample in one.samples] == [0]
        assert all(changed(a.path, b.path) > 0.05 for a, b in zip(outcome.base_samples, one.samples, strict=True))
    assert [step for step, _ in outcome.validation] == [0, 6, 12]
    assert len(outcome.losses) == 12
    assert all(math.isfinite(loss) for _, loss in outcome.losses)


def test_the_first_answer_is_given_before_anything_is_trained(base: BaseRef, tmp_path: Path) -> None:
    lesson = Lesson(spec_of(tmp_path, base), tmp_path / "out")
    lesson.cancelled = lambda one: bool(one.prepared)
    with pytest.raises(Stopped):
        lesson.run()
    (prepared,) = lesson.prepared
    assert prepared.plan.steps == 6
    assert prepared.survey.usable == 5
    assert prepared.buckets == ((64, 64, 5),)
    assert prepared.forecast.seconds > 0
    assert lesson.steps == []


def test_a_file_says_how_it_was_made_and_shows_a_sample(base: BaseRef, tmp_path: Path) -> None:
    """Trigger, steps of this checkpoint, and a picture; no path of this machine."""
    outcome = Lesson(spec_of(tmp_path, base, samples=1), tmp_path / "out").run()
    said = [read_header(Path(one.path)).metadata for one in outcome.checkpoints]
    assert [one["ss_steps"] for one in said] == ["3", "6"]
    assert said[1]["modelspec.trigger_phrase"] == "sks"
    assert said[1]["modelspec.thumbnail"].startswith("data:image/jpeg;base64,")
    assert "modelspec.thumbnail" not in said[0]
    assert str(tmp_path) not in json.dumps(said)


def test_the_same_spec_again_comes_to_the_same_without_a_step(base: BaseRef, tmp_path: Path) -> None:
    """Until who publishes it removes its state: whoever was killed between the two loses nothing."""
    spec = spec_of(tmp_path, base)
    first = Lesson(spec, tmp_path / "out").run()
    again = Lesson(spec, tmp_path / "elsewhere")
    assert same(first, again.run())
    assert again.steps == []
    assert "cache" not in again.phases


def test_reports_tell_how_far_it_is(base: BaseRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps_module, "REPORT_EVERY_S", 0.0)
    lesson = Lesson(spec_of(tmp_path, base, steps=8, warmup=4), tmp_path / "out")
    outcome = lesson.run()
    assert [one.step for one in lesson.steps] == list(range(1, 9))
    assert {one.steps for one in lesson.steps} == {8}
    assert lesson.steps[-1].seconds_left == 0
    assert lesson.steps[0].seconds_left > 0
    assert lesson.steps[0].learning_rate < lesson.steps[3].learning_rate
    assert lesson.steps[0].loss == pytest.approx(outcome.losses[0][1])
    assert all(one.deadline_s > 0 for one in lesson.steps)
    assert outcome.seconds > 0
    assert outcome.peak_bytes > 0


def test_the_time_a_picture_took_is_remembered_for_the_next_forecast(base: BaseRef, tmp_path: Path) -> None:
    first = Lesson(spec_of(tmp_path, base, steps=12), tmp_path / "out").run()
    assert not first.prepared.forecast.measured
    assert len(json.loads((tmp_path / "cache" / RATES).read_text())) == 1
    second = Lesson(dataclasses.replace(spec_of(tmp_path, base, steps=12), name="other"), tmp_path / "out").run()
    assert second.prepared.forecast.measured
    assert second.prepared.forecast.seconds < 60


# ---- interrupted


@pytest.mark.parametrize("stop", [("cancelled", 1), ("paused", 3), ("cancelled", 4)])
def test_a_training_that_is_stopped_goes_on_as_if_nothing_had_been(
    base: BaseRef, whole: TrainingOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: tuple[str, int]
) -> None:
    """Before, at and after a checkpoint; the second part is told that it is not at its beginning."""
    monkeypatch.setattr(steps_module, "REPORT_EVERY_S", 0.0)
    asked, after = stop
    spec = spec_of(tmp_path, base)
    first = Lesson(spec, tmp_path / "out")
    setattr(first, asked, lambda one: bool(one.steps) and one.steps[-1].step >= after)
    with pytest.raises(Stopped if asked == "cancelled" else Paused):
        first.run()
    second = Lesson(spec, tmp_path / "out")
    assert same(second.run(), whole)
    assert [one.step for one in second.steps] == list(range(after + 1, 7))


class Killed(BaseException):
    """The end of a process, as far as one process can play it: nobody is to catch it."""


@pytest.mark.parametrize("phase", ["survey", "load", "cache", "train", "checkpoint", "samples"])
def test_whatever_phase_it_dies_in_it_goes_on(
    base: BaseRef, whole: TrainingOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    monkeypatch.setattr(steps_module, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(steps_module, "SAVE_SHARE", 0.0)
    spec = spec_of(tmp_path, base)
    first = Lesson(spec, tmp_path / "out")

    class Dying(list[str]):
        def append(self, name: str) -> None:
            super().append(name)
            if name == phase and (phase != "train" or self.count("train") > 1):
                raise Killed

    first.phases = Dying()
    with pytest.raises(Killed):
        first.run()
    assert same(Lesson(spec, tmp_path / "out").run(), whole)


@pytest.mark.parametrize("write", ["the first file", "the state after it", "the last state", "a copy"])
def test_it_goes_on_whichever_write_is_its_last(
    base: BaseRef, whole: TrainingOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    """A checkpoint's file without its state, a state that was never renamed, an outcome that nobody heard of."""
    from loravault.engine.training import checkpoints, trainer

    def die(*_args: object, **_more: object) -> None:
        raise Killed

    spec = spec_of(tmp_path, base)
    with monkeypatch.context() as patch:
        if write == "the first file":
            patch.setattr(trainer, "write_adapter", die)
        elif write == "the state after it":
            patch.setattr(steps_module.Steps, "_keep", die)
        elif write == "the last state":
            patch.setattr(steps_module.Steps, "_finish", die)
        else:
            patch.setattr(checkpoints, "fsync_dir", lambda path: die() if path.name == "out" else None)
        with pytest.raises(Killed):
            Lesson(spec, tmp_path / "out").run()
    assert same(Lesson(spec, tmp_path / "out").run(), whole)


@pytest.mark.faults
def test_a_process_that_is_killed_at_any_moment_comes_to_the_same_adapter(base: BaseRef, tmp_path: Path) -> None:
    """Three times SIGKILL, at moments drawn at random; then in peace."""
    steps, draw = 9, random.Random(11)
    # All of them in processes of the same number of threads: another number rounds sums otherwise.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def begun(folder: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.engine.training.lessons", str(folder), str(steps), base.path]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)

    def outcome(folder: Path) -> TrainingOutcome:
        """Of a training that has come to its end: told again, without a step."""
        assert b"done" in begun(folder).communicate()[0]
        lesson = Lesson(spec_of(folder, base, steps=steps, checkpoints=3), folder / "out")
        found = lesson.run()
        assert "train" not in lesson.phases
        return found

    for _ in range(3):
        child = begun(tmp_path / "killed")
        assert child.stdout is not None
        lives = draw.randint(2, 16)
        for line in child.stdout:
            lives -= b"train" in line
            if lives <= 0 or b"done" in line:
                break
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert same(outcome(tmp_path / "killed"), outcome(tmp_path / "peace"))


def test_another_plan_begins_anew_and_the_old_one_waits(base: BaseRef, tmp_path: Path) -> None:
    """Changed: not gone on with, and said. Changed back: gone on with. Done: the other is gone."""
    spec, other = spec_of(tmp_path, base), spec_of(tmp_path, base, learning_rate=5e-3)
    first = Lesson(spec, tmp_path / "out", cancelled=lambda one: bool(one.steps))
    with pytest.raises(Stopped):
        first.run()
    second = Lesson(other, tmp_path / "out", cancelled=lambda one: bool(one.steps))
    with pytest.raises(Stopped):
        second.run()
    third = Lesson(spec, tmp_path / "out")
    outcome = third.run()
    assert third.steps[0].step > 1 or "cache" in third.phases
    assert len(list((tmp_path / "state").glob("state-*"))) == 1
    fourth = Lesson(other, tmp_path / "out2").run()
    assert not same(fourth, outcome)
    assert len(list((tmp_path / "state").glob("state-*"))) == 1


def test_a_state_of_another_layout_is_set_aside_and_it_begins_anew(
    base: BaseRef, whole: TrainingOutcome, tmp_path: Path
) -> None:
    """As a newer version may find it: said, not an error that comes again with every try."""
    spec = spec_of(tmp_path, base)
    first = Lesson(spec, tmp_path / "out", cancelled=lambda one: bool(one.steps))
    with pytest.raises(Stopped):
        first.run()
    (path,) = (tmp_path / "state").glob("state-*")
    folder = StateFolder(tmp_path / "state", path.name.split("-")[1])
    state = folder.read()
    assert state is not None
    tensors = {name: one for name, one in state.tensors.items() if "mid_block" not in name}
    folder.write(dataclasses.replace(state, tensors=tensors))
    outcome = Lesson(spec, tmp_path / "out").run()
    assert same(outcome, whole)
    assert any("began anew" in one for one in outcome.warnings)
    assert list((tmp_path / "state").glob("unusable-*")) == []


def test_what_was_interrupted_before_a_change_is_told(base: BaseRef, tmp_path: Path) -> None:
    first = Lesson(spec_of(tmp_path, base), tmp_path / "out", cancelled=lambda one: bool(one.steps))
    with pytest.raises(Stopped):
        first.run()
    outcome = Lesson(spec_of(tmp_path, base, seed=99), tmp_path / "out").run()
    assert any("not gone on with" in one for one in outcome.warnings)


def test_a_changed_picture_is_another_training(base: BaseRef, whole: TrainingOutcome, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, base)
    first = Lesson(spec, tmp_path / "out", cancelled=lambda one: bool(one.steps))
    with pytest.raises(Stopped):
        first.run()
    Image.new("RGB", (64, 64), "purple").save(spec.pictures[0].path)
    assert not same(Lesson(spec, tmp_path / "out").run(), whole)


# ---- what goes wrong


def test_a_training_that_diverges_ends_with_its_last_good_checkpoint(
    base: BaseRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(tmp_path, base, steps=12, checkpoints=3)
    before = loop_module.Loop._loss

    def loss(self: loop_module.Loop, batch: object, draw: object) -> object:
        return before(self, batch, draw) * (math.inf if self.step >= 5 else 1)  # type: ignore[arg-type]

    monkeypatch.setattr(loop_module.Loop, "_loss", loss)
    outcome = Lesson(spec, tmp_path / "out").run()
    assert [one.step for one in outcome.checkpoints] == [4]
    assert Path(outcome.checkpoints[0].path).name == "dots.safetensors"
    (said,) = outcome.warnings
    assert "is too high; try a third" in said
    assert "as it was after step 4" in said
    assert [step for step, _ in outcome.losses] == [1, 2, 3, 4, 5]


def test_a_training_that_diverges_at_once_is_an_error_and_begins_anew(
    base: BaseRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = loop_module.Loop._loss
    with monkeypatch.context() as patch:
        patch.setattr(loop_module.Loop, "_loss", lambda *given: before(*given) * math.nan)
        with pytest.raises(UserError, match="not numbers, from the beginning"):
            Lesson(spec_of(tmp_path, base), tmp_path / "out").run()
    assert list((tmp_path / "state").glob("state-*")) == []
    assert len(Lesson(spec_of(tmp_path, base), tmp_path / "out").run().losses) == 6


def test_samples_that_cannot_be_drawn_do_not_cost_the_adapter(base: BaseRef, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, base, samples=1)
    broken = dataclasses.replace(spec.samples[0], sampler="none such")
    outcome = Lesson(dataclasses.replace(spec, samples=(broken,)), tmp_path / "out").run()
    assert Path(outcome.checkpoints[-1].path).is_file()
    assert outcome.base_samples == ()
    assert any(one.startswith("A sample could not be drawn") for one in outcome.warnings)


def test_no_picture_that_can_be_used_is_said_before_a_base_is_loaded(base: BaseRef, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, base)
    for one in spec.pictures:
        Path(one.path).write_bytes(b"no picture")
    lesson = Lesson(spec, tmp_path / "out")
    with pytest.raises(UserError):
        lesson.run()
    assert lesson.phases == ["survey"]


def test_a_base_in_eight_bits_is_packed_after_everything_is_encoded(base: BaseRef, tmp_path: Path) -> None:
    """And the file that comes out fits the base as it is."""
    outcome = Lesson(spec_of(tmp_path, base, quantised="int8", samples=1), tmp_path / "out").run()
    assert len(outcome.losses) == 6
    assert changed(outcome.base_samples[0].path, outcome.checkpoints[-1].samples[0].path) > 0


def test_bfloat16_on_a_processor_learns_the_same_in_kind(base: BaseRef, tmp_path: Path) -> None:
    """The base stays fp32 and what is computed is half; the file is written and proven."""
    outcome = Lesson(spec_of(tmp_path, base, precision="bf16"), tmp_path / "out").run()
    assert len(outcome.losses) == 6
    assert tensors(outcome)
    assert pictures(tmp_path / "pictures")[0].name == "0.png"
