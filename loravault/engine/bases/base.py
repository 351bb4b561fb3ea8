"""A base in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from loravault.engine.families import FAMILIES, Family

#: (component, path of the module as `named_modules()` has it).
ModuleKey = tuple[str, str]


@dataclass(frozen=True)
class Base:
    """A base that is ready to draw. Its weights are only ever changed by `apply.Patcher`."""

    name: str
    #: `sd15`, `sdxl`, `flux`, …: what adapters for it call it.
    family: str
    pipe: Any
    #: `scheduler_config.json` as it was on disk.
    scheduler_config: Mapping[str, Any]
    #: Every module of denoiser and text encoders that has a weight: linear, convolution, norm, embedding.
    modules: Mapping[ModuleKey, torch.nn.Module]

    @property
    def drawer(self) -> Family:
        """How its pipeline is used."""
        return FAMILIES[type(self.pipe).__name__]

    @property
    def layers(self) -> dict[ModuleKey, tuple[int, ...]]:
        """The shape of the weight of every module."""
        return {key: tuple(module.weight.shape) for key, module in self.modules.items()}  # type: ignore[arg-type]

    @property
    def denoiser(self) -> Any:
        """The UNet or transformer."""
        return getattr(self.pipe, self.drawer.denoiser)

    @property
    def pixels_per_latent(self) -> int:
        """Width and height must be multiples of this: 8 for every Stable Diffusion with a UNet, else 16."""
        return self.drawer.unit(self.pipe)


def make_base(name: str, family: str, pipe: Any, scheduler_config: Mapping[str, Any]) -> Base:
    """The base around a pipeline whose parts are loaded."""
    pipe.set_progress_bar_config(disable=True)
    drawer = FAMILIES[type(pipe).__name__]
    modules = dict(_weighted(pipe, drawer.models))
    return Base(name, family, pipe, scheduler_config, modules)


def _weighted(pipe: Any, components: Iterable[str]) -> Iterable[tuple[ModuleKey, torch.nn.Module]]:
    for component in components:
        model = getattr(pipe, component, None)
        for path, module in model.named_modules() if model is not None else ():
            if isinstance(module._parameters.get("weight"), torch.nn.Parameter):
                yield (component, path), module
