"""LoHa: ΔW = scale · (w1_a · w1_b) ⊙ (w2_a · w2_b). There is no short way through it: ΔW is formed in every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from loravault.engine.training.networks.adapters import LayerAdapter, Start, as_input, normal
from loravault.engine.training.networks.targets import Layer


class Hadamard(LayerAdapter):
    """Two products of small matrices, multiplied number by number; the kernel of a convolution lies flat."""

    algorithm = "loha"

    def __init__(self, layer: Layer, rank: int, scale: float, start: Start) -> None:
        super().__init__(layer)
        self.rank, self.scale = rank, scale
        out, columns = layer.shape[0], torch.Size(layer.shape[1:]).numel()
        # As LyCORIS begins: one factor is zero, and so is the change.
        self._new("hada_w1_a", normal((out, rank), 0.1, start("hada_w1_a")))
        self._new("hada_w1_b", normal((rank, columns), 1.0, start("hada_w1_b")))
        self._new("hada_w2_a", torch.zeros(out, rank))
        self._new("hada_w2_b", normal((rank, columns), 1.0, start("hada_w2_b")))
        self._factors = tuple(self.parts.values())

    @property
    def alpha(self) -> float:
        """Scale times rank."""
        return self.scale * self.rank

    def forward(self, x: Tensor) -> Tensor:
        """One product with the changed weight where that is fp32; else the change has a product of its own.

        Added to a weight of half precision, most of a small change would be rounded away.
        """
        if self._fused(x) and x.dtype == torch.float32:
            weight = self._held["weight"]
            merged = _change(self._factors, weight.flatten(1), self.scale)
            return self._apply(x, merged.view(weight.shape), self._bias)
        y: Tensor = self._inner(x)
        return y + self.branch(x)

    def branch(self, x: Tensor) -> Tensor:
        """What is added."""
        change = _change(self._factors, None, self.scale).view(self.layer.shape)
        return self._apply(x, as_input(change, x))

    def change(self, w0: Tensor) -> Tensor:
        """The product of the two products."""
        return _change(self._factors, None, self.scale).to(w0.device).view(w0.shape)


class _Change(torch.autograd.Function):
    """ΔW, or W + ΔW, that keeps only the factors for the way back: the products are formed again there."""

    @staticmethod
    def forward(  # noqa: PLR0917 - torch passes them so
        ctx: Any, a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor, weight: Tensor | None, scale: float
    ) -> Tensor:
        ctx.save_for_backward(a1, b1, a2, b2)
        ctx.scale = scale
        change = (a1 * scale @ b1).mul_(a2 @ b2)
        return change if weight is None else change.add_(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        a1, b1, a2, b2 = ctx.saved_tensors
        gradient = gradients[0] * ctx.scale
        first = gradient * (a2 @ b2)
        of_a1, of_b1 = first @ b1.t(), a1.t() @ first
        second = gradient.mul_(a1 @ b1)
        return of_a1, of_b1, second @ b2.t(), a2.t() @ second, None, None


def _change(factors: Sequence[Tensor], weight: Tensor | None, scale: float) -> Tensor:
    with torch.autocast(factors[0].device.type, enabled=False):  # the sum is formed whole, and so is its gradient
        return _apply(*factors, weight, scale)


_apply: Callable[..., Tensor] = _Change.apply
