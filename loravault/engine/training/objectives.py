"""What one step learns: which noise is put over a picture, what the model is to say about it, how wrong it was.

Every random number of a step is drawn on the CPU for the whole batch, so that a batch that is worked off in slices
(because memory is short) and a device of another kind learn from the same numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from loravault.engine.bases import Base
from loravault.engine.training.batch import Batch

#: A prompt as the denoiser takes it, with a batch: as `families` encode it.
Texts = Mapping[str, Tensor]


@dataclass(frozen=True)
class Draw:
    """The random numbers of one batch."""

    #: Like the latents, fp32.
    noise: Tensor
    #: Of each picture: 0 (clean) … 1 (nothing but noise), before any shift; fp32.
    shares: Tensor

    def part(self, pictures: slice) -> Draw:
        """Those of some pictures."""
        return Draw(self.noise[pictures], self.shares[pictures])

    def to(self, device: torch.device) -> Draw:
        """The same on a device."""
        return Draw(self.noise.to(device, non_blocking=True), self.shares.to(device, non_blocking=True))


class Objective(ABC):
    """What is learned on one base. Without state; `denoiser` must be on the device of the batch."""

    #: Whether the shares are drawn from the sigmoid of a normal distribution instead of evenly.
    logit_normal = False

    def __init__(self, base: Base, *, noise_offset: float = 0.0, min_snr: float = 0.0) -> None:
        self.base = base
        #: The precision the model works in; errors are always fp32.
        self.dtype: torch.dtype = base.denoiser.dtype
        self._offset = noise_offset
        self._gamma = min_snr

    # ---- random numbers

    def draw(self, latents: Tensor, generator: torch.Generator) -> Draw:
        """For one batch of latents [B, C, h, w]; on the CPU."""
        pictures, channels = latents.shape[:2]
        noise = torch.randn(latents.shape, generator=generator, dtype=torch.float32)
        if self._offset:
            noise += self._offset * torch.randn((pictures, channels, 1, 1), generator=generator)
        return Draw(noise, self._shares(pictures, generator))

    def _shares(self, pictures: int, generator: torch.Generator) -> Tensor:
        if self.logit_normal:
            return torch.randn((pictures,), generator=generator).sigmoid()
        return torch.rand((pictures,), generator=generator)

    def fixed(self, latents: Tensor, generator: torch.Generator, share: float) -> Draw:
        """For measuring: every picture with the same share of noise, without an offset."""
        noise = torch.randn(latents.shape, generator=generator, dtype=torch.float32)
        return Draw(noise, torch.full((len(latents),), share))

    # ---- errors

    def loss(self, batch: Batch, texts: Texts, draw: Draw) -> Tensor:
        """The sum of the pictures' errors by their weights: divide by the pictures of the whole step."""
        return (self.errors(batch, texts, draw, weighted=True) * batch.weights).sum()

    def said(self, batch: Batch, texts: Texts, draw: Draw) -> Tensor:
        """What the model says of each picture, fp32."""
        noisy, _, _, when = self.noised(batch.latents, draw)
        return self.predict(noisy.to(self.dtype), when, texts, batch).float()

    def errors(self, batch: Batch, texts: Texts, draw: Draw, *, weighted: bool, wanted: Tensor | None = None) -> Tensor:
        """The mean squared error of each picture, fp32 [B]; `weighted`: by how much its noise tells.

        `wanted`: what the model is to say instead of what is true.
        What a mask leaves out counts as no error at all (not: is left out of the mean), as in kohya's scripts.
        """
        latents = batch.latents
        noisy, target, weights, when = self.noised(latents, draw)
        said = self.predict(noisy.to(self.dtype), when, texts, batch).float()
        wrong = (said - (target if wanted is None else wanted)).square()
        if batch.masks is not None:
            wrong = wrong * batch.masks
        per_picture = wrong.mean(dim=(1, 2, 3))
        return per_picture * weights if weighted and weights is not None else per_picture

    @abstractmethod
    def noised(self, latents: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """(noisy latents, what the model is to say, weight of each picture, the time as the model takes it)."""

    @abstractmethod
    def predict(self, noisy: Tensor, when: Tensor, texts: Texts, batch: Batch) -> Tensor:
        """What the model says, [B, C, h, w]."""
