"""One job of the engine, while it is worked on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from loravault.engine.adapters import Adapter
from loravault.engine.apply import Strength
from loravault.engine.ends import Stopped
from loravault.engine.families import Encoded
from loravault.engine.wish import End, OnPhase, OnStep, Wish
from loravault.errors import UserError
from loravault.formats.generation import AdapterUse, GenerationSpec
from loravault.formats.outcome import AdapterHashes, GenerationOutcome, MadeImage

__all__ = ["Job", "OnPhase", "OnStep"]


@dataclass(eq=False)
class Job:
    """One wish: what was asked, and what it has made and said so far."""

    wish: Wish
    #: When it was begun (`time.perf_counter`).
    began: float
    images: list[MadeImage] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    #: Name → how it is used, and the file.
    adapters: dict[str, tuple[AdapterUse, Adapter]] = field(default_factory=dict)
    #: The adapters at their strengths.
    stack: Sequence[Strength] = ()
    #: As the pipeline takes them, with a batch of one; the second is None if no one looks at it.
    prompt: Encoded | None = None
    negative: Encoded | None = None
    #: Seeds that are dealt with, those that gave no image included.
    done: int = 0
    #: Its wish was told what became of it.
    ended: bool = False

    @property
    def spec(self) -> GenerationSpec:
        """What is drawn."""
        return self.wish.spec

    @cached_property
    def hashes(self) -> tuple[AdapterHashes, ...]:
        """Of every adapter. Asked for when a picture is saved: they are computed while it is drawn."""
        return tuple(_hashes(use, adapter) for use, adapter in self.adapters.values())

    def warn(self, sentence: str | None) -> None:
        """Keeps a sentence for the result, once."""
        if sentence and sentence not in self.warnings:
            self.warnings.append(sentence)

    def stop_if_asked(self) -> bool:
        """Ends it with what it has if it was cancelled. Returns whether it has ended."""
        if not self.ended and self.wish.cancelled():
            self.end(Stopped(tuple(self.images)))
        return self.ended

    def finish(self, now: float) -> None:
        """Ends it with its pictures; without any it has failed, and what was to be said of them says why."""
        if not self.images:
            self.end(UserError(" ".join(self.warnings)))
            return
        unused = {name: len(adapter.unused) for name, (_, adapter) in self.adapters.items() if adapter.unused}
        self.end(
            GenerationOutcome(
                images=tuple(self.images),
                warnings=tuple(self.warnings),
                seconds=now - self.began,
                unused_keys=unused,
                adapter_hashes=self.hashes,
            )
        )

    def end(self, end: End) -> None:
        """Tells the wish what became of it, once."""
        if not self.ended:
            self.ended = True
            self.wish.on_end(end)


def _hashes(use: AdapterUse, adapter: Adapter) -> AdapterHashes:
    known = adapter.hashes
    return AdapterHashes(
        name=use.name,
        weight_id=use.weight_id,
        sha256=known.sha256,
        autov2=known.autov2,
        autov3=known.autov3[:12],
    )
