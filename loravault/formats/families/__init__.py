"""Which family of base models an adapter is made for, told from the names and shapes of its tensors.

One table per family (`flux.py`, `unet.py`, …) says which layers its models have. A file is compared with all of them
at once; shapes overrule what its metadata or its name says. Where shapes allow several families, what is said decides,
in the order of `told.sayings`; what cannot be told stays `unknown`, and such a variant stays None.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loravault.formats import keys
from loravault.formats.families import told
from loravault.formats.families.index import FAMILIES, MODELS
from loravault.formats.families.other import what_else
from loravault.formats.families.probe import Census, count
from loravault.formats.families.told import from_civitai
from loravault.formats.families.unet import DEMO_WIDTH, WIDTHS
from loravault.formats.safetensors_header import Header, ReadAt
from loravault.formats.tensor_table import BrokenFile, TensorInfo

__all__ = [
    "DEMO_VERSION", "DEMO_WIDTH", "FAMILY_TITLES", "UNET_WIDTHS", "Identity", "from_civitai", "identify",
    "read_scalar",
]  # fmt: skip

#: What adapters trained on the demo base say in `ss_base_model_version`.
DEMO_VERSION = "loravault_demo_v1"
#: Cross-attention width → family, for everything with a Stable Diffusion UNet.
UNET_WIDTHS: Mapping[int, str] = WIDTHS
#: Family → its name as people write it.
FAMILY_TITLES: Mapping[str, str] = {family.name: family.title for family in FAMILIES.values()}


@dataclass(frozen=True)
class Identity:
    """What an adapter is."""

    #: A key of `FAMILY_TITLES`, or `unknown`.
    family: str
    #: `pony`, `illustrious`, `dev`, `schnell`, `v-prediction`, `14b`, …; None if it cannot be told.
    variant: str | None
    #: See `keys.network_type`; `control-lora` for one that reads a second picture.
    network: str
    #: The rank most modules have; None if the network type has none.
    rank: int | None
    alpha: float | None
    #: Field → where it was found: `shapes`, `tensors`, `name`, `folder`, a metadata entry, a source in `base_models`.
    sources: dict[str, str] = field(default_factory=dict)
    #: Rank → modules that have it, most first.
    ranks: dict[int, int] = field(default_factory=dict)
    #: Modules of the base it changes.
    modules: int = 0
    #: Whether some of them belong to a text encoder.
    text_encoder: bool = False
    #: The families whose models have exactly these layers; more than one if shapes alone cannot tell.
    possible: tuple[str, ...] = ()
    #: `high` or `low`, for one of the two experts of Wan 2.2; only file names tell.
    expert: str | None = None
    #: Whether magnitudes are kept apart from directions (DoRA), whatever the network type is.
    dora: bool = False


def identify(
    header: Header,
    read_at: ReadAt | None = None,
    *,
    name: str = "",
    folder: str = "",
    base_models: Sequence[tuple[str, str]] = (),
) -> Identity:
    """Family, variant, network type, rank and alpha of an adapter.

    With `read_at` (absolute offset, length) the alpha is read from the file where the metadata does not say it. `name`
    and `folder` are the weakest hints; `base_models`, the strongest, are (source, `SDXL 1.0`) pairs from other tools'
    files. Raises `BrokenFile` if the file is not an adapter, or half of one.
    """
    if not header.tensors:
        raise BrokenFile("it holds no tensors")
    census = count(header.tensors)
    _refuse(census, header)
    said = told.sayings(header.metadata, base_models, name, folder)
    sources = {"network": "shapes"}
    possible = tuple(dict.fromkeys(MODELS[bit][0].name for bit in _bits(census.models)))
    family = _family(census, possible, said, sources)
    variant = _variant(family, census, said, sources)
    rank = max(census.ranks, key=lambda value: (census.ranks[value], value)) if census.ranks else None
    if rank is not None:
        sources["rank"] = "shapes"
    network = keys.network_type(census.networks, census.parts, header.metadata)
    if network == "dylora":
        sources["network"] = "ss_network_args" if "ss_network_args" in header.metadata else "ss_network_module"
    return Identity(
        family=family,
        variant=variant,
        network="control-lora" if census.control and family == "flux" else network,
        rank=rank,
        alpha=_alpha(header, census, read_at, sources),
        sources=sources,
        ranks=dict(sorted(census.ranks.items(), key=lambda item: (-item[1], -item[0]))),
        modules=census.modules,
        text_encoder=census.text_encoder,
        possible=possible,
        expert=told.expert_of(name, folder) if family == "wan" and variant != "5b" else None,
        dora=keys.has_magnitudes(census.parts),
    )


def _refuse(census: Census, header: Header) -> None:
    """Raise `BrokenFile` for what is no adapter: most tensors must be parts of one, as merged models may keep a few."""
    if not (census.modules or census.halves) or 2 * census.own <= census.tensors:
        raise BrokenFile(what_else(header.tensors))
    if census.halves:
        of = f"{census.halves:,} of its {census.modules + _ups_alone(census):,} modules have"
        words = of if census.halves > 1 else "one of its modules has"
        raise BrokenFile(
            f"{words} only one of the two matrices of a LoRA (first: {census.half[:100]}): it is damaged; get it again"
        )


def _ups_alone(census: Census) -> int:
    """Modules that are counted by their first matrix, so that those without one are not among them."""
    return max(census.halves - census.modules, 0)


def _family(census: Census, possible: tuple[str, ...], said: Sequence[told.Saying], sources: dict[str, str]) -> str:
    """The family by shapes, else by what is said, else the one that is meant nearly always; notes which it was."""
    if len(possible) == 1:
        sources["family"] = "shapes"
        return possible[0]
    if possible:
        chosen = told.family_among(possible, said)
        if chosen:
            family, sources["family"] = chosen
            return family
        usual = [family for family in possible if not set(FAMILIES[family].rarer_than) & set(possible)]
        if len(usual) == 1:
            sources["family"] = "shapes"
            return usual[0]
        return "unknown"
    if not census.contradicted:
        for saying in said:
            if saying.family in FAMILIES and saying.source not in ("name", "folder"):
                sources["family"] = saying.source
                return str(saying.family)
    return "unknown"


def _variant(family: str, census: Census, said: Sequence[told.Saying], sources: dict[str, str]) -> str | None:
    """The variant inside a family: by shapes where they differ, else by what is said."""
    table = FAMILIES.get(family)
    if table is None:
        return None
    bits = _bits(census.models)
    allowed = {MODELS[bit][1].variant for bit in bits if MODELS[bit][0].name == family}
    if not allowed:  # known by words only: they may say everything
        allowed = {model.variant for model in table.models}
    elif len(allowed) == 1 and None not in allowed:
        sources["variant"] = "shapes"
        return next(iter(allowed))
    chosen = told.variant_among(table, allowed, said)
    if chosen:
        variant, sources["variant"] = chosen
        return variant
    merged = table.merged.get(frozenset(variant for variant in allowed if variant))
    if merged:
        sources["variant"] = "shapes"
    return merged


def _bits(mask: int) -> list[int]:
    return [bit for bit in range(mask.bit_length()) if mask >> bit & 1]


_FLOATS: Mapping[str, tuple[str, int]] = {"F16": ("<e", 2), "F32": ("<f", 4), "F64": ("<d", 8)}


def _alpha(header: Header, census: Census, read_at: ReadAt | None, sources: dict[str, str]) -> float | None:
    """The alpha most of the file was trained with: from a tensor if it may be read, else from the metadata."""
    if census.alpha is not None and read_at is not None:
        value = read_scalar(header, header.tensors[census.alpha], read_at)
        if value is not None and math.isfinite(value):
            sources["alpha"] = "tensors"
            return value
    if census.alpha is None and (value := _peft_alpha(header.metadata)) is not None:
        sources["alpha"] = "lora_adapter_metadata"
        return value
    value = _number(header.metadata.get("ss_network_alpha"))
    if value is not None:
        sources["alpha"] = "ss_network_alpha"
    return value


def _peft_alpha(metadata: Mapping[str, str]) -> float | None:
    """diffusers has no alpha tensors; it keeps PEFT's configuration, one part per component."""
    try:
        table = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(table, dict):
        return None
    found = [value for key, value in table.items() if str(key).endswith("lora_alpha") and value is not None]
    return _number(found[0]) if found else None


def _number(value: Any) -> float | None:
    """A finite number from metadata; kohya writes `None` or `Dynamic` where there is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def read_scalar(header: Header, info: TensorInfo, read_at: ReadAt) -> float | None:
    """The value of a tensor of one element, as alphas are; None for other tensors and formats."""
    data = read_at(header.data_start + info.start, min(info.end - info.start, 8))
    if info.dtype == "BF16" and len(data) == 2:
        data, layout = b"\0\0" + data, "<f"
    elif info.dtype in _FLOATS and len(data) == _FLOATS[info.dtype][1]:
        layout = _FLOATS[info.dtype][0]
    else:
        return None
    return float(struct.unpack(layout, data)[0])
