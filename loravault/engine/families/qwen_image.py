"""Qwen-Image: a Qwen2.5-VL reads the prompt, and the VAE is one for films, used for a film of one frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from loravault.engine.families.common import QWEN_TOKENIZER, Encoded, Packed, Part

LENGTH = 512


class QwenImage(Packed):
    """`QwenImagePipeline`."""

    pipeline = "QwenImagePipeline"
    parts = {  # noqa: RUF012
        "transformer": Part("diffusers", "QwenImageTransformer2DModel"),
        "vae": Part("diffusers", "AutoencoderKLQwenImage"),
        "text_encoder": Part("transformers", "Qwen2_5_VLForConditionalGeneration"),
        "tokenizer": QWEN_TOKENIZER,
    }
    guidance = "true_cfg_scale"

    def encode(self, pipe: Any, text: str, clip_skip: int, *, negative: bool) -> Encoded:  # noqa: ARG002
        """The last layer of the language model behind the form the prompt is put into.

        An empty negative prompt is one blank, as its authors use it.
        """
        states, mask = pipe.encode_prompt(text or " ", max_sequence_length=LENGTH)
        return {"prompt_embeds": states, "prompt_embeds_mask": mask}

    def readers(self, pipe: Any) -> Sequence[tuple[Any, int]]:
        """512 tokens behind the form's beginning, of which its end takes some."""
        form = pipe.prompt_template_encode.format("")
        end = len(pipe.tokenizer(form).input_ids) - int(pipe.prompt_template_encode_start_idx)
        return [(pipe.tokenizer, LENGTH - max(end, 0))]

    def goes_with(self, one: Encoded, other: Encoded) -> bool:  # noqa: ARG002
        """Always: shorter prompts are filled up, and the filling is masked."""
        return True

    def joined(self, prompts: Sequence[Encoded]) -> Encoded:
        """All as long as the longest. Without a mask where every token of every prompt counts, as the pipeline does."""
        longest = max(one["prompt_embeds"].shape[1] for one in prompts)
        states = [_filled(one["prompt_embeds"], longest) for one in prompts]
        masks = [_filled(_mask(one), longest) for one in prompts]
        mask = torch.cat(masks)
        return {"prompt_embeds": torch.cat(states), "prompt_embeds_mask": None if bool(mask.all()) else mask}

    def arguments(self, pipe: Any, prompt: Encoded, negative: Encoded | None, cfg: float) -> dict[str, Any]:
        """A negative prompt without guidance would only be complained about."""
        return super().arguments(pipe, prompt, negative if self.guided(pipe, cfg) else None, cfg)

    def latents(self, pipe: Any, drawn: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Unpacked, scaled channel by channel, as a film of one frame: (images, 16, 1, height/8, width/8)."""
        config = pipe.vae.config
        frames = self.unpacked(pipe, drawn, size).unsqueeze(2)
        mean, spread = (
            torch.tensor(values, device=frames.device, dtype=frames.dtype).view(1, -1, 1, 1, 1)
            for values in (config.latents_mean, config.latents_std)
        )
        # Divided by the reciprocal, not multiplied: the pipeline does it so, and bits differ.
        return frames / (1.0 / spread) + mean

    def pixels(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        """The first frame."""
        return super().pixels(pipe, latents)[:, :, 0]


def _mask(encoded: Encoded) -> torch.Tensor:
    """Which tokens count; none given means all."""
    mask, states = encoded["prompt_embeds_mask"], encoded["prompt_embeds"]
    found: torch.Tensor = torch.ones(states.shape[:2], dtype=torch.long, device=states.device) if mask is None else mask
    return found


def _filled(tensor: torch.Tensor, length: int) -> torch.Tensor:
    """With zeros behind its tokens, the second dimension, up to `length` of them."""
    filling = tensor.new_zeros((tensor.shape[0], length - tensor.shape[1], *tensor.shape[2:]))
    return torch.cat([tensor, filling], dim=1)
