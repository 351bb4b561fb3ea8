"""The tensors of an adapter file in memory: read once, hashed behind what follows.

Nothing is mapped: a file that is cut short while it is mapped kills the process.
"""

from __future__ import annotations

import hashlib
import math
import threading
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch

from loravault.engine.deltas.delta import all_finite
from loravault.engine.dtypes import DTYPES
from loravault.formats.hashes import CHUNK
from loravault.formats.safetensors_header import Header
from loravault.formats.tensor_table import BrokenFile, TensorInfo


@dataclass(frozen=True)
class Digests:
    """The hashes that a picture is inscribed with, in lower-case hex."""

    sha256: str
    #: SHA256 of the weights without the metadata.
    autov3: str

    @property
    def autov2(self) -> str:
        """The beginning of SHA256."""
        return self.sha256[:10]


class Contents:
    """The tensor area of one file. Its tensors are views of it wherever that is possible."""

    def __init__(self, file: BinaryIO, header: Header) -> None:
        """Reads everything behind the header, at once. Raises `BrokenFile` if the file became shorter, `OSError`."""
        file.seek(0)
        head = file.read(header.data_start)
        self._area = torch.empty(header.data_length, dtype=torch.uint8)
        into = self._view()
        while into:
            length = file.readinto(into)  # type: ignore[attr-defined]
            if not length:
                raise BrokenFile("it changed while it was read; it will be looked at again")
            into = into[length:]
        #: Number format → the whole area read as that. A view of a view costs as much as a merge of a small layer.
        self._typed: dict[torch.dtype, torch.Tensor] = {}
        #: Those of matrices that were read.
        self._formats: set[torch.dtype] = set()
        #: Some lie where no view can be.
        self._apart = False
        self._digests: Digests | None = None
        self._hashing = threading.Thread(target=self._hash, args=(head,), name="hash", daemon=True)
        self._hashing.start()

    def _view(self) -> memoryview:
        array: Any = self._area.numpy()
        return memoryview(array)

    @property
    def size(self) -> int:
        """Bytes of memory that it holds, as long as one of its tensors is alive."""
        return self._area.numel()

    def tensor(self, info: TensorInfo) -> torch.Tensor:
        """One tensor, in the file's precision. Raises `BrokenFile` for a number format that torch has not."""
        dtype = DTYPES.get(info.dtype)
        if dtype is None:
            raise BrokenFile(f"a tensor is in the number format {info.dtype}, for which there is no arithmetic")
        if math.prod(info.shape) > 1:
            self._formats.add(dtype)
        if info.start == info.end:
            return torch.empty(info.shape, dtype=dtype)
        if info.start % dtype.itemsize:  # the format does not promise that numbers begin where numbers should
            self._apart = True
            return self._area[info.start : info.end].clone().view(dtype).view(info.shape)
        return self._as(dtype).as_strided(info.shape, _strides(info.shape), info.start // dtype.itemsize)

    def surely_finite(self) -> bool:
        """Whether one look shows that no matrix that was read holds NaN or infinity; else somebody has to look closer.

        All memory is looked at in the format of each matrix: what is of another format may look like NaN, but no NaN
        looks like a number. Single numbers were looked at when they were read.
        """
        return not self._apart and all(all_finite(self._as(dtype)) for dtype in self._formats)

    def _as(self, dtype: torch.dtype) -> torch.Tensor:
        """The whole area in one number format."""
        typed = self._typed.get(dtype)
        if typed is None:
            typed = self._typed[dtype] = self._area[: len(self._area) // dtype.itemsize * dtype.itemsize].view(dtype)
        return typed

    def digests(self) -> Digests:
        """The hashes of exactly the bytes that were read; waits for them."""
        self._hashing.join()
        assert self._digests is not None
        return self._digests

    def _hash(self, head: bytes) -> None:
        whole, weights = hashlib.sha256(head), hashlib.sha256()
        view = self._view()
        for start in range(0, len(view), CHUNK):  # a piece is still in the processor's cache when it is read again
            piece = view[start : start + CHUNK]
            whole.update(piece)
            weights.update(piece)
        self._digests = Digests(whole.hexdigest(), weights.hexdigest())


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of a tensor whose numbers lie one after the other."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))
