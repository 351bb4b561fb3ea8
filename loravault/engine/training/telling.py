"""What the file of an adapter says about the training that made it, as far as it is known only when it has run."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from loravault import __version__
from loravault.engine.training.batches import Batches
from loravault.engine.training.diffusion import Diffusion
from loravault.engine.training.objectives import Objective
from loravault.formats.training import Prepared, TrainingSpec
from loravault.formats.training_metadata import TrainingRun

#: Where the short hash of old looks: bytes from, and how many.
_SHORT_AT, _SHORT = 0x100000, 0x10000


def runs(
    spec: TrainingSpec, prepared: Prepared, objective: Objective, batches: Batches, *, began: float
) -> Callable[[int], TrainingRun]:
    """For the file after some steps: what is to be said of the run. The base's file is read once, for the first."""
    captions = {one.name: text for one, text in zip(spec.pictures, batches.captions, strict=True)}
    hashes = cache(lambda: base_hashes(Path(spec.base.path)))

    def at(step: int) -> TrainingRun:
        sha256, short = hashes()
        return TrainingRun(
            began=began,
            ended=time.time(),
            steps=step,
            version=__version__,
            prediction=prediction_of(objective),
            base_sha256=sha256,
            base_hash=short,
            buckets=prepared.buckets,
            captions=captions,
        )

    return at


def prediction_of(objective: Objective) -> str:
    """`epsilon`, `v` or `flow`."""
    if not isinstance(objective, Diffusion):
        return "flow"
    return "v" if objective.velocity else "epsilon"


def base_hashes(path: Path) -> tuple[str | None, str | None]:
    """(SHA-256, the eight digits by which WebUIs once told checkpoints apart) of a file; None of a folder."""
    try:
        with open(path, "rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(_SHORT_AT)
            return whole, hashlib.sha256(file.read(_SHORT)).hexdigest()[:8]
    except OSError:
        return None, None
