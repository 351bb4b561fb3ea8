"""Learned vectors in place of words: the embeddings that an adapter file brings along, in a prompt and in training.

They stand in the file as A1111 and LyCORIS' bundles have them: `bundle_emb.<words>.string_to_param.*` for a base with
one CLIP, `bundle_emb.<words>.clip_l` and `.clip_g` for several; one row for each token of the words. Wherever a prompt
has these tokens, one after the other, the rows take the place of the base's own; the base itself is not changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loravault.engine.bases import Base
from loravault.formats.tensor_table import TensorInfo

_PREFIX = "bundle_emb."
#: What a part is called in a file → the text encoder that it is for.
_PARTS: Mapping[str, str] = {
    "string_to_param.*": "text_encoder",
    "clip_l": "text_encoder",
    "clip_g": "text_encoder_2",
}


@dataclass(frozen=True, eq=False)
class Learned:
    """Vectors for some words in one text encoder."""

    words: str
    #: `text_encoder` or `text_encoder_2`.
    component: str
    #: Numbers of the tokens that the words are.
    tokens: tuple[int, ...]
    #: (tokens, width).
    vectors: Tensor


def tokens_of(base: Base, component: str, words: str) -> tuple[int, ...]:
    """The tokens that words are to a CLIP of this base, without begin and end."""
    tokenizer = getattr(base.pipe, component.replace("text_encoder", "tokenizer"))
    return tuple(tokenizer(words, add_special_tokens=False).input_ids)


def table_of(base: Base, component: str) -> torch.nn.Module | None:
    """The layer of a text encoder that has a vector for each token; None if this base has no such CLIP."""
    part = base.drawer.parts.get(component)
    model = getattr(base.pipe, component, None)
    if part is None or model is None or not part.kind.startswith("CLIPText"):
        return None
    table: torch.nn.Module = model.get_input_embeddings()
    return table


def name_in_file(base: Base, component: str, words: str) -> str:
    """What the tensor of vectors for `words` is called in a file for this base."""
    single = table_of(base, "text_encoder_2") is None and base.drawer.denoiser == "unet"
    part = "string_to_param.*" if single else "clip_l" if component == "text_encoder" else "clip_g"
    return f"{_PREFIX}{words}.{part}"


def learned_in(tensors: Mapping[str, TensorInfo], read: Any, base: Base) -> dict[str, Learned]:
    """Name of the tensor → what it is, of every embedding of a file that fits this base. `read`: tensor of a row."""
    found: dict[str, Learned] = {}
    for name, info in tensors.items():
        if not name.startswith(_PREFIX):
            continue
        words, _, part = name[len(_PREFIX) :].partition(".")
        component = _PARTS.get(part)
        table = table_of(base, component) if component else None
        if component is None or table is None or len(info.shape) != 2:
            continue
        tokens = tokens_of(base, component, words)
        width = table.weight.shape[1]  # type: ignore[index]
        if tokens and info.shape == (len(tokens), width):
            found[name] = Learned(words, component, tokens, read(info))
    return found


@contextmanager
def inserted(base: Base, learned: Iterable[Learned]) -> Iterator[None]:
    """The vectors are in effect for as long as this lasts."""
    handles = [put_in(base, one) for one in learned]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def put_in(base: Base, one: Learned) -> Any:
    """Puts vectors in effect until the handle that is returned is removed."""
    table = table_of(base, one.component)
    assert table is not None

    def replace(_table: Any, args: Sequence[Any], states: Tensor) -> Tensor:
        return with_vectors(states, args[0], one.tokens, one.vectors)

    return table.register_forward_hook(replace)


def with_vectors(states: Tensor, ids: Tensor, tokens: Sequence[int], vectors: Tensor) -> Tensor:
    """`states` [B, L, width] with `vectors` [n, width] wherever `ids` [B, L] has these n tokens in a row."""
    length = len(tokens)
    if ids.ndim != 2 or ids.shape[1] < length or not length:
        return states
    wanted = torch.tensor(tokens, device=ids.device)
    starts = (ids.unfold(1, length, 1) == wanted).all(-1).nonzero().tolist()
    rows: list[int] = []
    columns: list[int] = []
    last = (-1, -1)  # picture, and where its last place ended: places do not overlap
    for picture, begin in starts:
        if last[0] == picture and begin < last[1]:
            continue
        last = (picture, begin + length)
        rows += [picture] * length
        columns += range(begin, begin + length)
    if not rows:
        return states
    values = vectors.to(states.device, states.dtype).repeat(len(rows) // length, 1)
    where = (torch.tensor(rows, device=states.device), torch.tensor(columns, device=states.device))
    return states.index_put(where, values)
