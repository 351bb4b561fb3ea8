"""Captions read while the text encoders learn: as `families` read them, with a gradient and a whole batch at once.

What is not trained comes from the cache: of Stable Diffusion 3 the states of the T5, of Flux.1 too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from loravault.engine.bases import Base
from loravault.engine.training.batch import Batch

#: Text encoder → token numbers [B, tokens], padded as its tokenizer pads.
Tokens = Mapping[str, Tensor]


def read(base: Base, batch: Batch, clip_skip: int) -> dict[str, Tensor]:
    """What the denoiser takes: the batch's texts with everything that the text encoders that are trained say now.

    `clip_skip` counts as at generation: 1 = last layer; what is trained without the last layer has 1 and 2 alike.
    """
    if not batch.tokens:
        return dict(batch.texts)
    return _READERS[base.drawer.pipeline](base.pipe, batch.texts, batch.tokens, clip_skip)


def _one_clip(pipe: Any, texts: Mapping[str, Tensor], tokens: Tokens, clip_skip: int) -> dict[str, Tensor]:
    model = pipe.text_encoder
    output = model(tokens["text_encoder"], output_hidden_states=clip_skip > 1)
    if clip_skip == 1:
        return {**texts, "prompt_embeds": output.last_hidden_state}
    # transformers before 5.6 keeps the layers one level deeper
    inner = getattr(model, "text_model", model)
    return {**texts, "prompt_embeds": inner.final_layer_norm(output.hidden_states[-clip_skip])}


def _clip(encoder: Any, ids: Tensor, clip_skip: int) -> tuple[Tensor, Tensor | None]:
    """(states before the last layer or further up, projected summary if it has one)."""
    output = encoder(ids, output_hidden_states=True)
    return output.hidden_states[-max(2, clip_skip)], getattr(output, "text_embeds", None)


def _two_clips(pipe: Any, texts: Mapping[str, Tensor], tokens: Tokens, clip_skip: int) -> dict[str, Tensor]:
    first, _ = _clip(pipe.text_encoder, tokens["text_encoder"], clip_skip)
    second, summary = _clip(pipe.text_encoder_2, tokens["text_encoder_2"], clip_skip)
    assert summary is not None  # of a CLIPTextModelWithProjection
    return {**texts, "prompt_embeds": torch.cat([first, second], dim=-1), "pooled_prompt_embeds": summary}


def _clips_and_t5(pipe: Any, texts: Mapping[str, Tensor], tokens: Tokens, clip_skip: int) -> dict[str, Tensor]:
    (first, one), (second, two) = (
        _clip(getattr(pipe, name), tokens[name], clip_skip) for name in ("text_encoder", "text_encoder_2")
    )
    assert one is not None
    assert two is not None
    states = torch.cat([first, second], dim=-1)
    width = int(pipe.transformer.config.joint_attention_dim)
    padded = torch.nn.functional.pad(states, (0, width - states.shape[-1]))
    rest = texts["prompt_embeds"][:, states.shape[1] :].to(padded.dtype)
    return {
        **texts,
        "prompt_embeds": torch.cat([padded, rest], dim=1),
        "pooled_prompt_embeds": torch.cat([one, two], dim=-1),
    }


def _summary(pipe: Any, texts: Mapping[str, Tensor], tokens: Tokens, clip_skip: int) -> dict[str, Tensor]:  # noqa: ARG001
    return {**texts, "pooled_prompt_embeds": pipe.text_encoder(tokens["text_encoder"]).pooler_output}


_READERS: Mapping[str, Callable[[Any, Mapping[str, Tensor], Tokens, int], dict[str, Tensor]]] = {
    "StableDiffusionPipeline": _one_clip,
    "StableDiffusionXLPipeline": _two_clips,
    "StableDiffusion3Pipeline": _clips_and_t5,
    "FluxPipeline": _summary,
}
