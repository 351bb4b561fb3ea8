"""Trainings of which some pictures have no caption."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from loravault.formats.generation import BaseRef
from loravault.formats.training import TrainingSpec
from tests.engine.training.lessons import spec_of


def asked(folder: Path, base: BaseRef, captioner: Path | None, **wishes: object) -> TrainingSpec:
    """Five dots, of which the first has a caption of its own and the second an empty one."""
    spec = spec_of(folder, base, **wishes)
    first, second, *rest = spec.pictures
    shown = (first, dataclasses.replace(second, caption=""), *(dataclasses.replace(one, caption=None) for one in rest))
    return dataclasses.replace(spec, pictures=shown, captioner=str(captioner) if captioner else None)
