"""Changes that are kept whole: differences, new values, norms; and what goes to the bias."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from loravault.engine.deltas.delta import Delta, any_zero, fp32
from loravault.engine.deltas.parts import Parts, shape_of


@dataclass(frozen=True, eq=False)
class Difference(Delta):
    """“Full” and norms: ΔW is in the file."""

    difference: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The difference."""
        return (self.difference,)

    def _change(self, w0: Tensor, strength: float) -> Tensor:
        return _alike(self, self.difference, w0) * strength

    def is_zero(self) -> bool:
        """It is."""
        return any_zero(self.tensors)


@dataclass(frozen=True, eq=False)
class Replacement(Delta):
    """`set_weight`: the layer gets new values; in between, a way towards them."""

    value: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The new values."""
        return (self.value,)

    def _change(self, w0: Tensor, strength: float) -> Tensor:
        return (_alike(self, self.value, w0) - w0) * strength

    def is_zero(self) -> bool:
        """Nobody knows without the layer."""
        return False


def _alike(delta: Delta, tensor: Tensor, w0: Tensor) -> Tensor:
    """`tensor` in fp32 and in the shape of `w0`, from which it may differ in a kernel of 1×1."""
    if _squeezed(tensor) != _squeezed(w0):
        raise delta.misfit(w0, shape_of(tensor))
    return fp32(tensor, w0).reshape(w0.shape)


def _squeezed(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape[:2]) if set(tensor.shape[2:]) <= {1} else tuple(tensor.shape)


@dataclass(frozen=True, eq=False)
class WithBias(Delta):
    """A change of the weight, and one of the bias beside it."""

    inner: Delta
    #: What is added to the bias, times `scale`; with `new` the bias itself.
    values: Tensor
    scale: float
    new: bool

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Those of the weight, and that of the bias."""
        return (*self.inner.tensors, self.values)

    @property
    def factors(self) -> tuple[Tensor, Tensor] | None:
        """Of the weight."""
        return self.inner.factors

    def _change(self, w0: Tensor, strength: float) -> Tensor:
        return self.inner.change(w0, strength)

    def add_to(self, total: Tensor, w0: Tensor, strength: float) -> None:
        """As the change of the weight does it."""
        self.inner.add_to(total, w0, strength)

    @property
    def touches_bias(self) -> bool:
        """It does."""
        return True

    def bias(self, strength: float, b0: Tensor | None = None) -> Tensor | None:
        """Its own, and what the change of the weight adds to the bias. On the device of `b0`, if there is one."""
        if strength == 0:
            return None
        device = b0.device if b0 is not None else self.values.device
        own = self.values.to(device, torch.float32).flatten()
        if b0 is not None and b0.numel() != own.numel():
            raise self.misfit(b0, f"{own.numel()} outputs")
        if self.new:
            own = own if b0 is None else own - b0.to(torch.float32)
        beside = self.inner.bias(strength, b0)
        own = own * (self.scale * strength)
        return own if beside is None else own + beside

    def is_zero(self) -> bool:
        """Both are."""
        return not self.new and any_zero((self.values,)) and self.inner.is_zero()


def read_whole(parts: Parts) -> Difference | Replacement | None:
    """`diff`, `w_norm` or `set_weight`; None if there is neither and only the bias is meant."""
    for part in ("diff", "w_norm"):
        if part in parts:
            return Difference(parts.name, parts.tensor(part))
    return Replacement(parts.name, parts.tensor("set_weight")) if "set_weight" in parts else None
