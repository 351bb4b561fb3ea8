"""Which family of base models an adapter is made for, told from the names and shapes of its tensors.

The tables are data, tried in order; the first hit decides. Shapes overrule metadata that contradicts them; where shapes
cannot tell two families apart, metadata may; what cannot be told stays `unknown`, and such a variant stays None.
"""

from __future__ import annotations

import math
import re
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from loravault.formats import keys
from loravault.formats.safetensors_header import BrokenFile, Header, ReadAt, TensorInfo

#: Cross-attention width of the demo base; nobody else uses it.
DEMO_WIDTH = 160
#: What adapters trained on the demo base say in `ss_base_model_version`.
DEMO_VERSION = "loravault_demo_v1"
#: Cross-attention width → family, for everything with a Stable Diffusion UNet.
UNET_WIDTHS: Mapping[int, str] = {DEMO_WIDTH: "demo", 768: "sd15", 1024: "sd2", 2048: "sdxl"}


@dataclass(frozen=True)
class Identity:
    """What an adapter is."""

    #: A family of `FAMILY_TITLES`, or `unknown`.
    family: str
    #: `pony`, `illustrious`, `dev`, `schnell`, `v-prediction`, …; None if it cannot be told.
    variant: str | None
    #: See `keys.network_type`.
    network: str
    #: The rank most modules have; None if the network type has none.
    rank: int | None
    alpha: float | None
    #: Field → where it was found: `shapes`, or the name of a metadata entry.
    sources: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """One line of the family probe: all given conditions must hold."""

    family: str
    #: Patterns that each must be found in some module path (with underscores).
    present: tuple[str, ...]
    #: Patterns that must not be found in any.
    absent: tuple[str, ...] = ()
    #: (pattern, input widths): some module that matches the pattern has one of these input widths.
    width: tuple[str, frozenset[int]] | None = None


# Order matters: families whose names contain another's come first. Widths settle it where names are shared.
RULES: tuple[Rule, ...] = (
    Rule("flux2", (r"single_transformer_blocks_\d+_attn_to_qkv_mlp_proj",)),
    Rule("flux2", (r"double_blocks_",), width=(r"^(txt_in|context_embedder)$", frozenset({7680, 12288, 15360}))),
    Rule("flux2", (r"double_blocks_|single_blocks_",), width=(r"(attn_qkv|linear1)$", frozenset({4096, 6144}))),
    Rule("hunyuan-video", (r"double_blocks_\d+_(img|txt)_mlp_fc1|txt_in_individual_token_refiner",)),
    Rule("hunyuan-video", (r"context_embedder_token_refiner",)),
    Rule("chroma", (r"distilled_guidance_layer", r"double_blocks_|single_transformer_blocks_")),
    Rule("hidream", (r"double_stream_blocks_\d+_block|single_stream_blocks_\d+_block",)),
    Rule("auraflow", (r"joint_transformer_blocks_|double_layers_\d+_",)),
    Rule("flux", (r"^double_blocks_\d+_|^single_blocks_\d+_(linear[12]|modulation)",)),
    Rule("flux", (r"^double_blocks_\d+_processor",)),
    Rule("flux", (r"^single_transformer_blocks_\d+_(attn_|proj_mlp|proj_out|norm)",)),
    Rule("sd3", (r"^joint_blocks_\d+_(x_block|context_block)",)),
    Rule("qwen-image", (r"^transformer_blocks_\d+_(img|txt)_(mlp|mod)",)),
    Rule("qwen-image", (r"^transformer_blocks_\d+_attn_add_",), width=(r"attn_add_[kqv]_proj$", frozenset({3072}))),
    Rule("sd3", (r"^transformer_blocks_\d+_(attn_add_|ff_context|norm1_context)",)),
    # Attention alone is named alike in all three; Flux adapters of this form hold its single blocks too.
    Rule("qwen-image", (r"^transformer_blocks_\d+_attn_to_",), width=(r"attn_to_[kqv]$", frozenset({3072}))),
    Rule("sd3", (r"^transformer_blocks_\d+_attn_to_",), width=(r"attn_to_[kqv]$", frozenset({1536, 2432}))),
    Rule("anima", (r"^llm_adapter_blocks_\d+",)),
    Rule("anima", (r"^blocks_\d+_(self|cross)_attn_(output|[qkv])_proj",)),
    Rule("minimax-h3", (r"^blocks_\d+_attn_qkv_proj",)),
    Rule("krea2", (r"text_fusion|txtfusion|time_mod_proj",)),
    Rule("wan", (r"^blocks_\d+_(self_attn|cross_attn)_[qkvo](_img)?$",)),
    Rule("wan", (r"^blocks_\d+_attn[12]_to_[qkv]",)),
    Rule("z-image", (r"^layers_\d+_attention|^noise_refiner_",), width=(r"attention_(to_q|qkv)", frozenset({3840}))),
    Rule("lumina2", (r"^layers_\d+_att(ention|n)",), width=(r"att(ention|n)_(to_q|qkv)", frozenset({2304}))),
    Rule("kandinsky5", (r"^(visual|text)_transformer_blocks_",)),
    Rule("ltx", (r"^transformer_blocks_\d+_attn1_to_",), width=(r"attn1_to_[qkv]$", frozenset({2048, 4096}))),
    Rule("pixart", (r"^transformer_blocks_\d+_attn1_to_",), width=(r"attn1_to_[qkv]$", frozenset({1152}))),
    Rule("sana", (r"^transformer_blocks_\d+_attn1_to_",), width=(r"attn1_to_[qkv]$", frozenset({2240}))),
    Rule("cogvideox", (r"^transformer_blocks_\d+_attn1_to_",), width=(r"attn1_to_[qkv]$", frozenset({1920, 3072}))),
)  # fmt: skip

_CROSS = re.compile(r"attn2_to_[kv]$")
_SELF = re.compile(r"attn1_to_[qkv]$")
_UNET = re.compile(r"^(down_blocks|mid_block|up_blocks|input_blocks|middle_block|output_blocks)_")
_TEXT = re.compile(r"encoder_layers_\d+_(self_attn_[qkv]_proj|mlp_fc1)$")
_DEEP = re.compile(
    r"(down_blocks_2|up_blocks_0|mid_block|middle_block|input_blocks_[78]|output_blocks_[012]).*transformer_blocks_[2-9]"
)


def identify(header: Header, read_at: ReadAt | None = None) -> Identity:
    """Family, variant, network type, rank and alpha of an adapter.

    With `read_at` (absolute offset, length) the alpha is read from the file where the metadata does not say it.
    Raises `BrokenFile` if the file is not an adapter.
    """
    modules = keys.modules_of(header.tensors)
    if not header.tensors:
        raise BrokenFile("it holds no tensors")
    if not keys.is_adapter(modules, len(header.tensors)):
        raise BrokenFile("it is not an adapter: its tensors are those of a whole model or of something else")
    sources: dict[str, str] = {"network": "shapes"}
    family = family_of(modules.values(), header.metadata, sources)
    variant = variant_of(family, header.metadata, sources)
    ranks = Counter(module.rank for module in modules.values() if module.rank is not None)
    rank = max(ranks, key=lambda value: (ranks[value], value)) if ranks else None
    if rank is not None:
        sources["rank"] = "shapes"
    alpha = _alpha(header, modules, read_at, sources)
    return Identity(family, variant, keys.network_type(modules, header.metadata), rank, alpha, sources)


def family_of(
    modules: Iterable[keys.Module], metadata: Mapping[str, str], sources: dict[str, str] | None = None
) -> str:
    """The family by shapes, else by metadata; notes in `sources` which it was."""
    found = list(modules)
    told = sources if sources is not None else {}
    claims = _claims(metadata)
    by_shape = _by_shape(found)
    if len(by_shape) == 1:
        told["family"] = "shapes"
        return next(iter(by_shape))
    for source, family in claims:
        if family in by_shape or not by_shape:
            told["family"] = source
            return family
    return "unknown"


def _by_shape(modules: list[keys.Module]) -> frozenset[str]:
    """The families the shapes allow: one if they settle it, several if they cannot, none if they say nothing."""
    inner = [module for module in modules if module.component == "unet"]
    # One text with a path per line: a search in it is one call for a pattern, not one for each of a thousand modules.
    paths = "\n".join(module.path for module in inner)
    for rule in RULES:
        if _holds(rule, inner, paths):
            return frozenset({rule.family})
    if any(_UNET.match(module.path) for module in inner):
        return _stable_diffusion(modules, inner)
    return _text_only(modules)


def _holds(rule: Rule, modules: list[keys.Module], paths: str) -> bool:
    def some(pattern: str) -> bool:
        return re.search(pattern, paths, re.MULTILINE) is not None

    if not all(map(some, rule.present)) or any(map(some, rule.absent)):
        return False
    if rule.width is None:
        return True
    pattern, widths = rule.width
    return any(module.in_width in widths for module in modules if re.search(pattern, module.path))


def _stable_diffusion(modules: list[keys.Module], inner: list[keys.Module]) -> frozenset[str]:
    cross = {module.in_width for module in inner if _CROSS.search(module.path)} - {None}
    if cross:
        # A width nobody uses is a model nobody knows: better said than called by the nearest name.
        return frozenset(UNET_WIDTHS.get(width or 0, "unknown") for width in cross)
    text = _text_only(modules)
    if len(text) == 1:
        return text
    own = {module.in_width for module in inner if _SELF.search(module.path)} - {None}
    if any(_DEEP.search(module.path) for module in inner) or any(module.component == "te2" for module in modules):
        return frozenset({"sdxl"})
    if 320 in own:
        return frozenset({"sd15", "sd2"})
    return frozenset({"sd15", "sd2", "sdxl", "demo"})


def _text_only(modules: list[keys.Module]) -> frozenset[str]:
    """What the text encoders' widths say by themselves."""
    components = {module.component for module in modules}
    if "te3" in components:
        return frozenset({"sd3", "flux"})
    if "te2" in components:
        return frozenset({"sdxl"})
    first = {module.in_width for module in modules if module.component in ("te", "te1") and _TEXT.search(module.path)}
    widths: dict[int, frozenset[str]] = {DEMO_WIDTH: frozenset({"demo"}), 1024: frozenset({"sd2"})}
    if first == {768}:
        named_te1 = "te" not in components
        return frozenset({"sd15", "sdxl", "flux"}) if named_te1 else frozenset({"sd15"})
    return next((widths[width] for width in first if width in widths), frozenset())


# Folded metadata text → family; the longest beginning that fits decides.
_CLAIMS: Mapping[str, str] = {
    "loravaultdemo": "demo",
    "sdv1": "sd15", "sd15": "sd15", "sd1": "sd15", "stablediffusionv1": "sd15",
    "sdv2": "sd2", "sd21": "sd2", "sd2": "sd2", "stablediffusionv2": "sd2",
    "sdxl": "sdxl", "stablediffusionxl": "sdxl",
    "sd3": "sd3", "stablediffusion3": "sd3", "stablediffusionv3": "sd3",
    "flux1": "flux", "fluxkontext": "flux", "flux2": "flux2", "chroma": "chroma",
    "hunyuanvideo": "hunyuan-video", "lumina2": "lumina2", "zimage": "z-image", "qwenimage": "qwen-image",
    "wan": "wan", "anima": "anima", "krea2": "krea2", "hidream": "hidream", "auraflow": "auraflow", "ltx": "ltx",
    "pixart": "pixart", "sana": "sana", "kandinsky5": "kandinsky5", "minimaxh3": "minimax-h3",
}  # fmt: skip


def _fold(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.partition("/")[0].casefold())


def _claims(metadata: Mapping[str, str]) -> list[tuple[str, str]]:
    """(metadata entry, family) for what the file says about itself, most trustworthy first."""
    result = []
    for source in ("modelspec.architecture", "ss_base_model_version"):
        text = _fold(metadata.get(source, ""))
        for beginning in sorted(_CLAIMS, key=len, reverse=True):
            if text.startswith(beginning):
                result.append((source, _CLAIMS[beginning]))
                break
    if metadata.get("ss_v2") == "True":
        result.append(("ss_v2", "sd2"))
    return result


# Names of base models that adapters of one family tell each other apart by: token → variant.
_VARIANT_TOKENS: Mapping[str, Mapping[str, str]] = {
    "sdxl": {
        "pony": "pony", "pdxl": "pony", "illustrious": "illustrious", "ilxl": "illustrious", "noob": "noobai",
        "animagine": "animagine",
    },
    "flux": {"dev": "dev", "schnell": "schnell", "krea": "krea", "kontext": "kontext"},
    "flux2": {"klein4b": "klein-4b", "klein9b": "klein-9b", "dev": "dev"},
}  # fmt: skip


def variant_of(family: str, metadata: Mapping[str, str], sources: dict[str, str] | None = None) -> str | None:
    """The variant inside a family, from metadata only: shapes do not differ."""
    told = sources if sources is not None else {}
    if family == "sd2" and metadata.get("ss_base_model_version", "").endswith("_v"):
        told["variant"] = "ss_base_model_version"
        return "v-prediction"
    tokens = _VARIANT_TOKENS.get(family, {})
    for source in ("modelspec.architecture", "ss_base_model_version", "ss_sd_model_name"):
        text = re.sub(r"[\W_]+", "", metadata.get(source, "").casefold())
        for token, variant in tokens.items():
            if token in text:
                told["variant"] = source
                return variant
    return None


_FLOATS: Mapping[str, tuple[str, int]] = {"F16": ("<e", 2), "F32": ("<f", 4), "F64": ("<d", 8)}


def _alpha(
    header: Header, modules: Mapping[str, keys.Module], read_at: ReadAt | None, sources: dict[str, str]
) -> float | None:
    """The alpha most of the file was trained with: from a tensor if it may be read, else from the metadata."""
    tensor = next((module.parts["alpha"] for module in modules.values() if "alpha" in module.parts), None)
    value: Any = None
    if tensor is not None and read_at is not None:
        value = read_scalar(header, tensor[1], read_at)
        sources["alpha"] = "shapes"
    if value is None:
        try:
            value = float(metadata_number(header.metadata, "ss_network_alpha"))
        except ValueError:
            return None
        sources["alpha"] = "ss_network_alpha"
    return value if math.isfinite(value) else None


def metadata_number(metadata: Mapping[str, str], key: str) -> str:
    """A metadata text that should be a number; kohya writes `None` or `Dynamic` where there is none."""
    return metadata.get(key, "").strip() or "none"


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
