"""Flux.2 klein: a Qwen3 reads the prompt, and the latents are normalised by the VAE's own statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from loravault.engine.families.common import QWEN_TOKENIZER, Encoded, Part, Patched, draw_noise

LENGTH = 512


class Flux2Klein(Patched):
    """`Flux2KleinPipeline`: the distilled one is drawn without guidance, the base one with it."""

    pipeline = "Flux2KleinPipeline"
    parts = {  # noqa: RUF012
        "transformer": Part("diffusers", "Flux2Transformer2DModel"),
        "vae": Part("diffusers", "AutoencoderKLFlux2"),
        "text_encoder": Part("transformers", "Qwen3ForCausalLM"),
        "tokenizer": QWEN_TOKENIZER,
    }
    settings = {"is_distilled": False}  # noqa: RUF012
    in_a_row = ()

    #: Layers of a Qwen3 whose states are put side by side, of the 36 or more it has.
    layers = (9, 18, 27)

    def encode(self, pipe: Any, text: str, clip_skip: int, *, negative: bool) -> Encoded:  # noqa: ARG002
        """Three layers of the language model side by side."""
        states, _ = pipe.encode_prompt(text, max_sequence_length=LENGTH, text_encoder_out_layers=self.layers)
        return {"prompt_embeds": states}

    def readers(self, pipe: Any) -> Sequence[tuple[Any, int]]:
        """512 tokens less those of the form the prompt is put into."""
        form = pipe.tokenizer.apply_chat_template(
            [{"role": "user", "content": ""}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return [(pipe.tokenizer, LENGTH - len(pipe.tokenizer(form).input_ids))]

    def guided(self, pipe: Any, cfg: float) -> bool:
        """Not the distilled one."""
        return cfg > 1 and not pipe.config.is_distilled

    def why_unguided(self, pipe: Any) -> str:
        """By its training, or by `cfg`."""
        if pipe.config.is_distilled:
            return "this base is distilled and drawn without guidance"
        return super().why_unguided(pipe)

    def noise(self, pipe: Any, size: tuple[int, int], generators: Sequence[torch.Generator]) -> torch.Tensor:
        """(images, 128, height/16, width/16): patches are channels; the pipeline makes tokens of them."""
        unit = self.unit(pipe)
        return draw_noise((pipe.transformer.config.in_channels, size[1] // unit, size[0] // unit), generators)

    def latents(self, pipe: Any, drawn: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:  # noqa: ARG002
        """The pipeline has already unpacked and scaled them."""
        return drawn
