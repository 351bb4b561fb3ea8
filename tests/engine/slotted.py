"""Adapters for the layers of small bases, and what these layers say with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from loravault.engine.adapters import Adapter, load_adapter
from loravault.engine.bases import Base
from loravault.engine.slots import Slots
from tests.tiny import use_of


def slots_of(base: Base) -> Slots:
    return Slots(base.modules, base.drawer.denoiser, in_a_row=base.drawer.in_a_row)


def numbers(*shape: int, seed: int, size: float = 0.2) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * size


def linear_layers(base: Base) -> list[str]:
    return [
        name
        for (component, name), one in base.modules.items()
        if component == base.drawer.denoiser and isinstance(one, torch.nn.Linear)
    ]


def file_for(base: Base, path: Path, *, seed: int, rank: int = 4, every: int = 1) -> Adapter:
    """An adapter in PEFT's names for layers of the denoiser, with differing ranks and alphas."""
    tensors = {}
    found = [
        (name, one)
        for (component, name), one in base.modules.items()
        if component == base.drawer.denoiser and isinstance(one, torch.nn.Linear | torch.nn.Conv2d)
    ]
    for number, (name, one) in enumerate(found[seed % every :: every]):
        weight, own = one.weight, rank + number % 3
        ones = [1] * (weight.ndim - 2)
        tensors[f"{base.drawer.denoiser}.{name}.lora_A.weight"] = numbers(own, *weight.shape[1:], seed=seed + number)
        tensors[f"{base.drawer.denoiser}.{name}.lora_B.weight"] = numbers(weight.shape[0], own, *ones, seed=-number - 1)
        tensors[f"{base.drawer.denoiser}.{name}.alpha"] = torch.tensor(1.0 + number % 2)
    save_file(tensors, path)
    return load_adapter(use_of(path), base)


def held(base: Base) -> list[Tensor]:
    return [one.detach().clone() for one in base.pipe.components[base.drawer.denoiser].state_dict().values()]


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def spoken(module: torch.nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = module(inputs)
    return found


def layer_inputs(module: Any, batch: int, seed: int = 0) -> Tensor:
    if isinstance(module, torch.nn.Linear):
        return numbers(batch, 3, module.in_features, seed=seed, size=1.0)
    return numbers(batch, module.in_channels, 6, 6, seed=seed, size=1.0)


def off(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def all_outputs(base: Base, batch: int = 2) -> dict[str, Tensor]:
    """What every layer of the denoiser makes of the same numbers."""
    return {
        name: spoken(one, layer_inputs(one, batch))
        for (component, name), one in base.modules.items()
        if component == base.drawer.denoiser and isinstance(one, torch.nn.Linear | torch.nn.Conv2d)
    }
