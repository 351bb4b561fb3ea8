"""Samples of a training: drawn from the finished files, the way every picture is drawn, and once by the base alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from loravault.errors import UserError
from loravault.formats.generation import AdapterUse, GenerationSpec
from loravault.formats.outcome import GenerationOutcome, MadeImage
from loravault.formats.safetensors_header import header_of, reader
from loravault.formats.training import TrainingSpec
from loravault.formats.weight_id import weight_id

#: (spec, folder, stem of the files) → what was drawn.
Draw = Callable[[GenerationSpec, Path, str], GenerationOutcome]
#: Strength that samples are drawn with.
WEIGHT = 1.0


def draw_samples(
    spec: TrainingSpec,
    files: Sequence[tuple[int, str]],
    out_dir: Path,
    *,
    draw: Draw,
    check: Callable[[], None],
    warn: Callable[[str | None], None],
) -> tuple[dict[int, tuple[MadeImage, ...]], tuple[MadeImage, ...]]:
    """(step → samples of the file of that step, samples of the base), each with the same seeds.

    `check` is called before each and may raise. A sample that cannot be drawn is no reason to lose an adapter: `warn`
    gets the sentence, and its place stays empty.
    """
    if not spec.samples:
        return {}, ()
    base = _drawn(spec.samples, (), out_dir, "base", draw, check, warn)
    found = {
        step: _drawn(spec.samples, (use_of(path, spec.name),), out_dir, f"step-{step:06d}", draw, check, warn)
        for step, path in files
    }
    return found, base


def use_of(path: str, name: str) -> AdapterUse:
    """A file that was just written, at full strength."""
    with open(path, "rb") as file:
        found = weight_id(header_of(file), reader(file))
    return AdapterUse(name=name, path=path, weight_id=found, te=WEIGHT, unet=WEIGHT)


def _drawn(  # noqa: PLR0917 - what draw_samples was given, and for whom
    samples: Sequence[GenerationSpec],
    uses: tuple[AdapterUse, ...],
    out_dir: Path,
    stem: str,
    draw: Draw,
    check: Callable[[], None],
    warn: Callable[[str | None], None],
) -> tuple[MadeImage, ...]:
    """The pictures of all samples, numbered through in the order of samples and seeds."""
    made: list[MadeImage] = []
    first = 0
    for number, sample in enumerate(samples):
        check()
        try:
            outcome = draw(replace(sample, adapters=(*sample.adapters, *uses)), out_dir, f"{stem}-{number + 1}")
        except UserError as error:
            warn(f"A sample could not be drawn: {error.message}")
        else:
            made += [replace(one, index=first + one.index) for one in outcome.images]
            for sentence in outcome.warnings:
                warn(f"Of a sample: {sentence}")
        first += len(sample.seeds)
    return tuple(made)
