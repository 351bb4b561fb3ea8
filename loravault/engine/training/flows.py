"""What is learned on a transformer that follows a flow from noise to picture: Stable Diffusion 3 and 3.5, Flux.1."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from loravault.engine.bases import Base
from loravault.engine.families.common import pack, unpack
from loravault.engine.training.batch import Batch
from loravault.engine.training.objectives import Draw, Objective, Texts

#: What the guidance of Flux.1 dev is while it learns: it says what it sees, not what is good for a picture.
GUIDANCE = 1.0


class Flow(Objective):
    """With σ the share of noise: noisy = (1-σ)·x + σ·ε, and the model is to say ε - x.

    σ is the sigmoid of a normal number, then moved towards noise by the shift s of the base's scheduler,
    σ' = s·σ/(1 + (s-1)·σ). All weigh the same (`logit_normal` of Esser et al. 2024, section 3.1, has the weight in the
    drawing); min-SNR means nothing here.
    """

    logit_normal = True

    def __init__(self, base: Base, *, noise_offset: float = 0.0, min_snr: float = 0.0) -> None:
        super().__init__(base, noise_offset=noise_offset, min_snr=min_snr)
        self._config = dict(base.scheduler_config)

    def shift(self, tokens: int) -> float:
        """How far towards noise, for a picture of so many tokens.

        A scheduler with dynamic shifting has e^μ, μ linear in the tokens between two points of its configuration.
        """
        if not self._config.get("use_dynamic_shifting"):
            return float(self._config.get("shift", 1.0))
        low, high = float(self._config.get("base_shift", 0.5)), float(self._config.get("max_shift", 1.15))
        start, end = int(self._config.get("base_image_seq_len", 256)), int(self._config.get("max_image_seq_len", 4096))
        return math.exp(low + (high - low) * (tokens - start) / (end - start))

    def sigmas(self, shares: Tensor, tokens: int) -> Tensor:
        """The share of noise of each picture."""
        shift = self.shift(tokens)
        return shift * shares / (1 + (shift - 1) * shares)

    def noised(self, latents: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """See the class."""
        sigmas = self.sigmas(draw.shares, latents.shape[-2] * latents.shape[-1] // 4)
        each = sigmas.view(-1, 1, 1, 1)
        return (1 - each) * latents + each * draw.noise, draw.noise - latents, None, sigmas


class Flow3(Flow):
    """Stable Diffusion 3 and 3.5: σ·1000 is the time."""

    def predict(self, noisy: Tensor, when: Tensor, texts: Texts, batch: Batch) -> Tensor:  # noqa: ARG002
        """By the transformer, on whole latents."""
        said: Tensor = self.base.denoiser(
            hidden_states=noisy,
            timestep=when * 1000,
            encoder_hidden_states=texts["prompt_embeds"].to(self.dtype),
            pooled_projections=texts["pooled_prompt_embeds"].to(self.dtype),
            return_dict=False,
        )[0]
        return said


class FluxFlow(Flow):
    """Flux.1: patches of 2×2 as tokens with their places, σ is the time, the guidance of dev is an input."""

    def __init__(self, base: Base, *, noise_offset: float = 0.0, min_snr: float = 0.0) -> None:
        super().__init__(base, noise_offset=noise_offset, min_snr=min_snr)
        self._guided = bool(base.denoiser.config.guidance_embeds)

    def predict(self, noisy: Tensor, when: Tensor, texts: Texts, batch: Batch) -> Tensor:  # noqa: ARG002
        """By the transformer, on tokens."""
        height, width = noisy.shape[-2:]
        states = texts["prompt_embeds"].to(self.dtype)
        said: Tensor = self.base.denoiser(
            hidden_states=pack(noisy),
            timestep=when,
            guidance=torch.full_like(when, GUIDANCE) if self._guided else None,
            pooled_projections=texts["pooled_prompt_embeds"].to(self.dtype),
            encoder_hidden_states=states,
            txt_ids=torch.zeros(states.shape[1], 3, device=noisy.device),
            img_ids=self._places(height // 2, width // 2, noisy.device),
            return_dict=False,
        )[0]
        return unpack(said, height, width)

    def _places(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """(0, row, column) of every token."""
        places = torch.zeros(rows, columns, 3, device=device)
        places[..., 1] = torch.arange(rows, device=device)[:, None]
        places[..., 2] = torch.arange(columns, device=device)[None, :]
        return places.reshape(rows * columns, 3)
