"""Flux.1 and Chroma: tokens of 2×2 patches, a T5, and for Flux.1 a guidance that is an input of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loravault.engine.families.common import (
    CLIP,
    CLIP_TOKENIZER,
    KL_VAE,
    T5,
    T5_TOKENIZER,
    Encoded,
    Packed,
    Part,
)


class Flux(Packed):
    """`FluxPipeline`: dev and its kin take the guidance as an input, schnell takes none; no one looks at a negative."""

    pipeline = "FluxPipeline"
    parts = {  # noqa: RUF012
        "transformer": Part("diffusers", "FluxTransformer2DModel"),
        "vae": KL_VAE,
        "text_encoder": CLIP,
        "text_encoder_2": T5,
        "tokenizer": CLIP_TOKENIZER,
        "tokenizer_2": T5_TOKENIZER,
    }

    def encode(self, pipe: Any, text: str, clip_skip: int, *, negative: bool) -> Encoded:  # noqa: ARG002
        """The T5's states and the CLIP's summary."""
        states, summary, _ = pipe.encode_prompt(text, max_sequence_length=self._length(pipe))
        return {"prompt_embeds": states, "pooled_prompt_embeds": summary}

    def readers(self, pipe: Any) -> Sequence[tuple[Any, int]]:
        """511 tokens (255 by schnell); the CLIP's summary is of the first 75 only."""
        return [(pipe.tokenizer_2, self._length(pipe) - 1)]

    @staticmethod
    def _length(pipe: Any) -> int:
        """schnell was trained with shorter prompts."""
        return 512 if pipe.transformer.config.guidance_embeds else 256

    def guided(self, pipe: Any, cfg: float) -> bool:  # noqa: ARG002
        """Never."""
        return False

    def why_unguided(self, pipe: Any) -> str:
        """The guidance is part of the model."""
        if pipe.transformer.config.guidance_embeds:
            return "Flux.1 has its guidance built in and knows no negative prompt"
        return "Flux.1 schnell is drawn without guidance"

    def ineffective(self, pipe: Any, spec: Any) -> list[str]:
        """Schnell ignores `cfg` too."""
        found = super().ineffective(pipe, spec)
        if spec.cfg > 1 and not pipe.transformer.config.guidance_embeds:
            found.append(f"cfg {spec.cfg:g} had no effect: {self.why_unguided(pipe)}.")
        return found


class Chroma(Packed):
    """`ChromaPipeline`: a Flux with true guidance and only a T5."""

    pipeline = "ChromaPipeline"
    parts = {  # noqa: RUF012
        "transformer": Part("diffusers", "ChromaTransformer2DModel"),
        "vae": KL_VAE,
        "text_encoder": T5,
        "tokenizer": T5_TOKENIZER,
    }

    def encode(self, pipe: Any, text: str, clip_skip: int, *, negative: bool) -> Encoded:  # noqa: ARG002
        """The T5's states, and which tokens count."""
        states, _, mask, *_ = pipe.encode_prompt(text, do_classifier_free_guidance=False, max_sequence_length=512)
        return {"prompt_embeds": states, "prompt_attention_mask": mask}

    def readers(self, pipe: Any) -> Sequence[tuple[Any, int]]:
        """511 tokens."""
        return [(pipe.tokenizer, 511)]
