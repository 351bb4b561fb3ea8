"""DoRA: the changed weight, its columns (or rows) brought to lengths that are learned."""

from __future__ import annotations

import torch
from torch import Tensor

from loravault.engine.training.networks.adapters import LayerAdapter, as_input
from loravault.engine.training.networks.hadamard import Hadamard
from loravault.engine.training.networks.kronecker import Kronecker
from loravault.engine.training.networks.low_rank import LowRank

#: What can be decomposed.
Additive = LowRank | Hadamard | Kronecker
#: As the engine that reads the file adds it: no division by nothing.
_EPSILON = torch.finfo(torch.float32).eps


class Decomposed(LayerAdapter):
    """W′ = magnitude · (W + ΔW) / ‖W + ΔW‖; the norm is no part of the gradient, as in the paper (section 4.3)."""

    def __init__(self, inner: Additive, *, on_output: bool = False) -> None:
        """`on_output`: a length for each output, as PEFT has it; else for each input, as most readers of files do."""
        super().__init__(inner.layer)
        self.algorithm = inner.algorithm
        self.inner = inner
        self._axis = 0 if on_output else 1
        self.parts = dict(inner.parts)
        self._magnitude = self._new("dora_scale", self._lengths(self._original().cpu()))

    @property
    def alpha(self) -> float:
        """That of ΔW."""
        return self.inner.alpha

    def forward(self, x: Tensor) -> Tensor:
        """Inputs are brought to length before the layer, outputs after it."""
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            original = self._original()
            norm = self._lengths(original + self.inner.change(original))
        ratio = as_input(self._magnitude / norm, x)
        if self._axis == 1:
            scaled = x * (ratio if self.layer.convolution else ratio.view(-1))
            y: Tensor = self._inner(scaled)
            return y + self.inner.branch(scaled)
        ratio = ratio.view(-1, *(1,) * (len(self.layer.shape) - 2))
        y = self._inner(x)
        bias = self._bias
        if bias is None:
            return (y + self.inner.branch(x)) * ratio
        bias = bias.view(ratio.shape)
        return (y - bias + self.inner.branch(x)) * ratio + bias

    def change(self, w0: Tensor) -> Tensor:
        """W′ − W."""
        merged = w0 + self.inner.change(w0)
        return merged * (self._magnitude.to(w0.device) / self._lengths(merged)) - w0

    def _original(self) -> Tensor:
        weight: Tensor = self._held["weight"].detach().float()
        return weight

    def _lengths(self, weight: Tensor) -> Tensor:
        """(out, 1, …) or (1, in, …)."""
        others = tuple(dimension for dimension in range(weight.ndim) if dimension != self._axis)
        norm: Tensor = torch.linalg.vector_norm(weight, dim=others, keepdim=True)
        return norm + _EPSILON
