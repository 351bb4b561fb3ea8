"""What is asked of the engine when an adapter is to be trained. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loravault.engine.wish import OnPhase
from loravault.formats.outcome import Provenance
from loravault.formats.training import Prepared, TrainingSpec, TrainingStep


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One adapter to be trained; what is made goes into `out_dir`."""

    spec: TrainingSpec
    out_dir: Path
    #: Of the samples.
    provenance: Provenance
    on_phase: OnPhase = lambda _name, _deadline_s: None
    #: Called once, before anything is trained.
    on_prepared: Callable[[Prepared], None] = lambda _prepared: None
    on_step: Callable[[TrainingStep], None] = lambda _step: None
    #: Asked between steps: whether it is called off (`Stopped`), and whether it is to make way (`Paused`). Both leave a
    #: state from which the same lesson goes on.
    cancelled: Callable[[], bool] = lambda: False
    paused: Callable[[], bool] = lambda: False
