"""The tensors of one patch, read and checked; and the one error for a patch that cannot be applied."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from loravault.engine.dtypes import DTYPES, FLOATS
from loravault.formats.normal import Patch
from loravault.formats.tensor_table import BrokenFile, TensorInfo

#: Reads one tensor of the file, in the file's precision.
Read = Callable[[TensorInfo], Tensor]


class BrokenPatch(BrokenFile):
    """A module of an adapter that cannot be applied; the reason in words that fit after the adapter's name and a colon.

    A `BrokenFile`, so that whoever tells a user about broken files tells about these too.
    """


class Parts:
    """The parts of one patch; it remembers which were asked for, so that none is passed over in silence."""

    def __init__(self, patch: Patch, read: Read) -> None:
        self._patch = patch
        self._read = read
        self._asked: set[str] = set()

    @property
    def name(self) -> str:
        """The module, as the file calls it."""
        return self._patch.name

    def __contains__(self, part: str) -> bool:
        return part in self._patch.parts

    def tensor(self, part: str) -> Tensor:
        """A part that must be there, in the file's precision. Raises `BrokenPatch`."""
        if part not in self._patch.parts:
            raise self.broken(f"is incomplete: {part} is missing")
        self._asked.add(part)
        _, info = self._patch.parts[part]
        if info.dtype not in FLOATS:
            raise self.broken(f"keeps {part} in a number format for which there is no arithmetic: {info.dtype}")
        return self._read(info)

    def optional(self, part: str) -> Tensor | None:
        """A part that may be missing."""
        return self.tensor(part) if part in self else None

    def stack(self, part: str) -> Tensor:
        """A part that must be there and have at least two dimensions, none of them empty."""
        tensor = self.tensor(part)
        if tensor.ndim < 2 or 0 in tensor.shape:
            raise self.broken(f"has a part {part} that is no matrix: {shape_of(tensor)}")
        return tensor

    def matrix(self, part: str) -> Tensor:
        """The same, all dimensions after the first laid flat."""
        return self.stack(part).flatten(1)

    def written_as(self, part: str) -> str:
        """Name of the tensor that a part is read from; "" if the part is missing."""
        return self._patch.parts[part][0] if part in self else ""

    def number(self, part: str) -> float | None:
        """A part that is a single finite number of any format; None if it is missing."""
        if part not in self:
            return None
        self._asked.add(part)
        _, info = self._patch.parts[part]
        if math.prod(info.shape) != 1 or info.dtype not in DTYPES:
            raise self.broken(f"has a part {part} that is not one number: {info.dtype} {list(info.shape)}")
        value = float(self._read(info).to(torch.float32).reshape(()))
        if not math.isfinite(value):
            raise self.broken(f"has {value} as {part}, which is no amount")
        return value

    def alpha(self) -> float | None:
        """`alpha`: the tensor, else what the metadata says in its place, else None."""
        value = self.number("alpha")
        return self._patch.alpha if value is None else value

    def scale(self, rank: int) -> float:
        """alpha / rank. Without alpha, or with 0 for it, alpha is the rank: so do kohya and LyCORIS."""
        return (self.alpha() or rank) / rank

    def unasked(self) -> tuple[str, ...]:
        """Parts that nobody asked for."""
        return tuple(sorted(self._patch.parts.keys() - self._asked))

    def broken(self, why: str) -> BrokenPatch:
        """The error that this patch cannot be applied; `why` follows the name of the module."""
        return BrokenPatch(f"its module “{self.name}” {why}")


def shape_of(tensor: Tensor) -> str:
    """`320×64`."""
    return "×".join(map(str, tensor.shape)) or "a single number"
