"""What a training will take: bytes of the device and seconds, by formula, or by what earlier trainings took.

bytes = base + text encoders that are trained + 16 bytes a trained number (10 with 8-bit AdamW)
        + numbers kept for the backward pass × batch × pixels / native pixels (a fifth of them with checkpointing)
        + half a gigabyte that CUDA itself takes
seconds = steps × accumulation × batch × megapixels × seconds for one picture of one megapixel
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from loravault.formats.training import Forecast, TrainingPlan
from loravault.formats.training_families import COSTS, Costs

#: Bytes of a frozen parameter.
_FROZEN = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0}
_QUANTISED = {"int8": 1.05, "nf4": 0.55}
#: Weight, gradient and two averages in fp32; with 8-bit AdamW the averages are a byte each.
_TRAINED, _TRAINED_8BIT = 16.0, 10.0
#: Share of what the backward pass keeps that is left with checkpointing, and what computing it twice costs in time.
_CHECKPOINTED, _TWICE = 0.2, 4 / 3
_CUDA = 600e6
_PROCESS = 900e6
#: Forward, and backward through the frozen layers to the adapter: multiply-adds of a step in multiples of a forward.
_STEP = 2.2
#: What looking at a picture a second time costs: once more forward without and once with a gradient.
_HELD = 4 / 3
#: What a device reaches of the multiply-adds that it does in one large product of matrices.
_REACHED = {"cpu": 0.35, "cuda": 0.4, "mps": 0.25}
#: Multiply-adds a second where nobody measured them: an ordinary desktop processor, an ordinary card.
_USUAL = {"cpu": 6e10, "cuda": 2e13, "mps": 4e12}


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """A device as far as a plan depends on it."""

    kind: Literal["cpu", "cuda", "mps"]
    #: As people know it; rates that were measured are remembered under it.
    name: str
    #: Memory that can be used, in bytes; 0: not known.
    bytes: int = 0
    #: Whether it computes in bfloat16.
    bf16: bool = False
    #: Multiply-adds a second of one large product of matrices, in the precision of a training; 0: not measured.
    speed: float = 0.0
    #: Whether 8-bit optimisers, and whether 4-bit weights, can be used.
    has_8bit: bool = False
    has_nf4: bool = False
    #: Cards that can learn together, this one included.
    cards: int = 1


def needed_bytes(plan: TrainingPlan, family: str) -> int:
    """Bytes of the device while a step runs."""
    costs = COSTS.get(family, COSTS["sdxl"])
    size = costs.parameters * _QUANTISED.get(plan.quantised, _FROZEN[plan.precision])
    if plan.te_rate or plan.pivotal:
        size += costs.text_parameters * (4.0 if plan.precision == "fp32" else 2.0)
    trained = costs.rank_parameters * (plan.rank + plan.conv_rank)
    size += trained * (_TRAINED_8BIT if plan.optimizer == "adamw8bit" else _TRAINED)
    kept = costs.activations * plan.batch * _share(plan, costs) * (4.0 if plan.precision == "fp32" else 2.0)
    size += kept * (_CHECKPOINTED if plan.checkpointing else 1.0)
    return int(size)


def forecast(
    plan: TrainingPlan,
    *,
    family: str,
    device: DeviceFacts,
    samples: int = 0,
    sample_steps: int = 25,
    learned: Mapping[str, float] = MappingProxyType({}),
) -> Forecast:
    """Seconds and bytes of a whole training.

    `samples`: pictures that are drawn with every checkpoint and once without, in `sample_steps` steps each. `learned`:
    what earlier trainings took, by `rate_key`: seconds for one picture of one megapixel.
    """
    costs = COSTS.get(family, COSTS["sdxl"])
    rate = learned.get(rate_key(plan, family=family, device=device))
    measured = rate is not None
    if rate is None:
        rate = _guessed_rate(plan, costs, device)
    seen = plan.images_seen / plan.gpus * _mean_megapixels(plan)  # each card looks at its own at the same time
    forward = rate / _STEP / (_TWICE if plan.checkpointing else 1.0)
    drawn = samples * (plan.checkpoints + 1) * sample_steps * 2 * forward * costs.side**2 / 1e6
    size = needed_bytes(plan, family) + (_CUDA if device.kind == "cuda" else _PROCESS)
    return Forecast(seconds=seen * rate + drawn, bytes=int(size), measured=measured)


def rate_key(plan: TrainingPlan, *, family: str, device: DeviceFacts) -> str:
    """Under which a measured rate is remembered: everything that changes what a picture costs, but its size."""
    text = "te" if plan.te_rate or plan.pivotal else "-"
    again = "twice" if plan.checkpointing else "once"
    parts = [device.name, family, plan.algorithm, plan.precision, plan.quantised, again, text, str(plan.batch)]
    parts += [f"held {plan.preserve:g}"] if plan.preserve else []
    return "|".join([*parts, f"{plan.gpus} cards"] if plan.gpus > 1 else parts)


def rate_of(plan: TrainingPlan, seconds_per_step: float) -> float:
    """The rate to remember: seconds for one picture of one megapixel."""
    return seconds_per_step / (plan.batch * plan.accumulation * _mean_megapixels(plan))


def _guessed_rate(plan: TrainingPlan, costs: Costs, device: DeviceFacts) -> float:
    speed = (device.speed or _USUAL[device.kind]) * _REACHED[device.kind]
    work = costs.work * _STEP * (_TWICE if plan.checkpointing else 1.0)
    if plan.te_rate or plan.pivotal:
        work *= 1.1
    work *= 1 + _HELD * plan.preserve
    return work / speed / (costs.side**2 / 1e6)


def _mean_megapixels(plan: TrainingPlan) -> float:
    """Every picture is seen at every resolution equally often."""
    return sum(side * side for side in plan.resolutions) / len(plan.resolutions) / 1e6


def _share(plan: TrainingPlan, costs: Costs) -> float:
    """The largest picture decides what memory has to bear."""
    return (max(plan.resolutions) / costs.side) ** 2
