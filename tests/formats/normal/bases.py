"""The layers of real bases, and headers of adapters for them. No torch: the shapes stand in `bases.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from loravault.formats.normal import Place, normalise
from loravault.formats.normal.patches import LayerKey, Normal
from tests.formats import derived
from tests.formats.normal.derive import BASES

Shape = tuple[int, ...]
_DATA = Path(__file__).with_name("bases.json")
_COMPONENTS = ("text_encoder", "text_encoder_2", "text_encoder_3")


@cache
def _models() -> dict[str, dict[str, Shape]]:
    return {
        name: {path: tuple(shape) for row, shape in rows.items() for path in derived.expand(row)}
        for name, rows in json.loads(_DATA.read_text("utf-8")).items()
    }


@cache
def layers(base: str) -> Mapping[LayerKey, Shape]:
    """(component, module) → shape, of everything in a base of `derive.BASES`."""
    _, encoders = BASES[base]
    denoiser = "unet" if "conv_in" in _models()[base] else "transformer"
    parts = {denoiser: _models()[base], **dict(zip(_COMPONENTS, (_models()[name] for name in encoders), strict=False))}
    return {(component, module): shape for component, rows in parts.items() for module, shape in rows.items()}


def family(base: str) -> str:
    return base.partition(" ")[0]


def trainable(base: str, component: str) -> dict[str, Shape]:
    """What trainers adapt in a component: its linear layers and convolutions, by module."""
    return {
        module: shape
        for (where, module), shape in layers(base).items()
        if where == component and len(shape) > 1 and "embed_tokens" not in module and module != "shared"
        and not module.endswith(("token_embedding", "position_embedding", "relative_attention_bias"))
    }  # fmt: skip


def denoiser(base: str) -> str:
    return next(component for component, _ in layers(base) if component in ("unet", "transformer"))


def placed(shapes: Mapping[str, Shape], base: str, metadata: Mapping[str, str] | None = None) -> Normal:
    """A header with these tensors, normalised for a base."""
    return normalise(derived.header(shapes, metadata), layers(base), family(base))


def where(normal: Normal) -> dict[str, tuple[Place, ...]]:
    """Module as the file calls it → its places."""
    return {patch.name: patch.places for patch in normal.patches}
