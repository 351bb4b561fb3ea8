"""The grammar of adapter keys: which component, which module, which part; and from the parts the network type.

A key is `<prefix><module path><separator><part>`. Writers differ in prefix and part names and in dots or underscores.
The module path with its dots turned into underscores is the same everywhere: that is what everything here compares.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from loravault.formats.tensor_table import TensorInfo

Shape = tuple[int, ...]

# Longest first: `base_model.model.transformer.` is not `base_model.model.` and a module called `transformer`.
_PREFIXES: tuple[tuple[str, str], ...] = (
    ("base_model.model.model.diffusion_model.", "unet"),
    ("base_model.model.diffusion_model.", "unet"),
    ("base_model.model.text_encoder_2.", "te2"),
    ("base_model.model.text_encoder.", "te"),
    ("base_model.model.transformer.", "unet"),
    ("base_model.model.unet.", "unet"),
    ("base_model.model.", "unet"),
    ("text_encoders.clip_l.transformer.", "te1"),
    ("text_encoders.clip_g.transformer.", "te2"),
    ("text_encoders.t5xxl.transformer.", "te3"),
    ("conditional_transformer.", "unet"),
    ("model.diffusion_model.", "unet"),
    ("diffusion_model.", "unet"),
    ("lora_prior_unet_", "unet"),
    ("lora_prior_te_", "te"),
    ("lora_transformer_", "unet"),
    ("lora_unet_", "unet"),
    ("lora_te1_", "te1"),
    ("lora_te2_", "te2"),
    ("lora_te3_", "te3"),
    ("lora_te_", "te"),
    ("lycoris_text_encoder_2_", "te2"),
    ("lycoris_text_encoder_", "te"),
    ("lycoris_", "unet"),
    ("text_encoder_2.", "te2"),
    ("text_encoder_3.", "te3"),
    ("text_encoder.", "te"),
    ("transformer_2.", "unet"),  # the expert for little noise of Wan 2.2, in diffusers' names
    ("transformer.", "unet"),
    ("unet.", "unet"),
    ("clip_l.", "te1"),  # OneTrainer, with the names of the models' own code
    ("clip_g.", "te2"),
    ("t5.", "te3"),
    ("net.", "unet"),
    ("dit.", "unet"),
)

_COMPONENTS = dict(_PREFIXES)
_PREFIX = re.compile("|".join(re.escape(prefix) for prefix, _ in _PREFIXES))

# What may follow a module path. The word of the part, without `.weight` and the adapter's name, is what is used below.
_NAMED = r"(?:\.(?!weight$|bias$)[\w-]+)?(?:\.(?:weight|bias))?"
_PART = re.compile(
    r"[._](?P<part>"
    rf"lora_(?:down|up|mid|A|B){_NAMED}|lora_magnitude_vector{_NAMED}|lora_embedding_[AB](?:\.[\w-]+)?"
    r"|(?:to_[qkv]_|to_out_)?lora[12]?\.(?:down|up)\.weight|lora_linear_layer\.(?:down|up)\.weight"
    r"|(?:hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t[12])|oft_R|boft_[Rs]|ia3_l)(?:\.(?!weight$)[\w-]+)?(?:\.weight)?"
    r"|dora_scale|alpha|scale_weight|oft_blocks|oft_diag|rescale|on_input|diff(?:_b)?|[wb]_norm|set_weight|reshape_weight"
    r"|[ab][12]\.weight|bm\.weight|weight|bias|scale"
    r")$"
)
_DOWN = frozenset({"lora_down", "lora_A", "lora.down"})
_UP = frozenset({"lora_up", "lora_B", "lora.up"})

#: Network type → parts that only it has; the first that is present names the module.
_BY_PART: tuple[tuple[str, frozenset[str]], ...] = (
    ("loha", frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"})),
    ("lokr", frozenset({"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"})),
    ("glora", frozenset({"a1", "a2", "b1", "b2"})),
    ("ia3", frozenset({"on_input", "ia3_l"})),
    ("oft", frozenset({"oft_blocks", "oft_diag", "oft_R"})),
    ("boft", frozenset({"boft_R", "boft_s"})),
)
_DORA_PARTS = frozenset({"dora_scale", "lora_magnitude_vector"})
_FULL_PARTS = frozenset({"diff", "diff_b", "set_weight"})
_NORM_PARTS = frozenset({"w_norm", "b_norm"})
_ALGORITHMS = {"dylora": "dylora", "networks.dylora": "dylora"}
#: Parts of a module that may stand in an adapter as in a whole model, and prove nothing.
PLAIN_PARTS = frozenset({"weight", "bias", "scale", "scale_weight"})


@dataclass(frozen=True)
class Widths:
    """What the parts of a module tell about the layer it patches; None where they do not."""

    #: Channels that come in, times the area of the kernel where the parts are flattened.
    into: int | None = None
    out: int | None = None
    #: `()` for a linear layer, `(3, 3)` for a convolution; None if unknown, as for flattened parts.
    kernel: Shape | None = None
    #: One of the two, and the parts do not tell which.
    either: int | None = None


def half_of(part: str) -> int:
    """1 for the matrix that reads the input of a LoRA, 2 for the one that writes the output, 0 for other parts."""
    return 1 if part in _DOWN else 2 if part in _UP else 0


def widths_of(parts: Mapping[str, Shape]) -> Widths:
    """The widths of the layer that a module patches, from its parts and their shapes."""
    down = next((shape for part, shape in parts.items() if part in _DOWN), None)
    up = next((shape for part, shape in parts.items() if part in _UP), None)
    if down is not None or up is not None:
        into = down[1] if down is not None and len(down) > 1 else None
        kernel = parts["lora_mid"][2:] if "lora_mid" in parts else down[2:] if down is not None else None
        return Widths(into, up[0] if up else None, kernel)
    for part, shape in parts.items():
        if part == "diff" and len(shape) > 1:
            return Widths(shape[1], shape[0], shape[2:])
    for names, read in _READERS:
        if names & parts.keys():
            return read(parts)
    return Widths()


def _loha(parts: Mapping[str, Shape]) -> Widths:
    first, second = (parts.get(f"hada_{name}") for name in ("w1_a", "w1_b"))
    if "hada_t1" in parts:  # Tucker: both factors begin with the rank, the kernel is in the core
        return Widths(_at(second, 1), _at(first, 1), parts["hada_t1"][2:])
    return Widths(_at(second, 1), _at(first, 0))


def _lokr(parts: Mapping[str, Shape]) -> Widths:
    """Each width is the product of the widths of the two factors; each factor is whole, or itself a product a·b."""
    sides = []
    for axis in (1, 0):
        if "lokr_t2" in parts and "lokr_w2" not in parts:  # Tucker: w2_a is (rank, out), w2_b (rank, in)
            second = _at(parts.get(f"lokr_w2_{'ab'[axis]}"), 1)
        else:
            second = _at(parts.get("lokr_w2") or parts.get(f"lokr_w2_{'ab'[axis]}"), axis)
        first = _at(parts.get("lokr_w1") or parts.get(f"lokr_w1_{'ab'[axis]}"), axis)
        sides.append(first * second if first is not None and second is not None else None)
    core = parts.get("lokr_t2") or parts.get("lokr_w2")
    return Widths(sides[0], sides[1], core[2:] if core and len(core) > 2 else None)


def _glora(parts: Mapping[str, Shape]) -> Widths:
    """LyCORIS has a1 (in, rank), a2 (rank, in), b1 (out, rank), b2 (rank, in); the older order turns them round."""
    a1, a2, b1, b2 = (parts.get(name) for name in ("a1", "a2", "b1", "b2"))
    if a1 is None or b1 is None or b2 is None or min(map(len, (a1, b1, b2))) < 2:
        return Widths(max(a2[:2]) if a2 else None)
    older = a1[0] < a1[1]  # the rank is less than the width
    return Widths(a1[1], b2[0]) if older else Widths(a1[0], b1[0])


def _orthogonal(parts: Mapping[str, Shape]) -> Widths:
    """LyCORIS and kohya turn the outputs, in blocks of equal size; PEFT keeps one triangle for each block of inputs."""
    blocks = parts.get("oft_blocks") or parts.get("oft_diag")
    if blocks and len(blocks) >= 3:
        return Widths(out=blocks[-3] * blocks[-1])
    triangles = parts.get("oft_R")
    if triangles and len(triangles) == 2:
        size = (1 + math.isqrt(1 + 8 * triangles[1])) // 2
        return Widths(into=triangles[0] * size)
    return Widths()


def _scaling(parts: Mapping[str, Shape]) -> Widths:
    """IA3: one factor for each output or each input; which of them, the value of `on_input` says, not its shape."""
    factors = parts.get("weight") or parts.get("ia3_l")
    return Widths(either=math.prod(factors)) if factors else Widths()


def _at(shape: Shape | None, axis: int) -> int | None:
    return shape[axis] if shape is not None and len(shape) > axis else None


_READERS = tuple(
    (names, read)
    for (network, names) in _BY_PART
    for read in [{"loha": _loha, "lokr": _lokr, "glora": _glora, "oft": _orthogonal}.get(network, _scaling)]
)
_RANK_PARTS = ("hada_w1_b", "lokr_w2_b", "lokr_w1_b", "a2")


def rank_of(parts: Mapping[str, Shape]) -> int | None:
    """Rank of the decomposition; None where there is none (full difference, LoKr of two whole factors)."""
    for part in (*_DOWN, *_RANK_PARTS):
        if shape := parts.get(part):
            return shape[0]
    return None


@dataclass
class Module:
    """What a file holds for one module of the base: part → (tensor name, its row of the table)."""

    component: str
    #: Module path with every dot turned into an underscore.
    path: str
    parts: dict[str, tuple[str, TensorInfo]] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, Shape]:
        """Part → shape of its tensor."""
        return {part: row[1].shape for part, row in self.parts.items()}


def modules_of(tensors: Mapping[str, TensorInfo]) -> dict[str, Module]:
    """`component:path` → module, for every tensor that reads like part of an adapter."""
    result: dict[str, Module] = {}
    for name, info in tensors.items():
        split = split_key(name)
        if split is None:
            continue
        component, path, part = split
        module = result.setdefault(f"{component}:{path}", Module(component, path))
        module.parts[part] = (name, info)
    return result


class Key(NamedTuple):
    """A tensor name, taken apart."""

    #: What stands before the module path (`lora_unet_`, `transformer.`, …); empty if nothing does.
    prefix: str
    #: `unet` (also for transformers), `te`, `te1`, `te2` or `te3`.
    component: str
    #: The module as the file calls it: prefix and path, as they are written.
    module: str
    #: Module path with every dot turned into an underscore.
    path: str
    part: str


def split_name(name: str) -> Key | None:
    """A tensor name, taken apart; None if it does not end in a known part."""
    match = _PART.search(name)
    if match is None:
        return None
    component, stem = "unet", name[: match.start()]
    prefix = _PREFIX.match(stem + name[match.start()])
    if prefix:
        component, stem = _COMPONENTS[prefix[0]], stem[prefix.end() :]
    part, module = match["part"], name[: match.start()]
    attention = re.match(r"(to_[qkv]|to_out)_(lora\..*)", part)
    if attention:  # old diffusers: `processor.to_q_lora.down.weight` belongs to the module `to_q`
        module += name[match.start()] + attention[1]
        stem = f"{stem.removesuffix('.processor')}.{attention[1]}"
        part = attention[2]
    elif part.startswith("lora2."):  # XLabs: the second of two adapters in one processor, for the text stream
        module += "_lora2"
        stem += "_2"
    path = stem.replace(".", "_").lstrip("_")
    return Key(prefix[0] if prefix else "", component, module, path, _plain_part(part))


def split_key(name: str) -> tuple[str, str, str] | None:
    """`(component, module path with underscores, part)` of a tensor name; None if it does not end in a known part."""
    key = split_name(name)
    return None if key is None else (key.component, key.path, key.part)


_ADAPTER_NAME = re.compile(
    r"^((?:lora_(?:[AB]|magnitude_vector|embedding_[AB])|hada_\w+|lokr_\w+|oft_R|boft_[Rs]|ia3_l))\.[\w-]+"
)


@lru_cache(maxsize=4096)  # few spellings make all names
def _plain_part(part: str) -> str:
    """`lora_A.default.weight` is `lora_A`, `lora1.down.weight` is `lora.down`; a bias keeps its name."""
    bias = part.endswith(".bias")
    text = part.removesuffix(".bias").removesuffix(".weight")
    text = _ADAPTER_NAME.sub(r"\1", text)
    text = re.sub(r"^(?:lora[12]|lora_linear_layer)\.", "lora.", text)
    return (text + ".bias" if bias else text) or part


def network_of(parts: Mapping[str, Shape]) -> str | None:
    """The algorithm of one module, or None if its parts are no adapter (a plain `weight`, a lone `alpha`)."""
    names = parts.keys()
    down = next((shape for part, shape in parts.items() if part in _DOWN), None)
    if down is not None and _UP & names:
        return "locon" if "lora_mid" in names or any(size > 1 for size in down[2:]) else "lora"
    for network, own in _BY_PART:
        if own & names:
            blocks = parts.get("oft_blocks")
            return "boft" if network == "oft" and blocks is not None and len(blocks) == 4 else network
    if _FULL_PARTS & names:
        return "full"
    if _NORM_PARTS & names:
        return "norm"
    return None


def network_type(counts: Mapping[str, int], parts: Collection[str], metadata: Mapping[str, str]) -> str:
    """`lora`, `locon`, `dora`, `loha`, `lokr`, `dylora`, `glora`, `ia3`, `oft`, `boft`, `full`, `norm` or `unknown`.

    `counts`: algorithm of a module → how many modules have it; `parts`: all that occur in the file. The parts decide;
    what leaves no trace in them (DyLoRA is saved as LoRA) is taken from the metadata. A LoHa with magnitudes is a LoHa:
    see `has_magnitudes`.
    """
    specials = Counter({name: counts.get(name, 0) for name in ("loha", "lokr", "glora", "ia3", "oft", "boft")})
    special, number = specials.most_common(1)[0]
    if number:
        return special
    if has_magnitudes(parts):
        return "dora"
    claimed = _ALGORITHMS.get(_algorithm(metadata), "")
    if claimed and (counts.get("lora") or counts.get("locon")):
        return claimed
    return next((name for name in ("locon", "lora", "full", "norm") if counts.get(name)), "unknown")


def has_magnitudes(parts: Collection[str]) -> bool:
    """Whether a file is weight-decomposed (DoRA), whatever algorithm its differences are kept with."""
    return not _DORA_PARTS.isdisjoint(parts)


def _algorithm(metadata: Mapping[str, str]) -> str:
    found = re.search(r'"algo"\s*:\s*"([\w-]+)"', metadata.get("ss_network_args", ""))
    return found[1].lower() if found else metadata.get("ss_network_module", "").lower()
