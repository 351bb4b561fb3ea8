"""What one step learns from: made by `batches`, taken by `objectives`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B pictures of one size with their captions. On the CPU until `to`."""

    #: [B, C, h, w], fp32, as the denoiser knows them: (drawn from the VAE's distribution - its shift) × its scale.
    latents: Tensor
    #: Captions as `families` encode them, [B, …] each: `prompt_embeds`, `pooled_prompt_embeds`. While text encoders
    #: are trained they hold only what is not (SD 3 and Flux.1: `prompt_embeds` with the T5 in its place), else all.
    texts: Mapping[str, Tensor]
    #: Text encoder that is trained → token numbers [B, tokens], padded as its tokenizer pads; empty if none is.
    tokens: Mapping[str, Tensor]
    #: [B, 6], fp32: (height, width) as the picture was, (top, left) of the cut, (height, width) it is trained at.
    sizes: Tensor
    #: [B], fp32: how much each picture's error counts.
    weights: Tensor
    #: [B, 1, h, w], fp32, 0 … 1: how much each place counts; None: everything does.
    masks: Tensor | None = None
    #: [B], bool.
    is_regularisation: Tensor

    def __len__(self) -> int:
        return len(self.latents)

    def part(self, pictures: slice) -> Batch:
        """Some of its pictures."""
        return self._each(lambda value: value[pictures])

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return self._each(lambda value: value.to(device, non_blocking=True))

    def _each(self, change: Any) -> Batch:
        changed: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, Mapping):
                changed[one.name] = {name: change(tensor) for name, tensor in value.items()}
            else:
                changed[one.name] = None if value is None else change(value)
        return Batch(**changed)
