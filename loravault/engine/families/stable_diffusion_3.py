"""Stable Diffusion 3 and 3.5: two CLIPs and, if it is there, a T5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from loravault.engine.families.common import (
    CLIP_PROJECTED,
    CLIP_TOKENIZER,
    KL_VAE,
    T5,
    T5_TOKENIZER,
    Encoded,
    Family,
    Part,
    check_layers,
    draw_noise,
)

#: Tokens the T5 reads, with its end.
T5_LENGTH = 256


class StableDiffusion3(Family):
    """`StableDiffusion3Pipeline`. Without the T5, which many leave out, its place is filled with zeros."""

    pipeline = "StableDiffusion3Pipeline"
    parts = {  # noqa: RUF012
        "transformer": Part("diffusers", "SD3Transformer2DModel"),
        "vae": KL_VAE,
        "text_encoder": CLIP_PROJECTED,
        "text_encoder_2": CLIP_PROJECTED,
        "text_encoder_3": replace(T5, optional=True),
        "tokenizer": CLIP_TOKENIZER,
        "tokenizer_2": CLIP_TOKENIZER,
        "tokenizer_3": replace(T5_TOKENIZER, optional=True),
    }
    skips = True
    in_a_row = ()

    def encode(self, pipe: Any, text: str, clip_skip: int, *, negative: bool) -> Encoded:  # noqa: ARG002
        """The CLIPs' states followed by the T5's, and the CLIPs' summaries. `clip_skip` 1 and 2 are the same."""
        check_layers(clip_skip, int(pipe.text_encoder.config.num_hidden_layers))
        states, _, summary, _ = pipe.encode_prompt(
            text,
            prompt_2=None,
            prompt_3=None,
            do_classifier_free_guidance=False,
            clip_skip=clip_skip - 2 if clip_skip > 2 else None,
            max_sequence_length=T5_LENGTH,
        )
        return {"prompt_embeds": states, "pooled_prompt_embeds": summary}

    def readers(self, pipe: Any) -> Sequence[tuple[Any, int]]:
        """75 tokens by the CLIPs, 255 by the T5."""
        found = [(pipe.tokenizer, int(pipe.tokenizer_max_length) - 2)]
        return [*found, (pipe.tokenizer_3, T5_LENGTH - 1)] if pipe.text_encoder_3 is not None else found

    def unit(self, pipe: Any) -> int:
        """16."""
        return int(pipe.vae_scale_factor * pipe.patch_size)

    def noise(self, pipe: Any, size: tuple[int, int], generators: Sequence[torch.Generator]) -> torch.Tensor:
        """(images, 16, height/8, width/8)."""
        scale = int(pipe.vae_scale_factor)
        return draw_noise((pipe.transformer.config.in_channels, size[1] // scale, size[0] // scale), generators)
