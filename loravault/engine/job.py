"""One job of the engine, while it is worked on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from loravault.engine.adapters import Adapter
from loravault.engine.ends import Stopped
from loravault.engine.memory import Thrift
from loravault.formats.generation import AdapterUse, GenerationSpec
from loravault.formats.outcome import AdapterHashes, MadeImage, Provenance, StepReport

OnPhase = Callable[[str, float], None]
OnStep = Callable[[StepReport], None]


@dataclass
class Job:
    """One call of `generate`: what was asked, and what it has made and said so far."""

    spec: GenerationSpec
    out_dir: Path
    stem: str
    provenance: Provenance
    originals: Path | None
    on_phase: OnPhase
    on_step: OnStep
    cancelled: Callable[[], bool]
    #: How memory is saved now.
    thrift: Thrift
    #: What is being done, as `on_phase` was told.
    phase: str = "load"
    images: list[MadeImage] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    #: Name → how it is used, and the file.
    adapters: dict[str, tuple[AdapterUse, Adapter]] = field(default_factory=dict)
    #: Seeds that are dealt with, those that gave no image included.
    done: int = 0

    @cached_property
    def hashes(self) -> tuple[AdapterHashes, ...]:
        """Of every adapter. Asked for when a picture is saved: they are computed while it is drawn."""
        return tuple(_hashes(use, adapter) for use, adapter in self.adapters.values())

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.spec.width, self.spec.height

    def enter(self, phase: str, deadline_s: float) -> None:
        """Says what is done next."""
        self.phase = phase
        self.on_phase(phase, deadline_s)

    def stop_if_asked(self) -> None:
        """Raises `Stopped` if the job was cancelled."""
        if self.cancelled():
            raise Stopped(tuple(self.images))

    def warn(self, sentence: str | None) -> None:
        """Keeps a sentence for the result, once."""
        if sentence and sentence not in self.warnings:
            self.warnings.append(sentence)


def _hashes(use: AdapterUse, adapter: Adapter) -> AdapterHashes:
    known = adapter.hashes
    return AdapterHashes(
        name=use.name,
        weight_id=use.weight_id,
        sha256=known.sha256,
        autov2=known.autov2,
        autov3=known.autov3[:12],
    )
