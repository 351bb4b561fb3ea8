"""Prompts as tensors, encoded by ourselves: the pipeline's own `clip_skip` fails with transformers 5."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import torch

from loravault.errors import UserError

#: Encoded prompts that are kept; one of SD 1 is 236 KB.
CACHE = 64


class PromptEncoder:
    """The tokenizer and text encoder of one base, with a memory. The caller says which adapters are merged."""

    def __init__(self, pipe: Any) -> None:
        self._tokenizer = pipe.tokenizer
        self._model = pipe.text_encoder
        self._cache: OrderedDict[Hashable, torch.Tensor] = OrderedDict()

    @property
    def length(self) -> int:
        """Tokens the base reads, with begin and end (77)."""
        return min(int(self._tokenizer.model_max_length), int(self._model.config.max_position_embeddings))

    def encode(self, text: str, clip_skip: int, merged: Hashable) -> torch.Tensor:
        """The hidden states of a prompt, (1, length, width).

        `clip_skip` counts as A1111 does: 1 = last layer. `merged` = what is merged into the text encoder.
        Raises `UserError` if the encoder has fewer layers.
        """
        key = (text, clip_skip, merged)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        states = self._encode(text, clip_skip)
        self._cache[key] = states
        while len(self._cache) > CACHE:
            self._cache.popitem(last=False)
        return states

    @torch.no_grad()
    def _encode(self, text: str, clip_skip: int) -> torch.Tensor:
        layers = int(self._model.config.num_hidden_layers)
        if not 1 <= clip_skip <= layers:
            raise UserError(f"clip_skip {clip_skip} is not possible: this base's text encoder has {layers} layers.")
        batch = self._tokenizer(
            text, padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
        )
        device = self._model.device
        mask = batch.attention_mask.to(device) if getattr(self._model.config, "use_attention_mask", False) else None
        output = self._model(batch.input_ids.to(device), attention_mask=mask, output_hidden_states=clip_skip > 1)
        if clip_skip == 1:
            states = output.last_hidden_state
        else:
            # transformers before 5.6 keeps the layers one level deeper.
            inner = getattr(self._model, "text_model", self._model)
            states = inner.final_layer_norm(output.hidden_states[-clip_skip])
        if not bool(torch.isfinite(states).all()):
            raise UserError(
                "The text encoder gave NaN. An adapter with a very high weight, or a damaged base, does this: "
                "lower the weights or try without adapters."
            )
        result: torch.Tensor = states
        return result

    def cut_off(self, text: str) -> str | None:
        """The end of a prompt that the base does not read, in a sentence; None if it is read to its end."""
        room = self.length - 2
        ids = self._tokenizer(text, truncation=False, add_special_tokens=False).input_ids
        if len(ids) <= room:
            return None
        lost = " ".join(self._tokenizer.decode(ids[room:]).split())
        shown = lost if len(lost) <= 80 else lost[:79] + "…"
        return f"it has {len(ids)} tokens and this base reads {room}; not read: “{shown}”"
