"""Training without torch: takes steps, keeps a state on disk, goes on from it, and leaves a small real adapter file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

from loravault.dataset.captioner import read_captioner
from loravault.engine.ends import OutOfMemory, Paused, Stopped
from loravault.engine.lesson import Lesson
from loravault.engine.wish import Wish
from loravault.errors import UserError
from loravault.formats.generation import AdapterUse
from loravault.formats.outcome import GenerationOutcome, MadeImage
from loravault.formats.training import (
    Checkpoint,
    Described,
    Forecast,
    LookedAt,
    Prepared,
    Survey,
    TrainingOutcome,
    TrainingSpec,
    TrainingStep,
)
from loravault.formats.training_plan import DeviceFacts, decide, why_not
from loravault.library.identify import read_adapter
from tests.fakes.adapter_file import adapter_bytes

DEADLINE_S = float(os.environ.get("LORAVAULT_FAKE_DEADLINE_S", "60"))
STEP_S = float(os.environ.get("LORAVAULT_FAKE_STEP_S", "0"))


class FakeTrainer:
    """`train` of the fake engine."""

    def _modes(self, prompt: str) -> dict[str, float]:
        raise NotImplementedError

    def _misbehave(self, modes: dict[str, float], job: str) -> None:
        raise NotImplementedError

    def _drawing(self, wish: Wish) -> Generator[None, None, GenerationOutcome]:
        raise NotImplementedError

    def train(self, lesson: Lesson) -> TrainingOutcome:
        spec, modes = lesson.spec, self._modes(lesson.spec.class_word)
        lesson.on_phase("survey", DEADLINE_S)
        looked = tuple(
            LookedAt(name=one.name, width=640, height=480, sha256=one.name, flat=0.5) for one in spec.pictures
        )
        survey = Survey(pictures=looked, diversity=0.2, measure="made up")
        if problem := why_not(spec, survey):
            raise UserError(problem)
        spec, described, warnings = self._described(spec)
        plan = decide(spec, survey, device=DeviceFacts(kind="cpu", name="fake"))
        forecast = Forecast(seconds=plan.steps * max(0.01, STEP_S), bytes=1_200_000_000)
        prepared = Prepared(
            survey=survey,
            plan=plan,
            forecast=forecast,
            buckets=((128, 128, survey.usable),),
            described=described,
            warnings=warnings,
        )
        lesson.on_prepared(prepared)
        if "user" in modes:
            raise UserError("The fake trainer was told to refuse this.")
        if "oom" in modes:
            raise OutOfMemory("The device has too little memory for one picture.")
        if "bug" in modes:
            raise ValueError("a fake bug\nin two lines")
        lesson.on_phase("train", DEADLINE_S)
        losses = self._steps(lesson, plan.steps, modes)
        checkpoints = [self._checkpoint(lesson, step) for step in sorted({max(1, plan.steps // 2), plan.steps})]
        with (Path(spec.state_dir).parent / "fake-trained.log").open("a") as log:
            log.write(f"{spec.name}\n")
        (Path(spec.state_dir) / "state.json").unlink()
        return TrainingOutcome(
            prepared=prepared,
            checkpoints=tuple(checkpoints),
            base_samples=self._samples(lesson, "base", ()),
            losses=tuple(losses),
            validation=((0, 0.3), (plan.steps, 0.2)),
            seconds=12.0,
            peak_bytes=1_000_000_000,
            warnings=(*warnings, *(("A fake warning.",) if "warn" in modes else ())),
        )

    def _described(self, spec: TrainingSpec) -> tuple[TrainingSpec, Described | None, tuple[str, ...]]:
        lacking = [one.name for one in spec.pictures if one.caption is None]
        if spec.captioner is None or not lacking:
            return spec, None, ()
        try:
            captioner = read_captioner(Path(spec.captioner))
        except UserError as error:
            return spec, None, (error.message,)
        said = tuple((name, f"what {name} shows") for name in lacking)
        pictures = tuple(
            replace(one, caption=f"what {one.name} shows") if one.name in lacking else one for one in spec.pictures
        )
        described = Described(by=captioner.name, count=len(said), usable=len(spec.pictures), captions=said[:30])
        return replace(spec, pictures=pictures), described, ()

    def _steps(self, lesson: Lesson, steps: int, modes: dict[str, float]) -> list[tuple[int, float]]:
        state = Path(lesson.spec.state_dir) / "state.json"
        state.parent.mkdir(parents=True, exist_ok=True)
        done = json.loads(state.read_text())["step"] if state.exists() else 0
        for step in range(done + 1, steps + 1):
            if lesson.cancelled():
                raise Stopped
            if lesson.paused():
                raise Paused
            time.sleep(modes.get("slow", STEP_S))
            if step * 2 >= steps:
                self._misbehave(modes, lesson.provenance.job)
            part = state.with_suffix(".part")
            part.write_text(json.dumps({"step": step}))
            os.replace(part, state)
            left = (steps - step) * max(0.01, STEP_S)
            lesson.on_step(
                TrainingStep(
                    step=step, steps=steps, loss=1 / step, learning_rate=1e-4, seconds_left=left, deadline_s=DEADLINE_S
                )
            )
        return [(step, 1 / step) for step in range(1, steps + 1)]

    def _checkpoint(self, lesson: Lesson, step: int) -> Checkpoint:
        spec = lesson.spec
        path = lesson.out_dir / f"{spec.name}-{step:06}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        width = {"demo": 160, "sd15": 768}[spec.base.family]
        words = {"ss_network_module": "networks.lora", "ss_output_name": spec.name}
        if spec.trigger:
            words["modelspec.trigger_phrase"] = spec.trigger
        path.write_bytes(adapter_bytes(width, 4, words, seed=f"{spec.name} {spec.wishes} {step}"))
        weight_id = read_adapter(path, "", path.name, ()).weight_id or ""
        use = AdapterUse(name=spec.name, path=str(path), weight_id=weight_id, te=1.0, unet=1.0)
        return Checkpoint(step=step, path=str(path), validation=0.2, samples=self._samples(lesson, f"{step}", (use,)))

    def _samples(self, lesson: Lesson, stem: str, uses: tuple[AdapterUse, ...]) -> tuple[MadeImage, ...]:
        made: list[MadeImage] = []
        origin = replace(lesson.provenance, stands_for=uses[0].weight_id if uses else "")
        for number, sample in enumerate(lesson.spec.samples):
            ends: list[object] = []
            wish = Wish(
                spec=replace(sample, adapters=(*sample.adapters, *uses), steps=1),
                out_dir=lesson.out_dir / "samples",
                stem=f"{stem}-{number}",
                provenance=origin,
                on_end=ends.append,
            )
            drawing = self._drawing(wish)
            while True:
                try:
                    next(drawing)
                except StopIteration as stop:
                    made += [replace(image, index=len(made) + place) for place, image in enumerate(stop.value.images)]
                    break
        return tuple(made)
