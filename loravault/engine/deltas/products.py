"""Changes that are products of small matrices and do not depend on the weight: LoRA, LoCon, DyLoRA, LoHa, LoKr."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from loravault.engine.deltas.delta import Delta, any_zero, fp32
from loravault.engine.deltas.parts import Parts, shape_of


@dataclass(frozen=True, eq=False)
class _Product(Delta):
    """What is nothing as soon as one of its tensors is."""

    def is_zero(self) -> bool:
        """One factor is."""
        return any_zero(self.tensors)


@dataclass(frozen=True, eq=False)
class LowRank(_Product):
    """LoRA, LoCon: ΔW = scale · up · down, or with a core (Tucker, “CP”) scale · Σ mid[m,n,…] · up[i,m] · down[n,j]."""

    #: (out, rank).
    up: Tensor
    #: (rank, in) or (rank, in, *kernel); with a core (rank, in).
    down: Tensor
    #: (rank, rank, *kernel).
    mid: Tensor | None
    scale: float

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Two factors, and the core."""
        return (self.up, self.down) if self.mid is None else (self.up, self.down, self.mid)

    @property
    def factors(self) -> tuple[Tensor, Tensor]:
        """The scale is in `up`, the core in `down`."""
        return self.up.to(torch.float32) * self.scale, self._whole_down(self.up)

    @property
    def rank(self) -> int:
        """With or without a core."""
        return self.up.shape[1]

    def product(self) -> tuple[Tensor, Tensor, float]:
        """As the file has it."""
        down = self.down if self.mid is None else self._whole_down(self.up)
        return self.up, down.flatten(1), self.scale

    def _whole_down(self, like: Tensor) -> Tensor:
        down = fp32(self.down, like)
        return down if self.mid is None else torch.einsum("mn...,nj->mj...", fp32(self.mid, like), down)

    def _halves(self, w0: Tensor) -> tuple[Tensor, Tensor]:
        """Both in fp32 on the device of `w0`, the second laid flat. Raises `BrokenPatch` if `w0` is another layer's."""
        down = self._whole_down(w0)
        if down.ndim > 2:
            down = down.flatten(1)
        rows, columns = self.up.shape[0], down.shape[1]
        if w0.shape != (rows, columns):  # not always: to lay it flat takes as long as a small merge
            self._checked(w0, rows, columns)
        return fp32(self.up, w0), down

    def _change(self, w0: Tensor, strength: float) -> Tensor:
        up, down = self._halves(w0)
        return (up * (self.scale * strength)) @ down

    def add_to(self, total: Tensor, w0: Tensor, strength: float) -> None:
        """In one pass where `total` lies in memory row by row."""
        if strength == 0 or not total.is_contiguous():
            return super().add_to(total, w0, strength)
        total.view(self.up.shape[0], -1).addmm_(*self._halves(w0), alpha=self.scale * strength)
        return None

    def merge_into(self, out: Tensor, w0: Tensor, strength: float) -> None:
        """In one pass where both lie in memory row by row."""
        if (
            strength == 0
            or w0.ndim != 2
            or w0.dtype != torch.float32
            or not (out.is_contiguous() and w0.is_contiguous())
        ):
            return super().merge_into(out, w0, strength)
        torch.addmm(w0, *self._halves(w0), alpha=self.scale * strength, out=out)
        return None


def read_low_rank(parts: Parts) -> LowRank:
    """`lora_up`, `lora_down`, `lora_mid`. Raises `BrokenPatch`."""
    up, down, mid = parts.matrix("lora_up"), parts.stack("lora_down"), parts.optional("lora_mid")
    rank, flat = down.shape[0], down.flatten(1)
    if up.shape[1] != rank:
        raise parts.broken(f"has halves of different rank: {shape_of(up)} and {shape_of(down)}")
    if mid is not None:
        if mid.ndim < 3 or tuple(mid.shape[:2]) != (rank, rank) or flat.shape[1] != down.shape[1]:
            raise parts.broken(f"has a core that does not fit its halves: {shape_of(mid)}")
        down = flat
    return LowRank(parts.name, up, down, mid, parts.scale(rank))


@dataclass(frozen=True, eq=False)
class Hadamard(_Product):
    """LoHa: ΔW = scale · (w1_a · w1_b) ⊙ (w2_a · w2_b); with cores, each product is that of Tucker."""

    #: (a, b) or (a, b, core). Without a core a is (out, rank), b (rank, columns); with one (rank, out) and (rank, in).
    first: tuple[Tensor, ...]
    second: tuple[Tensor, ...]
    scale: float

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Four factors, and the two cores."""
        return (*self.first, *self.second)

    def _change(self, w0: Tensor, strength: float) -> Tensor:
        product = _whole(self.first, w0)
        self._checked(w0, *product.shape)
        return product.mul_(_whole(self.second, w0)).mul_(self.scale * strength)

    @property
    def rank(self) -> int | None:
        """The product of the two; None with cores."""
        return None if len(self.first) > 2 else self.first[0].shape[1] * self.second[0].shape[1]

    def product(self) -> tuple[Tensor, Tensor, float] | None:
        """Every column of one side times every column of the other, number by number; rows likewise."""
        rank = self.rank
        if rank is None:
            return None
        (a, b), (c, d) = ((fp32(one, self.first[0]) for one in side) for side in (self.first, self.second))
        up = (a[:, :, None] * c[:, None, :]).reshape(a.shape[0], rank)
        return up, (b[:, None, :] * d[None, :, :]).reshape(rank, b.shape[1]), self.scale


def read_hadamard(parts: Parts) -> Hadamard:
    """`hada_w1_a` … `hada_t2`. Raises `BrokenPatch`."""
    core = "hada_t1" in parts or "hada_t2" in parts
    sides = []
    for number in (1, 2):
        side = (parts.matrix(f"hada_w{number}_a"), parts.matrix(f"hada_w{number}_b"))
        sides.append((*side, parts.tensor(f"hada_t{number}")) if core else side)
    shapes = [_whole_shape(parts, side) for side in sides]
    if shapes[0] != shapes[1]:
        raise parts.broken("has two products of different shape, which cannot be multiplied number by number")
    return Hadamard(parts.name, sides[0], sides[1], parts.scale(sides[0][1].shape[0]))


@dataclass(frozen=True, eq=False)
class Kronecker(_Product):
    """LoKr: ΔW = scale · w1 ⊗ w2, each factor whole or itself a product, w2 also with a core."""

    #: (whole,) or (a, b).
    first: tuple[Tensor, ...]
    #: (whole,), (a, b) or (a, b, core).
    second: tuple[Tensor, ...]
    scale: float

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All factors."""
        return (*self.first, *self.second)

    def _change(self, w0: Tensor, strength: float) -> Tensor:
        # Laid flat, the columns of a convolution are those of the product of two flat matrices: the kernel comes last.
        first, second = _whole(self.first, w0), _whole(self.second, w0)
        self._checked(w0, first.shape[0] * second.shape[0], first.shape[1] * second.shape[1])
        return torch.kron(first * (self.scale * strength), second)

    @property
    def rank(self) -> int | None:
        """The product of the ranks of both factors, of which a whole one has as many as its shorter side."""
        ranks = [min(side[0].shape) if len(side) == 1 else side[0].shape[1] for side in (self.first, self.second)]
        return None if len(self.second) > 2 else ranks[0] * ranks[1]

    def product(self) -> tuple[Tensor, Tensor, float] | None:
        """(a · b) ⊗ (c · d) is (a ⊗ c) · (b ⊗ d)."""
        if self.rank is None:
            return None
        (a, b), (c, d) = _two_halves(self.first), _two_halves(self.second)
        return torch.kron(a, c), torch.kron(b, d), self.scale


def read_kronecker(parts: Parts) -> Kronecker:
    """`lokr_w1` or its halves, `lokr_w2` or its halves, `lokr_t2`. Raises `BrokenPatch`."""
    first, second = (_kronecker_side(parts, name) for name in ("lokr_w1", "lokr_w2"))
    for side in (first, second):
        _whole_shape(parts, side)
    halves = [side for side in (first, second) if len(side) > 1]
    # Two whole factors are not scaled, whatever alpha says.
    scale = parts.scale(halves[0][1].shape[0]) if halves else 1.0
    return Kronecker(parts.name, first, second, scale)


def _kronecker_side(parts: Parts, name: str) -> tuple[Tensor, ...]:
    if name in parts:
        return (parts.matrix(name),)
    if f"{name}_a" not in parts and f"{name}_b" not in parts:
        raise parts.broken(f"is incomplete: {name} is missing")
    halves = (parts.matrix(f"{name}_a"), parts.matrix(f"{name}_b"))
    core = parts.optional("lokr_t2") if name == "lokr_w2" else None
    return halves if core is None else (*halves, core)


def _whole(side: tuple[Tensor, ...], like: Tensor) -> Tensor:
    """The matrix that is kept whole, as two halves, or as two halves and a core; laid flat."""
    parts = [fp32(part, like) for part in side]
    if len(parts) == 1:
        return parts[0]
    if len(parts) == 2:
        return parts[0] @ parts[1]
    return torch.einsum("mn...,mi,nj->ij...", parts[2], parts[0], parts[1]).flatten(1)


def _two_halves(side: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """The matrix as a product in fp32; what is whole, beside an identity."""
    halves = [fp32(part, side[0]) for part in side]
    if len(halves) == 2:
        return halves[0], halves[1]
    whole = halves[0]
    identity = torch.eye(min(whole.shape), device=whole.device)
    return (whole, identity) if whole.shape[0] >= whole.shape[1] else (identity, whole)


def _whole_shape(parts: Parts, side: tuple[Tensor, ...]) -> tuple[int, int]:
    """Rows and columns of `_whole`. Raises `BrokenPatch` if the pieces cannot be multiplied."""
    if len(side) == 1:
        return side[0].shape[0], side[0].shape[1]
    a, b = side[:2]
    if len(side) == 2:
        if a.shape[1] != b.shape[0]:
            raise parts.broken(f"has halves of different rank: {shape_of(a)} and {shape_of(b)}")
        return a.shape[0], b.shape[1]
    core = side[2]
    if core.ndim < 3 or tuple(core.shape[:2]) != (a.shape[0], b.shape[0]):
        raise parts.broken(f"has a core that does not fit its halves: {shape_of(core)}")
    return a.shape[1], b.shape[1] * core.shape[2:].numel()
