"""What is asked of the engine, and how it is told what became of it. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loravault.formats.generation import GenerationSpec
from loravault.formats.outcome import GenerationOutcome, Provenance, StepReport

#: Name of what is done next, and how many seconds it may take before something is said again.
OnPhase = Callable[[str, float], None]
OnStep = Callable[[StepReport], None]

#: What a job came to: its pictures, `Stopped`, a `UserError` (`OutOfMemory` among them), or a bug.
End = GenerationOutcome | Exception


@dataclass(frozen=True, kw_only=True)
class Wish:
    """One image per seed: `out_dir/<stem>-<n>.<ext>`, n from 1."""

    spec: GenerationSpec
    out_dir: Path
    stem: str
    provenance: Provenance
    #: A folder for lossless copies.
    originals: Path | None = None
    on_phase: OnPhase = lambda _name, _deadline_s: None
    on_step: OnStep = lambda _report: None
    #: Asked between steps: whether this one is to be stopped; others that are drawn with it go on.
    cancelled: Callable[[], bool] = lambda: False
    #: Called once, when its files are durably there or it has failed; others may still be drawn.
    on_end: Callable[[End], None]
