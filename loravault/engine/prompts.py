"""Prompts as tensors, with a memory: the same words with the same adapters are read once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import torch

from loravault.engine.families import Encoded, Family
from loravault.errors import UserError

#: Encoded prompts that are kept, and the most memory they take together: one of SD 1 is 236 KB, one of Flux 4 MB.
CACHE = 64
CACHE_BYTES = 256 << 20


class PromptEncoder:
    """The tokenizers and text encoders of one base. The caller says which adapters are merged."""

    def __init__(self, family: Family, pipe: Any) -> None:
        self._family = family
        self._pipe = pipe
        self._cache: OrderedDict[Hashable, Encoded] = OrderedDict()

    def knows(self, text: str, clip_skip: int, merged: Hashable, *, negative: bool) -> bool:
        """Whether `encode` would remember it."""
        return (text, clip_skip, merged, negative) in self._cache

    def encode(self, text: str, clip_skip: int, merged: Hashable, *, negative: bool = False) -> Encoded:
        """A prompt as the arguments of the pipeline, with a batch of one.

        `clip_skip` counts as A1111 does: 1 = last layer. `merged` = what is merged into the text encoders.
        Raises `UserError` if the encoder has fewer layers.
        """
        key = (text, clip_skip, merged, negative)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        with torch.no_grad():
            encoded = self._family.encode(self._pipe, text, clip_skip, negative=negative)
        if not all(bool(torch.isfinite(tensor).all()) for tensor in _tensors(encoded) if tensor.is_floating_point()):
            raise UserError(
                "The text encoder gave NaN. A LoRA with a very high weight, or a damaged base, does this: "
                "lower the weights or try without LoRAs."
            )
        self._cache[key] = encoded
        while len(self._cache) > 2 and (len(self._cache) > CACHE or self._bytes() > CACHE_BYTES):
            self._cache.popitem(last=False)
        return encoded

    def _bytes(self) -> int:
        return sum(
            tensor.numel() * tensor.element_size() for encoded in self._cache.values() for tensor in _tensors(encoded)
        )

    def cut_off(self, text: str) -> str | None:
        """The end of a prompt that the base does not read, in a sentence; None if one encoder reads it to its end."""
        readers = self._family.readers(self._pipe)
        if not readers:
            return None
        tokenizer, room = max(readers, key=lambda reader: reader[1])
        ids = tokenizer(text, truncation=False, add_special_tokens=False).input_ids
        if len(ids) <= room:
            return None
        lost = " ".join(tokenizer.decode(ids[room:]).split())
        shown = lost if len(lost) <= 80 else lost[:79] + "…"
        return f"it has {len(ids)} tokens and this base reads {room}; not read: “{shown}”"


def _tensors(encoded: Encoded) -> list[torch.Tensor]:
    values = [one for value in encoded.values() for one in (value if isinstance(value, list) else [value])]
    return [value for value in values if value is not None]
