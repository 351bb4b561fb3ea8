"""Reading tensors out of a safetensors file, without mapping it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import torch

from loravault.engine.dtypes import DTYPES, FLOATS
from loravault.errors import UserError
from loravault.formats.safetensors_header import Header

#: Whole numbers in other formats are packed weights, which are not read.
_DTYPES = FLOATS | {name: DTYPES[name] for name in ("I64", "I32", "U8", "BOOL")}


def read_tensors(path: Path, header: Header, names: Iterable[str], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """These tensors, numbers with a fraction as `dtype`, in the order they lie in the file.

    Raises `UserError` for a number format that is not known, or a file that was cut short meanwhile.
    """
    rows = sorted(((header.tensors[name], name) for name in names), key=lambda row: row[0].start)
    found: dict[str, torch.Tensor] = {}
    with path.open("rb", buffering=0) as file:
        for info, name in rows:
            if info.dtype not in _DTYPES:
                raise UserError(f"its tensor {name[:80]} has the number format {info.dtype}, which is not read here.")
            data = bytearray(info.end - info.start)
            file.seek(header.data_start + info.start, os.SEEK_SET)
            _fill(file, data)
            stored = _DTYPES[info.dtype]
            # An empty buffer cannot be looked into.
            tensor = torch.frombuffer(data, dtype=stored) if data else torch.empty(0, dtype=stored)
            tensor = tensor.reshape(info.shape)
            found[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    return found


def _fill(file: object, data: bytearray) -> None:
    view = memoryview(data)
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise UserError("it was cut short while it was read. Copy it again.")
        view = view[count:]
