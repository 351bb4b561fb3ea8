"""Captions as the denoiser takes them: read once, kept on disk, for text encoders that are not trained themselves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from loravault.engine.bases import Base
from loravault.engine.ends import Stopped
from loravault.engine.families import Encoded
from loravault.engine.families.stable_diffusion import clip_length
from loravault.engine.prompts import PromptEncoder
from loravault.engine.training.store import Store, fingerprint, key_of

_KIND = "texts"
_VERSION = 1


class Texts:
    """The captions of one training through the text encoders of one base."""

    def __init__(self, base: Base, store: Store, clip_skip: int) -> None:
        self._base = base
        self._store = store
        self._clip_skip = clip_skip
        self._encoder = PromptEncoder(base.drawer, base.pipe)
        self._print: str | None = None
        self._kept: dict[str, dict[str, Tensor]] = {}

    def prepare(
        self, captions: Iterable[str], on_progress: Callable[[int], None], cancelled: Callable[[], bool]
    ) -> None:
        """Reads what is not kept yet. Raises `UserError` for NaN or a wrong clip skip, `Stopped`.

        `on_progress(done)` after each caption.
        """
        for done, caption in enumerate(dict.fromkeys(captions), start=1):
            if caption not in self._kept:
                if cancelled():
                    raise Stopped
                self._kept[caption] = self._read(caption)
            on_progress(done)

    def bytes_of(self, caption: str) -> int:
        """What a caption that was prepared takes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._kept[caption].values())

    def get(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Captions that were prepared, as a batch: argument of the pipeline → [B, …]."""
        rows = [self._kept[caption] for caption in captions]
        return {name: _stacked([row[name] for row in rows]) for name in rows[0]}

    def _read(self, caption: str) -> dict[str, Tensor]:
        key = key_of(_VERSION, self._fingerprint(), self._clip_skip, caption)
        found = self._store.read(_KIND, key)
        if found is None:
            # A caption that drops out is what the base is asked without guidance: for SDXL zeros, if it says so.
            encoded = self._encoder.encode(caption, self._clip_skip, None, negative=not caption)
            found = self._store.write(_KIND, key, dict(_tensors(encoded)))
        return dict(found)

    def _fingerprint(self) -> str:
        """Of everything that decides how a text is read but the text."""
        if self._print is None:
            pipe, drawer = self._base.pipe, self._base.drawer
            parts: list[Any] = [drawer.pipeline, [room for _, room in drawer.readers(pipe)]]
            for name, part in drawer.parts.items():
                model = getattr(pipe, name, None)
                if model is not None and name.startswith("text_encoder"):
                    parts.append([name, fingerprint(model)])
                elif model is not None and part.library == "tokenizer":
                    parts.append([name, _vocabulary(model)])
            told = dict(pipe.config)
            parts.append({name: told[name] for name in drawer.settings if name in told})
            self._print = key_of(*parts)
        return self._print


def _vocabulary(tokenizer: Any) -> str:
    """All of a tokenizer but how it was asked to cut and pad the last time, which it keeps too."""
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = {name: value for name, value in whole.items() if name not in ("truncation", "padding")}
    return key_of(kept, str(tokenizer.special_tokens_map))


def _tensors(encoded: Encoded) -> Iterable[tuple[str, Tensor]]:
    """What is kept; None is left out, and a list holds the one text."""
    for name, value in encoded.items():
        if value is not None:
            tensor = value[0][None] if isinstance(value, list) else value
            yield name, tensor.detach().to("cpu")


def _stacked(rows: list[Tensor]) -> Tensor:
    """Texts of one length side by side; shorter ones are followed by zeros, which their mask leaves out."""
    longest = max(row.shape[1] for row in rows) if rows[0].dim() > 1 else 0
    if any(row.dim() > 1 and row.shape[1] != longest for row in rows):
        rows = [torch.cat([row, row.new_zeros(1, longest - row.shape[1], *row.shape[2:])], dim=1) for row in rows]
    return torch.cat(rows)


# ---- text encoders that are trained


def trained_encoders(base: Base) -> tuple[str, ...]:
    """The text encoders that an adapter trains where it trains any: every CLIP, no T5 and no language model."""
    return tuple(
        name
        for name, part in base.drawer.parts.items()
        if name.startswith("text_encoder") and part.kind.startswith("CLIPText") and hasattr(base.pipe, name)
    )


def tokens_of(base: Base, captions: Sequence[str]) -> dict[str, Tensor]:
    """Text encoder that is trained → token numbers [B, tokens] of the captions, cut and padded as at generation."""
    found = {}
    for name in trained_encoders(base):
        tokenizer = getattr(base.pipe, name.replace("text_encoder", "tokenizer"))
        length = clip_length(tokenizer, getattr(base.pipe, name))
        batch = tokenizer(list(captions), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        found[name] = batch.input_ids
    return found
