"""The algorithms once more, number by number and in double precision, as papers and file formats define them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor


def low_rank(up: Tensor, down: Tensor, mid: Tensor | None, scale: float) -> Tensor:
    """Σ over the rank of outer products; with a core, over each pair of its first two indices. (out, in·kernel)"""
    up, down = up.double().flatten(1), down.double().flatten(1)
    if mid is None:
        return scale * sum_of([torch.outer(up[:, rank], down[rank]) for rank in range(down.shape[0])])
    core = mid.double().flatten(2)
    pairs = itertools.product(range(core.shape[0]), range(core.shape[1]))
    return scale * sum_of([torch.outer(up[:, m], torch.outer(down[n], core[m, n]).flatten()) for m, n in pairs])


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """Of at least one."""
    return torch.stack(list(tensors)).sum(0)


def kronecker(first: Tensor, second: Tensor) -> Tensor:
    """Every number of the first times the whole second: (a·c, b·d·kernel)."""
    first, second = first.double(), second.double()
    rows, columns = first.shape[0] * second.shape[0], first.shape[1] * second.shape[1]
    result = torch.zeros(rows, columns, *second.shape[2:], dtype=torch.float64)
    for a, b, c, d in itertools.product(*(range(size) for size in (*first.shape, *second.shape[:2]))):
        result[a * second.shape[0] + c, b * second.shape[1] + d] = first[a, b] * second[c, d]
    return result.flatten(1)


def skew(blocks: Tensor, constraint: float) -> Tensor:
    """B − Bᵀ, made shorter if its norm over all blocks is above `constraint` (0: never)."""
    result = blocks.double() - blocks.double().transpose(-1, -2)
    norm = float(result.pow(2).sum().sqrt())
    return result * (constraint / norm) if 0 < constraint < norm else result


def cayley(matrix: Tensor) -> Tensor:
    """(I + Q)(I − Q)⁻¹ of one skew matrix."""
    identity = torch.eye(matrix.shape[-1], dtype=torch.float64)
    return (identity + matrix) @ torch.inverse(identity - matrix)


def block_diagonal(blocks: Sequence[Tensor]) -> Tensor:
    """One matrix with the blocks on its diagonal."""
    return torch.block_diag(*blocks)


def oft(weight: Tensor, blocks: Tensor, strength: float, constraint: float, rescale: Tensor | None) -> Tensor:
    """W′ of kohya and LyCORIS: row m of a block is Σₙ R[n, m] · row n."""
    turned = weight.double().clone()
    size = blocks.shape[-1]
    for number, turn in enumerate(skew(blocks, constraint)):
        rotation = strength * (cayley(turn) - torch.eye(size)) + torch.eye(size)
        for row in range(size):
            rows = [rotation[n, row] * weight.double()[number * size + n] for n in range(size)]
            turned[number * size + row] = sum_of(rows)
    return turned if rescale is None else turned * rescale.double().reshape(-1, *[1] * (weight.ndim - 1))


def boft(weight: Tensor, blocks: Tensor, strength: float, constraint: float, rescale: Tensor | None) -> Tensor:
    """W′ of LyCORIS: for each stage a permutation, blocks, and the permutation back, all as whole matrices."""
    flat = weight.double().flatten(1)
    size, out = blocks.shape[-1], flat.shape[0]
    for stage, turns in enumerate(skew(blocks, constraint)):
        far = 2**stage * size // 2
        order = [begin + side * far + j for begin in range(0, out, 2 * far) for j in range(far) for side in (0, 1)]
        permutation = torch.eye(out, dtype=torch.float64)[order]
        identity = torch.eye(size, dtype=torch.float64)
        rotation = block_diagonal([strength * cayley(turn) + (1 - strength) * identity for turn in turns])
        flat = permutation.T @ rotation @ permutation @ flat
    return flat if rescale is None else flat * rescale.double().reshape(-1, 1)


def peft_boft(weight: Tensor, blocks: Tensor, factors: Tensor) -> Tensor:
    """W′ of PEFT: inputs are turned, in stage i over permuted half blocks; then every output has its factor."""
    flat = weight.double().flatten(1)
    rotation = torch.eye(flat.shape[1], dtype=torch.float64)
    for stage, data in enumerate(blocks.double()):
        order = list(range(flat.shape[1]))
        if blocks.shape[0] > 1:
            order = _half_blocks(flat.shape[1], 2**stage * blocks.shape[-1], blocks.shape[-1] // 2)
        permutation = torch.eye(flat.shape[1], dtype=torch.float64)[order]
        turns = block_diagonal([cayley(-(one - one.T) / 2) for one in data])
        rotation = permutation @ turns @ permutation.T @ rotation
    return (rotation @ flat.T).T * factors.double().reshape(-1, 1)


def _half_blocks(width: int, span: int, half: int) -> list[int]:
    """In every span the half blocks with even numbers, then those with odd ones."""
    order: list[int] = []
    for begin in range(0, width, span):
        chunks = [list(range(first, first + half)) for first in range(begin, begin + span, half)]
        order += [index for chunk in (*chunks[::2], *chunks[1::2]) for index in chunk]
    return order


def peft_oft(weight: Tensor, triangles: Tensor, size: int) -> Tensor:
    """W′ of PEFT: W · Rᵀ with R = I + 2Q + 2Q² + 2Q³ + Q⁴, one triangle for each block or one for all."""
    flat = weight.double().flatten(1)
    count = flat.shape[1] // size
    blocks = []
    for triangle in triangles.double().expand(count, -1):
        values = iter(triangle.tolist())
        matrix = torch.zeros(size, size, dtype=torch.float64)
        for row, column in itertools.combinations(range(size), 2):
            matrix[row, column] = next(values)
        matrix = matrix - matrix.T
        powers = [torch.matrix_power(matrix, power) for power in range(5)]
        blocks.append(powers[0] + 2 * (powers[1] + powers[2] + powers[3]) + powers[4])
    return flat @ block_diagonal(blocks).T


def dora(merged: Tensor, magnitude: Tensor, *, on_output: bool) -> Tensor:
    """Each row (or each column, with all of its kernel) gets the length that is given for it."""
    result = merged.double().clone()
    for index, length in enumerate(magnitude.double().flatten()):
        part = result[index] if on_output else result[:, index]
        part *= length / part.pow(2).sum().sqrt()
    return result
