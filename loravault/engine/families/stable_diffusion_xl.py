"""SDXL and what is trained from it (Pony, Illustrious, NoobAI): two CLIPs, always without their last layer."""

from __future__ import annotations

from typing import Any

import torch

from loravault.engine.families.common import (
    CLIP,
    CLIP_PROJECTED,
    CLIP_TOKENIZER,
    KL_VAE,
    Encoded,
    Part,
    check_layers,
)
from loravault.engine.families.stable_diffusion import OnUNet


class StableDiffusionXL(OnUNet):
    """`StableDiffusionXLPipeline`."""

    pipeline = "StableDiffusionXLPipeline"
    parts = {  # noqa: RUF012
        "unet": Part("diffusers", "UNet2DConditionModel"),
        "vae": KL_VAE,
        "text_encoder": CLIP,
        "text_encoder_2": CLIP_PROJECTED,
        "tokenizer": CLIP_TOKENIZER,
        "tokenizer_2": CLIP_TOKENIZER,
    }
    settings = {"force_zeros_for_empty_prompt": True}  # noqa: RUF012

    def encode(self, pipe: Any, text: str, clip_skip: int, *, negative: bool) -> Encoded:
        """Hidden states of both CLIPs side by side, and the second one's summary.

        `clip_skip` 1 and 2 are the same, as in other programs: the model was trained without the last layer. An empty
        negative prompt is zeros, if the base says that it was trained so.
        """
        check_layers(clip_skip, int(pipe.text_encoder.config.num_hidden_layers))
        states, _, summary, _ = pipe.encode_prompt(
            text, do_classifier_free_guidance=False, clip_skip=clip_skip - 2 if clip_skip > 2 else None
        )
        if negative and not text and pipe.config.force_zeros_for_empty_prompt:
            states, summary = torch.zeros_like(states), torch.zeros_like(summary)
        return {"prompt_embeds": states, "pooled_prompt_embeds": summary}
