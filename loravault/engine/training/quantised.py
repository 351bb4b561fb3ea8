"""The weights of a frozen base in eight or four bits: an adapter of a large model is trained on a small card.

Only what is stored shrinks: each weight is put back into the base's own precision when it is used, forward and
backward, and forgotten again. No package is needed, and it works on every device.

int8: one scale for each row, w ≈ s·q with s = max|w|/127. nf4 (Dettmers et al. 2023): blocks of 64 weights, each with
its largest absolute value as scale, and sixteen levels at the quantiles of a normal distribution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from loravault.formats.training import Quantised

BLOCK = 64
#: The levels of NormalFloat4.
LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


class QuantisedLinear(nn.Linear):
    """A linear layer whose weight is put together when it is asked for. Made in place: who holds the layer keeps it."""

    packed: Tensor
    scales: Tensor

    def restored(self) -> Tensor:
        """The weight, in the precision of the model."""
        raise NotImplementedError

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """As any other layer has it; a copy, made for this call."""
        return self.restored()

    def forward(self, input: Tensor) -> Tensor:
        """Without the restored weight being kept for the backward pass."""
        found: Tensor = _Frozen.apply(input, self)  # type: ignore[no-untyped-call]
        return found


class Int8Linear(QuantisedLinear):
    """One byte a weight."""

    def restored(self) -> Tensor:
        """s·q."""
        return self.packed.to(self.scales.dtype) * self.scales


class Nf4Linear(QuantisedLinear):
    """Half a byte a weight."""

    levels: Tensor

    def restored(self) -> Tensor:
        """The level of each weight times the scale of its block; two weights in a byte, the first in its high half."""
        number = torch.stack([self.packed >> 4, self.packed & 15], dim=-1).view(-1, BLOCK).int()
        blocks = self.levels[number] * self.scales[:, None]
        return blocks.view(-1)[: self.out_features * self.in_features].view(self.out_features, self.in_features)


class _Frozen(torch.autograd.Function):
    """x·Wᵀ + b with a weight that gets no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantisedLinear) -> Tensor:
        ctx.layer = layer
        return functional.linear(x, layer.restored().to(x.dtype), layer.bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.layer.restored().to(gradient.dtype), None


def quantise(model: nn.Module, kind: Quantised, place: torch.device | None = None) -> int:
    """Every linear layer of a frozen model, in place, but those that are too small to matter; returns how many.

    `place`: where everything is moved, layer by layer, so that the whole of it never has to fit there unpacked.
    """
    done = 0
    for layer in model.modules() if kind != "none" else ():
        if type(layer) is nn.Linear and layer.weight.numel() >= BLOCK * BLOCK:
            layer.to(place or layer.weight.device)
            (_to_int8 if kind == "int8" else _to_nf4)(layer)
            done += 1
    if place is not None:
        model.to(place)
    return done


def _take(layer: nn.Linear, kind: type[QuantisedLinear], packed: Tensor, scales: Tensor) -> Any:
    layer._parameters["weight"] = None  # there is a weight, but it is no parameter
    layer.__class__ = kind
    layer.register_buffer("packed", packed)
    layer.register_buffer("scales", scales)
    return layer


@torch.no_grad()
def _to_int8(layer: nn.Linear) -> None:
    weight = layer.weight.float()
    scales = (weight.abs().amax(dim=1, keepdim=True) / 127).clamp_min(torch.finfo(torch.float32).tiny)
    packed = (weight / scales).round().clamp(-127, 127).to(torch.int8)
    _take(layer, Int8Linear, packed, scales.to(layer.weight.dtype))


@torch.no_grad()
def _to_nf4(layer: nn.Linear) -> None:
    weight, dtype = layer.weight.float(), layer.weight.dtype
    flat = functional.pad(weight.flatten(), (0, -weight.numel() % BLOCK)).view(-1, BLOCK)
    scales = flat.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    levels = torch.tensor(LEVELS, device=flat.device)
    number = torch.bucketize(flat / scales[:, None], (levels[1:] + levels[:-1]) / 2).to(torch.uint8).view(-1, 2)
    made = _take(layer, Nf4Linear, (number[:, 0] << 4) | number[:, 1], scales.to(dtype))
    made.register_buffer("levels", levels.to(dtype))
