"""Adapters by the thousand: small real files of many algorithms for one base, each another, written by this script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from loravault.engine.bases import Base
from loravault.formats.generation import AdapterUse
from tests.engine.matrix_rows import ALGORITHMS, PEFT, Algorithm
from tests.tiny import use_of

#: Of the matrix: what files for Stable Diffusion are made of, in kohya's names or in PEFT's.
_KINDS = ("LoRA, LoCon", "DoRA, outputs", "LoHa", "LoKr", "IA3", "GLoRA", "OFT", "full, with bias", "LoRA with bias")
#: Layers that one file changes.
_LAYERS = 24


@dataclass(frozen=True)
class Served:
    """One file, with the algorithm it is of."""

    use: AdapterUse
    algorithm: str


def make_set(folder: Path, base: Base, count: int) -> list[Served]:
    """So many files; number n is the same in every run."""
    layers = _adaptable(base)
    kinds = [one for one in ALGORITHMS if one.name in _KINDS]
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        path = folder / f"adapter {number:04}.safetensors"
        save_file(dict(_tensors(kind, _some(layers, number), number)), path)
        made.append(Served(use_of(path, (0.5, 0.8, -0.4)[number % 3]), kind.name))
    return made


def lora_set(folder: Path, base: Base, count: int) -> list[AdapterUse]:
    """LoRAs as most are, which diffusers applies, too: on all linear layers of the attentions, rank and alpha alike."""
    layers = {name: shape for name, shape in _adaptable(base).items() if "attentions" in name and len(shape) == 2}
    kind = next(one for one in ALGORITHMS if one.name == "LoRA, LoCon")
    folder.mkdir(parents=True, exist_ok=True)
    uses = []
    for number in range(count):
        path = folder / f"lora {number}.safetensors"
        save_file(dict(_tensors(kind, layers, number)), path)
        uses.append(use_of(path, 0.8))
    return uses


def _adaptable(base: Base) -> dict[str, tuple[int, ...]]:
    """Linear layers and convolutions of the UNet, by module."""
    return {
        module: tuple(layer.weight.shape)  # type: ignore[arg-type]
        for (component, module), layer in base.modules.items()
        if component == "unet" and isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
    }


def _some(layers: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, tuple[int, ...]]:
    order: Sequence[int] = torch.randperm(len(layers), generator=torch.Generator().manual_seed(seed)).tolist()
    names = sorted(layers)
    return {names[n]: layers[names[n]] for n in order[:_LAYERS]}


def _tensors(kind: Algorithm, layers: Mapping[str, tuple[int, ...]], seed: int) -> Iterator[tuple[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    for module, shape in layers.items():
        if len(shape) not in kind.dimensions:
            continue
        make = kind.make if kind.kohya else kind.peft
        assert make is not None
        for part, size in make(shape).items():
            name = f"lora_unet_{module.replace('.', '_')}.{part}" if kind.kohya else f"unet.{module}.{PEFT[part]}"
            yield name, _numbers(part, size, generator)


def _numbers(part: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if part == "alpha":
        return torch.tensor(2.0, dtype=torch.float16)
    if part == "on_input":
        return torch.tensor(0.0, dtype=torch.float16)
    drawn = torch.randn(shape, generator=generator) * (0.2 if "hada" in part or "lokr" in part else 0.02)
    return (drawn.abs() + 1 if part == "dora_scale" else drawn).half()
