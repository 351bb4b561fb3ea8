"""Layers to be adapted, and what a layer has become, read from what it computes and not from what it says it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

#: Columns of the matrix. Inputs and outputs differ, and have many factors.
KINDS = ("linear", "conv 1×1", "conv 3×3", "norm")
INTO, OUT = 48, 64

#: The weight and the bias that a layer applies; no bias where it adds none.
Seen = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Made:
    """An adapter of somebody else's on one layer."""

    #: As in `formats.normal.Patch`.
    algorithm: str
    #: As they stand in the file of its maker, in the spelling of the normaliser.
    parts: dict[str, Tensor]
    before: Seen
    #: Strength → what the adapted layer applies.
    adapted: Callable[[float], Seen]
    #: What the maker keeps beside the tensors.
    alpha: float | None = None
    peft: bool = False


class Impossible(Exception):  # noqa: N818 - an answer, not a fault
    """The reference has no such adapter for this layer; the reason in two or three words."""


def layer_of(kind: str, *, bias: bool = False) -> nn.Module:
    """A layer with normally distributed weights."""
    layer: nn.Module
    if kind == "linear":
        layer = nn.Linear(INTO, OUT, bias=bias)
    elif kind == "norm":
        layer = nn.GroupNorm(8, OUT)
    else:
        layer = nn.Conv2d(INTO, OUT, 3 if kind == "conv 3×3" else 1, bias=bias)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
        parameter.requires_grad_(False)
    return layer


@torch.no_grad()
def seen(forward: Callable[[Tensor], Tensor], weight: Tensor) -> Seen:
    """What weight of the shape of `weight`, and what bias, `forward` applies: one input for every number of a row."""
    if weight.ndim == 1:  # the two values of each channel are normalised to ±1
        x = torch.tensor([1.0, -1.0]).expand(1, weight.numel(), 1, 2)
        plus, minus = forward(x), forward(-x)
        size = nn.functional.group_norm(x, 8)
        return ((plus - minus) / (2 * size))[0, :, 0, 0], ((plus + minus) / 2)[0, :, 0, 0]
    columns = weight[0].numel()
    shape = (columns, *weight.shape[1:])
    nothing = forward(torch.zeros(1, *weight.shape[1:])).flatten()
    rows = forward(torch.eye(columns).reshape(shape)).reshape(columns, -1)
    return (rows - nothing).T.reshape(weight.shape), nothing


def randomise(module: nn.Module) -> None:
    """Numbers that change the weight by about as much as it is, in everything that is trained."""
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        products = any(part in name for part in ("hada", "lokr", "lora_mid"))  # of many small numbers: nothing is left
        nn.init.normal_(parameter, std=0.7 if products else 0.3)
        if name.endswith(("rescale",)) or any(part in name for part in ("boft_s", "ia3_l")):
            parameter.data.add_(1)
        if "dora_scale" in name or "magnitude" in name:
            parameter.data.abs_().add_(0.5)


def state_of(layer: nn.Module) -> Seen:
    """Copies of what a plain layer holds."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    bias = layer.bias
    return weight.detach().clone(), bias.detach().clone() if bias is not None else torch.zeros(weight.shape[0])
