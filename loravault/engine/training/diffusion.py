"""What is learned on a UNet that takes noise away in steps: Stable Diffusion 1 and 2, SDXL, the demo base."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from loravault.engine.bases import Base
from loravault.engine.training.batch import Batch
from loravault.engine.training.objectives import Draw, Objective, Texts
from loravault.errors import UserError


class Diffusion(Objective):
    """The noise (ε) or the velocity (v), as the base's scheduler says.

    With ᾱ the schedule at time t: noisy = √ᾱ·x + √(1-ᾱ)·ε and v = √ᾱ·ε - √(1-ᾱ)·x. SNR = ᾱ/(1-ᾱ). min-SNR weighs the
    error of a picture with min(SNR, γ)/SNR for ε and min(SNR, γ)/(SNR+1) for v (Hang et al. 2023, section 3.4).
    """

    def __init__(self, base: Base, *, noise_offset: float = 0.0, min_snr: float = 0.0) -> None:
        super().__init__(base, noise_offset=noise_offset, min_snr=min_snr)
        make: Any = DDPMScheduler.from_config
        scheduler = make(dict(base.scheduler_config))
        self.velocity = scheduler.config.prediction_type == "v_prediction"
        if not self.velocity and scheduler.config.prediction_type != "epsilon":
            raise UserError(
                f"{base.name} predicts {scheduler.config.prediction_type!r}, which is not trained: choose a base that "
                "predicts noise (epsilon) or velocity (v_prediction)."
            )
        #: fp32, one for each time, on the device of the model.
        self.alphas: Tensor = scheduler.alphas_cumprod.to(base.denoiser.device, torch.float32)

    def times(self, shares: Tensor) -> Tensor:
        """Whole numbers from 0, all equally often for even shares."""
        return (shares * len(self.alphas)).long().clamp_(max=len(self.alphas) - 1)

    def noised(self, latents: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """See the class."""
        times = self.times(draw.shares)
        alphas = self.alphas[times]
        signal, noise = (alphas.sqrt().view(-1, 1, 1, 1), (1 - alphas).sqrt().view(-1, 1, 1, 1))
        noisy = signal * latents + noise * draw.noise
        target = signal * draw.noise - noise * latents if self.velocity else draw.noise
        return noisy, target, self._weights(alphas), times

    def _weights(self, alphas: Tensor) -> Tensor | None:
        if not self._gamma:
            return None
        if self.velocity:  # min(SNR, γ)/(SNR+1), written so that it holds without noise and without signal
            return torch.minimum(alphas, self._gamma * (1 - alphas))
        # at the end of a schedule that goes to zero SNR this is min(∞, 1)
        return (self._gamma * (1 - alphas) / alphas).clamp(max=1.0)

    def predict(self, noisy: Tensor, when: Tensor, texts: Texts, batch: Batch) -> Tensor:
        """By the UNet; SDXL is also told the sizes of the picture and what the prompt says as a whole."""
        more = self._more(texts, batch)
        said: Tensor = self.base.denoiser(
            noisy, when, texts["prompt_embeds"].to(self.dtype), added_cond_kwargs=more, return_dict=False
        )[0]
        return said

    def _more(self, texts: Texts, batch: Batch) -> dict[str, Tensor] | None:  # noqa: ARG002
        return None


class DiffusionXL(Diffusion):
    """SDXL: the time ids are (height, width) as the picture was, (top, left) of the cut, (height, width) trained at.

    They stay fp32: bf16 would make 1336 of 1333.
    """

    def _more(self, texts: Texts, batch: Batch) -> dict[str, Tensor]:
        return {
            "text_embeds": texts["pooled_prompt_embeds"].to(self.dtype),
            "time_ids": batch.sizes.float(),
        }
