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

from loravault.engine.deltas import DTYPES
from loravault.formats.hashes import CHUNK
from loravault.formats.safetensors_header import BrokenFile, Header, TensorInfo


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
        if math.prod(info.shape) == 0:
            return torch.empty(info.shape, dtype=dtype)
        piece = self._area[info.start : info.end]
        if info.start % dtype.itemsize:  # the format does not promise that numbers begin where numbers should
            piece = piece.clone()
        return piece.view(dtype).view(info.shape)

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
