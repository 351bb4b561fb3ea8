"""Which optimiser turns gradients into steps, with a rate for each part of the model."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from loravault.engine.training.prodigy import Prodigy
from loravault.errors import UserError
from loravault.formats.training import Optimizer, TrainingPlan

#: As in torch and in kohya's scripts.
WEIGHT_DECAY = 0.01

#: What a network calls the vectors of the trigger; text encoders may be left alone while they are learned.
WORDS = "words"

Groups = list[dict[str, Any]]


def make_optimizer(
    plan: TrainingPlan, parameters: Mapping[str, Sequence[nn.Parameter]], device: torch.device
) -> tuple[torch.optim.Optimizer, str | None]:
    """The optimiser of a plan, and what has to be said about it: a sentence if another one took its place.

    Every group has `peak`: the rate that the schedule is a share of. Raises `UserError` if it cannot be had.
    """
    groups = groups_of(plan, parameters)
    kind, said = available(plan.optimizer, device)
    made: Any
    if kind == "prodigy":
        made = Prodigy(groups, weight_decay=WEIGHT_DECAY)
    elif kind == "adafactor":
        made = _adafactor(groups)
    elif kind == "adamw8bit":
        made = importlib.import_module("bitsandbytes").optim.AdamW8bit(groups, weight_decay=WEIGHT_DECAY)
    else:
        # `fused` is one pass over all numbers: a fourth of the time of the plain loop, on a CPU too
        made = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, fused=device.type in ("cpu", "cuda", "mps"))
    return made, said


def available(wish: Optimizer, device: torch.device) -> tuple[Optimizer, str | None]:
    """What is used in the place of a wish on this machine, and a sentence if it is not the wish."""
    if wish != "adamw8bit":
        return wish, None
    if device.type != "cuda":
        return (
            "adamw",
            "8-bit AdamW is for NVIDIA cards; trained with AdamW, which learns the same and takes more memory.",
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        return "adamw", (
            "8-bit AdamW needs the package bitsandbytes, which is not installed; trained with AdamW, which learns the "
            "same and takes more memory."
        )
    return wish, None


def groups_of(plan: TrainingPlan, parameters: Mapping[str, Sequence[nn.Parameter]]) -> Groups:
    """One group for each component; text encoders have their own rate. Raises `UserError` if nothing is learned."""
    groups: Groups = []
    for component, some in parameters.items():
        rate = plan.learning_rate
        if component.startswith("text_encoder"):
            rate = plan.te_rate
        elif component == WORDS:
            rate = plan.te_rate or plan.learning_rate
        if rate < 0:
            raise UserError(f"A learning rate of {rate:g} is not possible.")
        if rate and some:
            groups.append({"params": list(some), "lr": rate, "peak": rate, "component": component})
    if not groups:
        raise UserError("Both learning rates are 0: nothing would be learned. Leave `learning_rate` out.")
    return groups


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """This share of every group's own rate, for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def _adafactor(groups: Groups) -> Any:
    """Adafactor with rates from outside, as kohya's guide sets it for LoRAs."""
    make: Any = importlib.import_module("transformers.optimization").Adafactor  # most of a second, with its trainer
    return make(groups, scale_parameter=False, relative_step=False, warmup_init=False, weight_decay=0.0)
