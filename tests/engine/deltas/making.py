"""Makes patches out of tensors, as the normaliser would out of a file, and compares changes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from loravault.engine.deltas import Delta, Read, read_delta
from loravault.engine.dtypes import DTYPES
from loravault.formats.normal import Patch, Place
from loravault.formats.tensor_table import TensorInfo

NAME = "lora_unet_mid_block_attentions_0_proj_in"
_WRITTEN = {dtype: name for name, dtype in DTYPES.items()}


def patch_of(
    algorithm: str, tensors: Mapping[str, Tensor], *, alpha: float | None = None, peft: bool = False
) -> tuple[Patch, Read]:
    """A patch with these parts, and what reads them. `peft`: its magnitudes stand in the file under PEFT's name."""
    held = list(tensors.values())
    parts = {}
    for number, (part, tensor) in enumerate(tensors.items()):
        written = "lora_magnitude_vector" if peft and part == "dora_scale" else part
        parts[part] = (f"{NAME}.{written}", TensorInfo(_WRITTEN[tensor.dtype], tuple(tensor.shape), (number, number)))
    patch = Patch(NAME, algorithm, parts, (Place("unet", "mid_block.attentions.0.proj_in"),), alpha)
    return patch, lambda info: held[info.start]


def delta_of(algorithm: str, tensors: Mapping[str, Tensor], *, alpha: float | None = None, peft: bool = False) -> Delta:
    """What `read_delta` makes of such a patch."""
    return read_delta(*patch_of(algorithm, tensors, alpha=alpha, peft=peft))


def numbers(*shape: int, seed: int = 0, size: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normally distributed, the same for the same seed and shape."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + hash(shape) % 1_000)
    return (torch.randn(*shape, generator=generator) * size).to(dtype)


def scalar(value: float) -> Tensor:
    """As `alpha` is written."""
    return torch.tensor(value, dtype=torch.float32)


def distance(found: Tensor, expected: Tensor) -> float:
    """‖found − expected‖ / ‖expected‖, in double precision."""
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    return float((found.double() - expected.double()).norm() / expected.double().norm().clamp_min(1e-30))


def same(found: Tensor, expected: Tensor, *, within: float = 1e-5) -> bool:
    """Whether they differ by less than `within`, relatively."""
    return distance(found, expected) <= within
