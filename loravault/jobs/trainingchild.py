"""The worker's part of a training: has the engine train, draws how it went, says what the daemon has to know."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from loravault.engine.ends import Paused
from loravault.engine.lesson import Lesson
from loravault.formats.training import Prepared, TrainingOutcome, TrainingStep
from loravault.jobs import protocol

#: Between a plan and the first step latents and captions are computed; each of them is told by a phase.
PLANNED_DEADLINE_S = 600.0
#: So many losses are said; all of them are in the plot.
_MOST_LOSSES = 2000


class Trainer(Protocol):
    """What a training needs of an engine."""

    def train(self, lesson: Lesson) -> TrainingOutcome:
        """Trains the adapter. Raises `UserError`, `Stopped`, `Paused`, `OutOfMemory`."""


def train(
    engine: Trainer,
    order: protocol.Train,
    say: Callable[[protocol.Answer], None],
    *,
    cancelled: Callable[[], bool],
    paused: Callable[[], bool],
) -> protocol.Answer:
    """Do what an order says. Returns the answer; raises what the engine raises, but `Paused`."""

    def on_phase(name: str, deadline_s: float) -> None:
        say(protocol.Phase(job=order.id, name=name, deadline_s=deadline_s))

    def on_prepared(prepared: Prepared) -> None:
        say(protocol.Planned(job=order.id, prepared=prepared, deadline_s=PLANNED_DEADLINE_S))

    def on_step(step: TrainingStep) -> None:
        say(protocol.TrainingProgress(job=order.id, step=step))

    lesson = Lesson(
        spec=order.spec,
        out_dir=Path(order.out_dir),
        provenance=order.provenance,
        on_phase=on_phase,
        on_prepared=on_prepared,
        on_step=on_step,
        cancelled=cancelled,
        paused=paused,
    )
    try:
        outcome = engine.train(lesson)
    except Paused:
        return protocol.Paused(order.id)
    on_phase("plots", PLANNED_DEADLINE_S)
    folder = Path(order.out_dir)
    chart, strip = _chart(outcome, folder / "loss.png"), _strip(order, outcome, folder / "samples.webp")
    return protocol.Trained(job=order.id, outcome=shortened(outcome), chart=chart, strip=strip)


def shortened(outcome: TrainingOutcome) -> TrainingOutcome:
    """As much of it as one line should hold: the survey was said with the plan."""
    every = max(1, -(-len(outcome.losses) // _MOST_LOSSES))
    prepared = outcome.prepared
    survey = replace(prepared.survey, pictures=(), alike=())
    described = None if prepared.described is None else replace(prepared.described, captions=())
    prepared = replace(prepared, survey=survey, described=described)
    return replace(outcome, prepared=prepared, losses=outcome.losses[::every])


def _chart(outcome: TrainingOutcome, path: Path) -> str | None:
    """A plot that cannot be drawn costs the plot, not the adapter."""
    from loravault.charts.loss import draw_losses  # noqa: PLC0415 - Pillow, and only at the end of a training

    try:
        steps = [checkpoint.step for checkpoint in outcome.checkpoints]
        return str(path) if draw_losses(outcome.losses, outcome.validation, steps, path) else None
    except Exception:
        traceback.print_exc()
        return None


def _strip(order: protocol.Train, outcome: TrainingOutcome, path: Path) -> str | None:
    from loravault.charts.strip import Row, draw_strip  # noqa: PLC0415

    try:
        rows = [Row("base alone", _columns([(one.index, one.path) for one in outcome.base_samples]))]
        rows += [
            Row(f"step {checkpoint.step:,}", _columns([(one.index, one.path) for one in checkpoint.samples]))
            for checkpoint in outcome.checkpoints
        ]
        titles = [sample.written_prompt or sample.prompt for sample in order.spec.samples for _ in sample.seeds]
        return str(path) if draw_strip(rows, titles, path) else None
    except Exception:
        traceback.print_exc()
        return None


def _columns(pictures: Sequence[tuple[int, str]]) -> dict[int, Path]:
    """Column → file. Those of several specs may each count from 0: then their order is what tells them apart."""
    places = [index for index, _ in pictures]
    if len(set(places)) == len(places):
        return {index: Path(path) for index, path in pictures}
    return {column: Path(path) for column, (_, path) in enumerate(pictures)}
