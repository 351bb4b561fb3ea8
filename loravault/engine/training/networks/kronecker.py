"""LoKr: ΔW = scale · w1 ⊗ w2, applied as two small products: (w1 ⊗ w2) · vec(X) = vec(w2 · X · w1ᵀ)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from loravault.engine.training.networks.adapters import LayerAdapter, Start, as_input, kaiming
from loravault.engine.training.networks.targets import Layer


def factorization(size: int, factor: int) -> tuple[int, int]:
    """A width as the product of two, the smaller first: by `factor` where it divides, else by the next smaller divisor.

    -1: the pair nearest to the square root. The pairs that LyCORIS takes, whose files we write.
    """
    if factor > 0 and size % factor == 0:
        return min(factor, size // factor), max(factor, size // factor)
    most = math.isqrt(size) if factor < 0 else min(factor, math.isqrt(size))
    small = max(divisor for divisor in range(1, max(1, most) + 1) if size % divisor == 0)
    return small, size // small


class Kronecker(LayerAdapter):
    """A small matrix that is whole, and a large one that is whole or the product of two.

    Never with both in halves: readers guess their shapes, and some guess wrong. Two whole ones have the scale 1, as
    every reader takes it to be.
    """

    algorithm = "lokr"

    def __init__(self, layer: Layer, rank: int, scale: float, factor: int, start: Start) -> None:
        super().__init__(layer)
        (self._out_small, self._out), (self._in_small, self._in) = (
            factorization(size, factor) for size in layer.shape[:2]
        )
        kernel = layer.shape[2:]
        self.rank = rank
        self.whole = rank >= max(self._out, self._in) / 2
        self.scale = 1.0 if self.whole else scale
        first = (self._out_small, self._in_small)
        self._w1 = self._new("lokr_w1", kaiming(first, start("lokr_w1")))
        if self.whole:
            self._w2 = self._new("lokr_w2", torch.zeros(self._out, self._in, *kernel))
        else:
            columns = self._in * torch.Size(kernel).numel()
            self._a = self._new("lokr_w2_a", kaiming((self._out, rank), start("lokr_w2_a")))
            self._b = self._new("lokr_w2_b", torch.zeros(rank, columns))

    @property
    def alpha(self) -> float:
        """Scale times rank; of two whole matrices, what says 1 to whoever looks."""
        return self.scale * self.rank

    def forward(self, x: Tensor) -> Tensor:
        """Beside the layer."""
        y: Tensor = self._inner(x)
        return y + self.branch(x)

    def branch(self, x: Tensor) -> Tensor:
        """What is added."""
        return self._convolved(x) if self.layer.convolution else self._linear(x)

    def _linear(self, x: Tensor) -> Tensor:
        rows = x.reshape(*x.shape[:-1], self._in_small, self._in)
        first = as_input(self._w1, x) * self.scale
        if self.whole:
            done = first @ functional.linear(rows, as_input(self._w2, x))
        else:  # the small matrix where there are fewest numbers: between the halves of the large one
            hidden = first @ functional.linear(rows, as_input(self._b, x))
            done = functional.linear(hidden, as_input(self._a, x))
        return done.reshape(*x.shape[:-1], self.layer.shape[0])

    def _convolved(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        groups = x.reshape(batch * self._in_small, self._in, *x.shape[2:])
        if self.whole:
            hidden = self._apply(groups, as_input(self._w2, x))
        else:
            hidden = self._apply(groups, as_input(self._b, x).view(self.rank, self._in, *self.layer.shape[2:]))
        size = hidden.shape[2:]
        mixed = (as_input(self._w1, x) * self.scale) @ hidden.reshape(batch, self._in_small, -1)
        if not self.whole:
            mixed = mixed.reshape(batch * self._out_small, self.rank, *size)
            mixed = functional.conv2d(mixed, as_input(self._a, x)[:, :, None, None])
        return mixed.reshape(batch, self.layer.shape[0], *size)

    def change(self, w0: Tensor) -> Tensor:
        """The Kronecker product, written out."""
        second = self._w2.flatten(1) if self.whole else self._a @ self._b
        return torch.kron(self._w1 * self.scale, second).to(w0.device).reshape(w0.shape)
