"""Stable Diffusion 1 and 2, and the demo base: one CLIP, encoded by ourselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from loravault.engine.families.common import (
    CLIP,
    CLIP_TOKENIZER,
    KL_VAE,
    Encoded,
    Family,
    Part,
    check_layers,
    draw_noise,
)


class OnUNet(Family):
    """What draws with a UNet and reads with a CLIP."""

    flow = False
    skips = True
    in_a_row = ()

    def readers(self, pipe: Any) -> Sequence[tuple[Any, int]]:
        """75 tokens of a prompt."""
        return [(pipe.tokenizer, clip_length(pipe.tokenizer, pipe.text_encoder) - 2)]

    def noise(self, pipe: Any, size: tuple[int, int], generators: Sequence[torch.Generator]) -> torch.Tensor:
        """(images, 4, height/8, width/8)."""
        unit = self.unit(pipe)
        return draw_noise((pipe.unet.config.in_channels, size[1] // unit, size[0] // unit), generators)


class StableDiffusion(OnUNet):
    """`StableDiffusionPipeline`; its own `clip_skip` fails with transformers 5."""

    pipeline = "StableDiffusionPipeline"
    parts = {  # noqa: RUF012
        "unet": Part("diffusers", "UNet2DConditionModel"),
        "vae": KL_VAE,
        "text_encoder": CLIP,
        "tokenizer": CLIP_TOKENIZER,
    }

    def encode(self, pipe: Any, text: str, clip_skip: int, *, negative: bool) -> Encoded:  # noqa: ARG002
        """The hidden states, (1, tokens, width); `clip_skip` counts as A1111 does: 1 = last layer."""
        model, tokenizer = pipe.text_encoder, pipe.tokenizer
        check_layers(clip_skip, int(model.config.num_hidden_layers))
        length = clip_length(tokenizer, model)
        batch = tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        mask = batch.attention_mask.to(model.device) if getattr(model.config, "use_attention_mask", False) else None
        output = model(batch.input_ids.to(model.device), attention_mask=mask, output_hidden_states=clip_skip > 1)
        if clip_skip == 1:
            return {"prompt_embeds": output.last_hidden_state}
        # transformers before 5.6 keeps the layers one level deeper.
        inner = getattr(model, "text_model", model)
        return {"prompt_embeds": inner.final_layer_norm(output.hidden_states[-clip_skip])}


def clip_length(tokenizer: Any, model: Any) -> int:
    """Tokens a CLIP reads, with begin and end (77)."""
    return min(int(tokenizer.model_max_length), int(model.config.max_position_embeddings))
