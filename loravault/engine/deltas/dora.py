"""DoRA: any change of a weight, whose rows (or columns) then get lengths of their own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from loravault.engine.deltas.delta import Delta, fp32
from loravault.engine.deltas.parts import Parts, shape_of


@dataclass(frozen=True, eq=False)
class Decomposed(Delta):
    """W′ = magnitude · (W + ΔW) / ‖W + ΔW‖, the norm over each row, or over each column with all its kernel.

    Strength goes the straight way from W to W′, as ComfyUI, Forge and A1111 do it.
    """

    inner: Delta
    #: One number for each output, or for each input.
    magnitude: Tensor
    #: Whether its shape needs no look: PEFT always means outputs, though it writes (1, out, 1, 1) for a convolution.
    on_output: bool

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Those of the direction, and the lengths."""
        return (*self.inner.tensors, self.magnitude)

    def _change(self, w0: Tensor, strength: float) -> Tensor:
        axis = self._axis(w0)
        merged = w0 + self.inner.change(w0, 1.0)
        others = tuple(dimension for dimension in range(w0.ndim) if dimension != axis)
        norm = torch.linalg.vector_norm(merged, dim=others, keepdim=True) + torch.finfo(torch.float32).eps
        magnitude = fp32(self.magnitude, w0).reshape(norm.shape)
        return merged.mul_(magnitude / norm).sub_(w0).mul_(strength)

    def _axis(self, w0: Tensor) -> int:
        """0 for a length of each output, 1 of each input."""
        shape = tuple(self.magnitude.shape)
        if w0.ndim < 2:
            raise self.misfit(w0, "two dimensions")
        out, into = w0.shape[:2]
        if self.magnitude.numel() == out and (self.on_output or len(shape) == 1 or shape[0] == out):
            return 0
        if not self.on_output and len(shape) > 1 and shape[:2] == (1, into) and self.magnitude.numel() == into:
            return 1
        raise self.misfit(w0, f"lengths of the shape {shape_of(self.magnitude)}")

    @property
    def touches_bias(self) -> bool:
        """As the change without lengths."""
        return self.inner.touches_bias

    def bias(self, strength: float, b0: Tensor | None = None) -> Tensor | None:
        """As the change without lengths."""
        return self.inner.bias(strength, b0)

    def is_zero(self) -> bool:
        """Nobody knows without the weight: its lengths may be others."""
        return False


def decomposed(inner: Delta, parts: Parts) -> Delta:
    """`inner` with `dora_scale`, if the patch has that."""
    magnitude = parts.optional("dora_scale")
    if magnitude is None:
        return inner
    return Decomposed(inner.name, inner, magnitude, "lora_magnitude_vector" in parts.written_as("dora_scale"))
