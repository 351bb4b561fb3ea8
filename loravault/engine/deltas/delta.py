"""What every kind of change has in common: what it can be asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loravault.engine.deltas.parts import BrokenPatch, shape_of


@dataclass(frozen=True, eq=False)
class Delta(ABC):
    """What one patch does to the weight and the bias of one layer.

    Its tensors stay as the file has them, precision and all; arithmetic is in fp32 on the device of the weight.
    """

    #: The module as the file calls it, for messages.
    name: str

    @property
    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """Everything it holds."""

    @abstractmethod
    def _change(self, w0: Tensor, strength: float) -> Tensor:
        """`change` for a `w0` in fp32 and a strength other than 0; any shape with the right rows in the right order."""

    @abstractmethod
    def is_zero(self) -> bool:
        """Whether it is known to change nothing, whatever the layer."""

    def change(self, w0: Tensor, strength: float) -> Tensor:
        """W′ − W0 in fp32, in the shape and on the device of `w0`, the weight as the base has it.

        Strength 0 is exactly nothing, for every kind. Raises `BrokenPatch` if it is made for a layer of another shape.
        """
        if strength == 0:
            return torch.zeros(w0.shape, dtype=torch.float32, device=w0.device)
        return self._change(w0.to(torch.float32), strength).reshape(w0.shape)

    def add_to(self, total: Tensor, w0: Tensor, strength: float) -> None:
        """Adds `change` to `total` (fp32, shape and device of `w0`) in place, without a copy where that can be."""
        if strength != 0:
            total.add_(self.change(w0, strength))

    def merge_into(self, out: Tensor, w0: Tensor, strength: float) -> None:
        """Writes W′ to `out` (fp32, shape, device and strides of `w0`), in one pass where that can be."""
        self.add_to(out.copy_(w0), w0, strength)

    @property
    def touches_bias(self) -> bool:
        """Whether the bias of the layer changes too."""
        return False

    def bias(self, strength: float, b0: Tensor | None = None) -> Tensor | None:  # noqa: ARG002
        """What is to be added to the bias `b0` (None: the layer has none), in fp32; None for nothing."""
        return None

    @property
    def factors(self) -> tuple[Tensor, Tensor] | None:
        """(up, down) in fp32 with the change of the weight at strength 1 = up · down, up: (out, rank), down: (rank,
        in) or (rank, in, *kernel); None if the change is not kept as such a product, or depends on the weight.
        """
        return None

    @property
    def rank(self) -> int | None:
        """The rank of `product`, known without forming it; None where there is none."""
        return None

    def product(self) -> tuple[Tensor, Tensor, float] | None:
        """(up, down, scale) with the change of the weight at strength 1 = scale · up · down, down laid flat.

        In the file's precision where the file has it so. None if `rank` is.
        """
        return None

    @property
    def bytes(self) -> int:
        """Memory that its tensors hold."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors)

    def finite(self) -> bool:
        """Whether all its numbers are numbers."""
        return all(all_finite(tensor) for tensor in self.tensors)

    def _checked(self, w0: Tensor, rows: int, columns: int) -> Tensor:
        """`w0` laid flat, (rows, columns). Raises `BrokenPatch` if that is not its shape."""
        if w0.ndim < 2 or w0.shape[0] != rows or w0.shape[1:].numel() != columns:
            raise self.misfit(w0, f"{rows}×{columns}")
        return w0.reshape(rows, columns)

    def misfit(self, w0: Tensor, made_for: str) -> BrokenPatch:
        """The error that `w0` is not the weight that this can change."""
        return BrokenPatch(f"its module “{self.name}” is made for {made_for}, the layer of the base is {shape_of(w0)}")


@dataclass(frozen=True, eq=False)
class Nothing(Delta):
    """No change of the weight, where only the bias changes."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """None."""
        return ()

    def _change(self, w0: Tensor, strength: float) -> Tensor:  # noqa: ARG002
        return torch.zeros_like(w0)

    def is_zero(self) -> bool:
        """It is."""
        return True


def fp32(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor` in fp32 on the device of `like`."""
    return tensor.to(like.device, torch.float32)


def all_finite(tensor: Tensor) -> bool:
    """Whether no number is NaN or infinite."""
    wide = tensor.float() if tensor.element_size() == 1 else tensor
    # A sum reads memory once and builds nothing. It may overflow without any fault in the numbers; they decide then.
    return bool(wide.sum(dtype=torch.float32).isfinite()) or bool(wide.isfinite().all())


def any_zero(tensors: Sequence[Tensor]) -> bool:
    """Whether one of the tensors, of which a product is made, is zero throughout."""
    return any(not bool((tensor.float() if tensor.element_size() == 1 else tensor).any()) for tensor in tensors)
