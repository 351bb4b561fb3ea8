"""Changes that turn the weight in blocks: OFT and BOFT of LyCORIS and kohya on the outputs, PEFT's on the inputs.

A skew-symmetric matrix Q makes a rotation R by Cayley's formula. What is computed everywhere is R − I, not R: small
changes keep their digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from loravault.engine.deltas.delta import Delta, fp32
from loravault.engine.deltas.parts import Parts, shape_of

#: From the tensor of the file, in fp32, to R − I: (stages, blocks, size, size), or one block for all of them.
Turns = Callable[[Tensor], Tensor]
#: (rows, size of a block, stage) → the rows in the order in which the blocks of that stage take them.
Order = Callable[[int, int, int], Tensor]


@dataclass(frozen=True, eq=False)
class Rotation(Delta):
    """Stages of rotations in blocks, one after the other, of the rows of W (its outputs) or of Wᵀ (its inputs)."""

    blocks: Tensor
    #: From `blocks` to R − I.
    turns: Turns
    #: Width of a block.
    size: int
    on_input: bool
    #: How each stage gathers its blocks; None: they lie one after the other.
    order: Order | None
    #: A factor for every output, applied after the turn.
    rescale: Tensor | None
    #: Whether the whole change follows the strength; else each rotation does, and the factors stay as they are.
    linear: bool

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Blocks and factors."""
        return (self.blocks,) if self.rescale is None else (self.blocks, self.rescale)

    def _change(self, w0: Tensor, strength: float) -> Tensor:
        flat = w0.reshape(w0.shape[0], -1)
        turns = self.turns(fp32(self.blocks, w0))
        self._check(w0, flat.shape[1 if self.on_input else 0], turns.shape[1])
        turns = turns if self.linear else turns * strength
        change = self._turned(flat.T, turns).T if self.on_input else self._turned(flat, turns)
        if self.rescale is not None:
            factors = fp32(self.rescale, w0).reshape(-1, 1)
            change = change * factors + flat * (factors - 1)
        return change * strength if self.linear else change

    def _check(self, w0: Tensor, width: int, count: int) -> None:
        shared = count == 1 and self.blocks.ndim == 2  # PEFT may keep one triangle for all blocks
        if w0.ndim < 2 or (width != self.size * count and not (shared and width % self.size == 0)):
            raise self.misfit(w0, f"{count * self.size} {'inputs' if self.on_input else 'outputs'}")
        if self.rescale is not None and self.rescale.numel() != w0.shape[0]:
            raise self.misfit(w0, f"{self.rescale.numel()} outputs")

    def _turned(self, rows: Tensor, turns: Tensor) -> Tensor:
        """What the stages, one after the other, add to `rows` (n, columns)."""
        change = torch.zeros_like(rows)
        for stage, turn in enumerate(turns):
            current = rows + change if stage else rows
            order = self.order(rows.shape[0], self.size, stage).to(rows.device) if self.order else slice(None)
            blocks = current[order].reshape(-1, self.size, rows.shape[1])
            change[order] += torch.matmul(turn, blocks).reshape(rows.shape)
        return change

    def is_zero(self) -> bool:
        """Nothing turns, and all factors are 1."""
        still = not bool(self.turns(self.blocks.to(torch.float32)).any())
        return still and (self.rescale is None or bool((self.rescale.float() == 1).all()))


def _number_by_number(width: int, size: int, stage: int) -> Tensor:
    """LyCORIS: a block takes half a block of rows and those 2ⁱ half blocks further on, by turns."""
    return torch.arange(width).view(-1, 2, 2**stage * (size // 2)).transpose(1, 2).reshape(-1)


def _half_by_half(width: int, size: int, stage: int) -> Tensor:
    """PEFT: the same rows, one half after the other."""
    return torch.arange(width).view(-1, 2, 2**stage, size // 2).transpose(1, 2).reshape(-1)


def read_outputs(parts: Parts) -> Rotation:
    """`oft_blocks` of three (OFT) or four dimensions (BOFT), or `oft_diag`, with `alpha` and `rescale`.

    Here `alpha` is no scale: times the number of outputs it is the greatest norm that Q may have. Raises `BrokenPatch`.
    """
    alpha, rescale = parts.alpha(), parts.optional("rescale")
    if "oft_diag" in parts:
        blocks, turns = _square(parts, "oft_diag", (3,)), _given
        return Rotation(parts.name, blocks, turns, blocks.shape[-1], False, None, rescale, linear=False)
    blocks = _square(parts, "oft_blocks", (3, 4))
    outputs = blocks.shape[-3] * blocks.shape[-1]
    _check_stages(parts, blocks)
    plain = blocks.ndim == 3
    turns = partial(_cayley_outputs, most=(alpha or 0.0) * outputs, transposed=plain)
    order = None if plain else _number_by_number
    return Rotation(parts.name, blocks, turns, blocks.shape[-1], False, order, rescale, linear=False)


def read_inputs(parts: Parts) -> Rotation:
    """PEFT's `oft_R`, or `boft_R` with `boft_s`. Raises `BrokenPatch`."""
    if "boft_R" in parts:
        blocks = _square(parts, "boft_R", (4,))
        _check_stages(parts, blocks)
        rescale, order = parts.tensor("boft_s"), _half_by_half if blocks.shape[0] > 1 else None
        return Rotation(parts.name, blocks, _cayley_inputs, blocks.shape[-1], True, order, rescale, linear=True)
    triangles = parts.stack("oft_R")
    size = (1 + math.isqrt(1 + 8 * triangles.shape[-1])) // 2
    if triangles.ndim != 2 or size * (size - 1) // 2 != triangles.shape[1]:
        raise parts.broken(f"has a part oft_R that holds no triangles: {shape_of(triangles)}")
    return Rotation(parts.name, triangles, partial(_neumann, size=size), size, True, None, None, linear=True)


def _square(parts: Parts, part: str, dimensions: tuple[int, ...]) -> Tensor:
    blocks = parts.stack(part)
    if blocks.ndim not in dimensions or blocks.shape[-1] != blocks.shape[-2]:
        raise parts.broken(f"has a part {part} that holds no square blocks: {shape_of(blocks)}")
    return blocks


def _check_stages(parts: Parts, blocks: Tensor) -> None:
    """A butterfly takes pairs of half blocks, twice as far apart in each stage. PEFT's of one stage takes none."""
    if blocks.ndim == 3 or (blocks.shape[0] == 1 and "boft_R" in parts):
        return
    if blocks.shape[-1] % 2 or blocks.shape[1] % 2 ** (blocks.shape[0] - 1):
        raise parts.broken(f"has blocks for which there is no butterfly: {shape_of(blocks)}")


def _cayley_outputs(blocks: Tensor, most: float, transposed: bool) -> Tensor:
    """LyCORIS and kohya: R = (I + Q)(I − Q)⁻¹ with Q = B − Bᵀ; OFT applies Rᵀ, BOFT R."""
    skew = blocks - blocks.transpose(-1, -2)
    if most > 0:
        norm = torch.linalg.vector_norm(skew) + 1e-8
        skew = skew * (most / norm).clamp(max=1.0)
    skew = -skew if transposed else skew  # Rᵀ is the rotation of −Q
    turns = _cayley(skew)
    return turns if turns.ndim == 4 else turns[None]


def _cayley_inputs(blocks: Tensor) -> Tensor:
    """PEFT's BOFT: R = (I − Q)(I + Q)⁻¹ with Q = (B − Bᵀ) / 2."""
    return _cayley((blocks.transpose(-1, -2) - blocks) / 2)


def _cayley(skew: Tensor) -> Tensor:
    """(I + Q)(I − Q)⁻¹ − I = 2Q(I − Q)⁻¹, whose factors may stand in any order."""
    identity = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
    turns: Tensor = torch.linalg.solve(identity - skew, 2 * skew)
    return turns


def _given(rotations: Tensor) -> Tensor:
    """LyCORIS before 3 saves R itself, with the factors of the outputs in it; Rᵀ is applied."""
    identity = torch.eye(rotations.shape[-1], dtype=rotations.dtype, device=rotations.device)
    return (rotations.transpose(-1, -2) - identity)[None]


def _neumann(triangles: Tensor, size: int) -> Tensor:
    """PEFT's OFT: R = I + 2Q + 2Q² + 2Q³ + Q⁴, Q the skew matrix over a triangle.

    These five terms are what PEFT trains with unless told otherwise, and the tensors do not tell.
    """
    rows, columns = torch.triu_indices(size, size, 1, device=triangles.device)
    skew = triangles.new_zeros(triangles.shape[0], size, size)
    skew[:, rows, columns] = triangles
    skew = skew - skew.transpose(-1, -2)
    square = skew @ skew
    cube = square @ skew
    return (2 * (skew + square + cube) + cube @ skew)[None]
