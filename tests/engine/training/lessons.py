"""Whole trainings of tiny bases on a few drawn pictures, for the trainer's tests; also the child that is killed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from loravault.engine.devices import choose_device
from loravault.engine.generate import Engine
from loravault.engine.training.trainer import train
from loravault.formats.generation import BaseRef, GenerationSpec
from loravault.formats.outcome import GenerationOutcome
from loravault.formats.training import (
    Prepared,
    TrainingOutcome,
    TrainingPicture,
    TrainingSpec,
    TrainingStep,
    TrainingWishes,
)

COLOURS = ("red", "green", "blue", "yellow", "white")


def pictures(folder: Path, count: int = 5) -> tuple[TrainingPicture, ...]:
    """Circles of 64 pixels, each of another colour and place."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number in range(count):
        path = folder / f"{number}.png"
        if not path.exists():
            image = Image.new("RGB", (64, 64), "black")
            left = 4 + 7 * number
            ImageDraw.Draw(image).ellipse((left, left, left + 20, left + 20), COLOURS[number % len(COLOURS)])
            image.save(path)
        found.append(TrainingPicture(path=str(path), name=path.name, caption=f"a {COLOURS[number % 5]} dot"))
    return tuple(found)


def spec_of(folder: Path, base: BaseRef, *, samples: int = 0, **wishes: Any) -> TrainingSpec:
    """A training of few steps on five dots; `samples` pictures of 64 pixels are drawn with each checkpoint."""
    asked = {
        "steps": 6, "rank": 4, "alpha": 4.0, "resolutions": (64,), "batch": 2, "checkpoints": 2, "validation": 1,
        "learning_rate": 1e-2, "te_rate": 1e-3, "precision": "fp32", "algorithm": "lora", "warmup": 0, "conv_rank": 0,
        "caption_dropout": 0.0, **wishes,
    }  # fmt: skip
    sample = GenerationSpec(
        base=base, prompt="a red dot", seeds=tuple(range(samples)), width=64, height=64, steps=2, cfg=2.0,
        sampler="Euler", image_format="png",
    )  # fmt: skip
    return TrainingSpec(
        base=base,
        name="dots",
        trigger="sks",
        pictures=pictures(folder / "pictures"),
        wishes=TrainingWishes(**asked),
        samples=(sample,) if samples else (),
        state_dir=str(folder / "state"),
        cache_dir=str(folder / "cache"),
    )


@dataclass
class Lesson:
    """One call of the trainer and everything that it said."""

    spec: TrainingSpec
    out: Path
    #: Asked after every phase and step.
    cancelled: Callable[[Lesson], bool] = lambda _lesson: False
    paused: Callable[[Lesson], bool] = lambda _lesson: False
    phases: list[str] = field(default_factory=list)
    prepared: list[Prepared] = field(default_factory=list)
    steps: list[TrainingStep] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)
    engine: Engine | None = None

    def run(self, device: Any = None) -> TrainingOutcome:
        """Trains."""
        return train(
            self.spec,
            self.out,
            device=device or choose_device("cpu"),
            on_phase=lambda name, _deadline: self.phases.append(name),
            on_prepared=self.prepared.append,
            on_step=self.steps.append,
            cancelled=lambda: self.cancelled(self),
            paused=lambda: self.paused(self),
            generate=self._draw,
        )

    def _draw(self, spec: GenerationSpec, folder: Path, stem: str) -> GenerationOutcome:
        self.drawn.append(stem)
        if self.engine is None:
            self.engine = Engine("cpu")
        return self.engine.generate(spec, folder, stem=stem)


def tensors(outcome: TrainingOutcome) -> dict[str, torch.Tensor]:
    """Of all files of an outcome."""
    return {f"{one.step}/{name}": value for one in outcome.checkpoints for name, value in load_file(one.path).items()}


def same(one: TrainingOutcome, other: TrainingOutcome) -> bool:
    """Weights, losses and measurements, bit for bit."""
    ours, theirs = tensors(one), tensors(other)
    return (
        ours.keys() == theirs.keys()
        and all(torch.equal(ours[name], theirs[name]) for name in ours)
        and one.losses == other.losses
        and one.validation == other.validation
    )


def main() -> None:
    """The child that is killed: trains in a folder, and says every step."""
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    from loravault.engine.training import steps as module

    module.SAVE_EVERY_S = module.SAVE_SHARE = 0.0  # a state after every step
    base = BaseRef(name="sd15", path=sys.argv[3], family="sd15")
    two = {"batch": 1, "gpus": 2, "accumulation": 2, "flip": True, "noise_offset": 0.1} if len(sys.argv) > 4 else {}
    lesson = Lesson(spec_of(folder, base, steps=steps, checkpoints=3, **two), folder / "out")
    lesson.paused = lambda one: print(one.phases[-1], flush=True) is not None  # type: ignore[func-returns-value]
    lesson.run()
    print("done", flush=True)


if __name__ == "__main__":
    main()
