"""Z-Image: a Qwen3 reads the prompt; everything between steps is fp32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from loravault.engine.families.common import KL_VAE, QWEN_TOKENIZER, Encoded, Part, Patched, draw_noise

LENGTH = 512


class ZImage(Patched):
    """`ZImagePipeline`, turbo and base.

    Its own guidance scale is ours less one: it adds so many times the difference to the guided prediction, where all
    others add it to the unguided. So `cfg` 1 is without guidance here too, as turbo wants it.
    """

    pipeline = "ZImagePipeline"
    parts = {  # noqa: RUF012
        "transformer": Part("diffusers", "ZImageTransformer2DModel"),
        "vae": KL_VAE,
        "text_encoder": Part("transformers", "Qwen3Model"),
        "tokenizer": QWEN_TOKENIZER,
    }
    in_a_row = ("all_x_embedder", "cap_embedder")

    def encode(self, pipe: Any, text: str, clip_skip: int, *, negative: bool) -> Encoded:  # noqa: ARG002
        """The last but one layer of the language model, only the tokens that count."""
        states, _ = pipe.encode_prompt([text], do_classifier_free_guidance=False, max_sequence_length=LENGTH)
        return {"prompt_embeds": states}

    def readers(self, pipe: Any) -> Sequence[tuple[Any, int]]:
        """512 tokens less those of the form the prompt is put into."""
        form = pipe.tokenizer.apply_chat_template(
            [{"role": "user", "content": ""}], tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        return [(pipe.tokenizer, LENGTH - len(pipe.tokenizer(form).input_ids))]

    def arguments(self, pipe: Any, prompt: Encoded, negative: Encoded | None, cfg: float) -> dict[str, Any]:
        """With the guidance in its own counting."""
        return super().arguments(pipe, prompt, negative, max(cfg - 1, 0.0))

    def noise(self, pipe: Any, size: tuple[int, int], generators: Sequence[torch.Generator]) -> torch.Tensor:
        """(images, 16, height/8, width/8)."""
        scale = int(pipe.vae_scale_factor)
        return draw_noise((pipe.transformer.in_channels, size[1] // scale, size[0] // scale), generators)

    def latent_dtype(self, dtype: torch.dtype) -> torch.dtype:  # noqa: ARG002
        """fp32."""
        return torch.float32
