"""What a loop tells of its way: how long it will still take."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from loravault.engine.ends import Paused
from loravault.engine.training import steps as steps_module
from loravault.engine.training.checkpoints import State, StateFolder
from loravault.engine.training.facts import learned_rates
from loravault.engine.training.loop import History
from loravault.engine.training.steps import Ears, Steps
from loravault.formats.generation import BaseRef
from loravault.formats.training import Forecast, Prepared, Survey, TrainingStep
from tests.engine.training.learned import PLAIN
from tests.engine.training.lessons import Lesson, pictures, spec_of
from tests.tiny_families import make_family

pytestmark = pytest.mark.engine


@dataclass
class Clockwork:
    """A loop of which a step takes 2 s, and 3 s more while there are pictures to encode."""

    pictures: int
    step: int = 0
    learning_rate: float = 1e-3
    history: History = field(default_factory=History)
    encoded_s: float = 0.0

    def advance(self) -> None:
        self.step += 1
        self.history.losses.append(0.1)
        self.history.seconds += 2.0
        if self.pictures:
            self.pictures -= 1
            self.encoded_s += 3.0
            self.history.seconds += 3.0

    def encoding(self, steps: int) -> tuple[float, float]:
        return self.encoded_s, 3.0 * min(steps, self.pictures)

    def state(self) -> State:
        return State(self.step, {})


def told(loop: Any, folder: Path, steps: int) -> tuple[list[TrainingStep], Steps]:
    said: list[TrainingStep] = []
    ears = Ears(
        on_phase=lambda *_: None, on_prepared=lambda _: None, on_step=said.append, cancelled=lambda: False,
        paused=lambda: len(said) == steps,
    )  # fmt: skip
    plan = dataclasses.replace(PLAIN, steps=steps + 20)
    prepared = Prepared(survey=Survey(pictures=()), plan=plan, forecast=Forecast(seconds=1.0, bytes=1))
    loop.measure = lambda: None
    made = Steps(
        loop=loop, prepared=prepared, states=StateFolder(folder, "x"), ears=ears, write=lambda *_: (),
        encoding=loop.encoding,
    )  # fmt: skip
    with pytest.raises(Paused):
        made.all()
    return said, made


@pytest.mark.parametrize("pictures", [0, 3, 12, 500])
def test_what_is_left_is_told_with_the_pictures_that_are_still_to_be_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: int
) -> None:
    """Each is encoded once: no step after it takes as long, and what a step takes is known although some never are."""
    monkeypatch.setattr(steps_module, "REPORT_EVERY_S", 0.0)
    said, made = told(Clockwork(pictures), tmp_path, 30)
    for one in said:
        left = one.steps - one.step
        assert one.seconds_left == pytest.approx(2 * left + 3 * min(left, max(0, pictures - one.step)))
    assert made.seconds_per_step() == pytest.approx(2.0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseRef:
    return make_family(tmp_path_factory.mktemp("steps") / "sd15", "sd15")


def test_a_training_that_ends_before_it_has_seen_every_picture_tells_the_next_one_what_a_step_takes(
    base: BaseRef, tmp_path: Path
) -> None:
    spec = spec_of(tmp_path, base, steps=8, batch=1, validation=0)
    spec = dataclasses.replace(spec, pictures=pictures(tmp_path / "many", 12))
    Lesson(spec, tmp_path / "out").run()
    assert learned_rates(tmp_path / "cache")


def test_a_cache_that_cannot_be_written_while_it_learns_is_told(base: BaseRef, tmp_path: Path) -> None:
    """Pictures are encoded on the way: so is what goes wrong with keeping them."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "latents").write_text("a file where a folder should be")
    outcome = Lesson(spec_of(tmp_path, base, steps=2), tmp_path / "out").run()
    assert any("could not be kept" in one for one in outcome.warnings)
