"""What a model was called with, cut down to one picture and kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Arguments of a model: in order, and by name.
Call = tuple[tuple[Any, ...], dict[str, Any]]


def first_of(call: Call) -> Call:
    """The call for the first picture of its batch, with copies of its tensors."""
    args, kwargs = call
    batch = next((one.shape[0] for one in (*args, *kwargs.values()) if isinstance(one, Tensor) and one.ndim), 1)
    return tuple(_cut(one, batch) for one in args), {name: _cut(one, batch) for name, one in kwargs.items()}


def _cut(value: Any, batch: int) -> Any:
    if isinstance(value, Tensor):
        one = value[:1] if value.ndim and value.shape[0] == batch else value
        one = one.detach().clone()
        return one.float() if one.is_floating_point() and one.dtype != torch.float64 else one
    if isinstance(value, dict):
        return {name: _cut(one, batch) for name, one in value.items()}
    if isinstance(value, list):  # of one thing for each picture
        return [_cut(one, 1) for one in (value[:1] if len(value) == batch else value)]
    return value
