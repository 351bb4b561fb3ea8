"""Models that wait in ordinary memory and go to the card for as long as they work; decoding in tiles.

Adapters are merged while everything rests in ordinary memory and before anything is attached: what goes to the card
is a copy of the merged weight, and the original stays where it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.hooks.group_offloading import apply_group_offloading
from diffusers.hooks.hooks import HookRegistry

from loravault.engine.memory import Offload

#: How diffusers calls the hook that moves layers.
_LAYERS_HOOK = "group_offloading"


def attach(pipe: Any, offload: Offload, card: torch.device) -> None:
    """From now on what is called goes to `card` and back."""
    if offload is Offload.MODELS:
        pipe.enable_model_cpu_offload(device=card)
    elif offload is Offload.LAYERS:
        for model in _models(pipe):
            apply_group_offloading(model, card, torch.device("cpu"), offload_type="leaf_level")


def rest(pipe: Any, offload: Offload) -> None:
    """Puts everything into ordinary memory, also what a failed call left on the card. Weights may be changed then."""
    if offload is Offload.NONE:
        return
    pipe.remove_all_hooks()
    for model in _models(pipe):
        if offload is Offload.LAYERS:
            HookRegistry.check_if_exists_or_initialize(model).remove_hook(_LAYERS_HOOK, recurse=True)
        torch.nn.Module.to(model, "cpu")


def _models(pipe: Any) -> list[torch.nn.Module]:
    return [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]


@contextmanager
def tiled(vae: Any, side: int) -> Iterator[None]:
    """Decodes in overlapping tiles of `side` pixels for a while; 0: whole."""
    sizes = _tile_sizes(vae, side) if side else {}
    before = {name: getattr(vae, name) for name in sizes}
    try:
        for name, value in sizes.items():
            setattr(vae, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(vae, name, value)


def _tile_sizes(vae: Any, side: int) -> dict[str, Any]:
    """The attributes that tiling is set with; neighbours overlap by a quarter."""
    if hasattr(vae, "tile_latent_min_size"):
        shrinks = 2 ** (len(vae.config.block_out_channels) - 1)
        return {"use_tiling": True, "tile_sample_min_size": side, "tile_latent_min_size": side // shrinks}
    if hasattr(vae, "tile_sample_stride_height"):
        sizes: dict[str, Any] = {"use_tiling": True}
        for way in ("height", "width"):
            sizes |= {f"tile_sample_min_{way}": side, f"tile_sample_stride_{way}": side * 3 // 4}
        return sizes
    return {}
