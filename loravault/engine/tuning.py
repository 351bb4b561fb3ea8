"""How a loaded base is laid out for its device. Nothing here changes what is drawn, only how fast."""

from __future__ import annotations

import torch

from loravault.engine.bases import Base
from loravault.engine.devices import Device, why_not_compiled
from loravault.engine.memory import Offload


def tune(base: Base, device: Device) -> None:
    """The order in memory that convolutions of NVIDIA cards are fastest with."""
    if device.place.type == "cuda" and base.drawer.denoiser == "unet":
        channels_last(base.denoiser)


def channels_last(model: torch.nn.Module) -> None:
    """Every convolution of `model` with its channels next to each other; the numbers stay the same."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def compile_blocks(base: Base, device: Device, offload: Offload) -> str | None:
    """Compiles the blocks that repeat when they are first used. Returns why not, in a sentence."""
    reason = why_not_compiled(device)
    if offload is not Offload.NONE:
        reason = "models that leave the card are not compiled"
    elif reason is None and not getattr(base.denoiser, "_repeated_blocks", None):
        reason = "this base has no blocks that repeat"
    if reason is not None:
        return f"`compile = true` had no effect: {reason}."
    base.denoiser.compile_repeated_blocks()
    return None
