"""Noise to latents to pixels. Every image has its own generator, so that it does not depend on its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from loravault.engine.bases import Base
from loravault.engine.devices import Device, is_out_of_memory
from loravault.engine.families import Encoded

#: An image whose brightest and darkest values differ by less than this shows nothing.
FLAT = 4


@torch.no_grad()
def draw_latents(
    base: Base,
    device: Device,
    scheduler: Any,
    *,
    seeds: Sequence[int],
    size: tuple[int, int],
    steps: int,
    cfg: float,
    prompt: Encoded,
    negative: Encoded | None,
    on_step: Callable[[int], None],
) -> torch.Tensor:
    """Denoises one image per seed. `size` is (width, height); `prompt` and `negative` are those of all, `joined`.

    `on_step(n)` is called after step n and may raise to stop at once. Returns latents as the decoder takes them.
    """
    pipe, drawer = base.pipe, base.drawer
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    noise = drawer.noise(pipe, size, generators)
    pipe.scheduler = scheduler

    def after_step(_pipe: Any, step: int, _time: Any, _tensors: dict[str, Any]) -> dict[str, Any]:
        on_step(step + 1)
        return {}

    drawn: torch.Tensor = pipe(
        **drawer.arguments(pipe, prompt, negative, cfg),
        latents=noise.to(device.place, drawer.latent_dtype(base.denoiser.dtype)),
        generator=generators,
        width=size[0],
        height=size[1],
        num_inference_steps=steps,
        output_type="latent",
        callback_on_step_end=after_step,
        callback_on_step_end_tensor_inputs=[],
    ).images
    return drawer.latents(pipe, drawn, size)


@torch.no_grad()
def decode(base: Base, latents: torch.Tensor) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
    """Pixels (height, width, 3) of one image's latents; None if they are not numbers."""
    vae = base.pipe.vae
    if not bool(torch.isfinite(latents).all()):
        return None
    image = base.drawer.pixels(base.pipe, latents.to(vae.dtype))
    if not bool(torch.isfinite(image).all()) and vae.dtype != torch.float32:
        # Some decoders overflow in half precision where the latents are fine.
        precision = vae.dtype
        _convert(vae, torch.float32)
        try:
            image = base.drawer.pixels(base.pipe, latents.float())
        finally:
            _convert(vae, precision)
    if not bool(torch.isfinite(image).all()):
        return None
    pixels = (image[0].float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).cpu().numpy()
    return np.asarray((pixels * 255).round(), dtype=np.uint8)


class HalfMoved(torch.OutOfMemoryError):
    """Memory ran out while a model was converted: some of its weights are in one precision, some in the other."""


def _convert(model: Any, precision: torch.dtype) -> None:
    """Raises `HalfMoved`: then the base must be loaded again."""
    try:
        model.to(precision)
    except Exception as error:
        if is_out_of_memory(error):
            raise HalfMoved(str(error)) from error
        raise


def flatness(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> str | None:
    """What is wrong with an image that shows nothing, else None."""
    spread = int((pixels.max(axis=(0, 1)).astype(int) - pixels.min(axis=(0, 1))).max())
    if spread >= FLAT:
        return None
    return "entirely black" if int(pixels.max()) < FLAT else "of one single colour"
