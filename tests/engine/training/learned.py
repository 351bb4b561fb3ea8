"""Specs, plans and surveys for tests: small pictures in a folder, and plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from loravault.dataset.survey import survey
from loravault.engine.bases import Base, load_base
from loravault.engine.devices import Device, choose_device
from loravault.engine.training.batches import Batches
from loravault.engine.training.store import Store
from loravault.formats.generation import BaseRef
from loravault.formats.training import TrainingPicture, TrainingPlan, TrainingSpec
from tests.dataset.drawn import blobs, save

#: Everything that a plan must say, with the plainest answer.
PLAIN = TrainingPlan(
    steps=20, algorithm="lora", rank=4, alpha=4.0, conv_rank=0, conv_alpha=0.0, rslora=False, dora=False, factor=-1,
    learning_rate=1e-3, te_rate=0.0, pivotal=0, resolutions=(64,), batch=2, accumulation=1, optimizer="adamw",
    schedule="constant", warmup=0, min_snr=0.0, noise_offset=0.0, prior_weight=1.0, clip=1.0, ema=0.0,
    precision="fp32", quantised="none", checkpointing=False, flip=False, crops=False, checkpoints=1, validation=0,
    caption_dropout=0.0, shuffle=False, keep_tokens=0, caption_prefix="", seed=7, naming="kohya",
)  # fmt: skip


def device() -> Device:
    return choose_device("cpu")


def loaded(ref: BaseRef) -> Base:
    return load_base(ref, device())


def pictures(folder: Path, sizes: Mapping[str, tuple[int, int]], **more: Any) -> list[TrainingPicture]:
    """One picture of chance for each name; its caption is "<stem>, one, two, three"."""
    return [
        TrainingPicture(
            path=str(save(blobs(number, *size), folder / name)), name=name,
            caption=f"{Path(name).stem}, one, two, three", **more,
        )
        for number, (name, size) in enumerate(sizes.items())
    ]  # fmt: skip


def spec_of(base: BaseRef, shown: list[TrainingPicture], cache: Path, **more: Any) -> TrainingSpec:
    values: dict[str, Any] = {"name": "x", "trigger": "zkx", "class_word": "cat", "state_dir": str(cache / "state")}
    return TrainingSpec(base=base, pictures=tuple(shown), cache_dir=str(cache), **{**values, **more})


def batches(
    base: Base, ref: BaseRef, shown: list[TrainingPicture], cache: Path, *, rank: int = 0, world: int = 1,
    spec: Mapping[str, Any] | None = None, prepared: bool = True, **plan: Any,
) -> Batches:  # fmt: skip
    """Batches of a plan that differs from the plainest by `plan`."""
    found = Batches(
        spec_of(ref, shown, cache, **(spec or {})), replace(PLAIN, **plan), survey(shown), base, Store(cache),
        rank=rank, world=world,
    )  # fmt: skip
    if prepared:
        found.prepare()
    return found


def black(path: Path, size: tuple[int, int]) -> Path:
    """A mask of whose left half everything counts, and nothing of the right."""
    mask = Image.new("L", size, 0)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return save(mask, path)
