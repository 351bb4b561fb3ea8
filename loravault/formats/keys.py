"""The grammar of adapter keys: which component, which module, which part; and from the parts the network type.

A key is `<prefix><module path><separator><part>`. Writers differ in prefix and part names and in dots or underscores.
The module path with its dots turned into underscores is the same everywhere: that is what everything here compares.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from loravault.formats.safetensors_header import TensorInfo

# Longest first: `base_model.model.transformer.` is not `base_model.model.` and a module called `transformer`.
_PREFIXES: tuple[tuple[str, str], ...] = (
    ("base_model.model.text_encoder_2.", "te2"),
    ("base_model.model.text_encoder.", "te"),
    ("base_model.model.transformer.", "unet"),
    ("base_model.model.unet.", "unet"),
    ("base_model.model.", "unet"),
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
    ("lycoris_", "unet"),
    ("text_encoder_2.", "te2"),
    ("text_encoder_3.", "te3"),
    ("text_encoder.", "te"),
    ("transformer.", "unet"),
    ("unet.", "unet"),
    ("net.", "unet"),
)

_COMPONENTS = dict(_PREFIXES)
_PREFIX = re.compile("|".join(re.escape(prefix) for prefix, _ in _PREFIXES))

# What may follow a module path. The word of the part, without `.weight`, is what the tables below use.
_PART = re.compile(
    r"[._](?P<part>"
    r"lora_(?:down|up|mid|A|B)(?:\.default)?(?:\.(?:weight|bias))?"
    r"|lora\.(?:down|up)\.weight|lora_magnitude_vector(?:\.default)?(?:\.weight)?|dora_scale|alpha|scale_weight"
    r"|(?:to_[qkv]_|to_out_)?lora[12]?\.(?:down|up)\.weight"
    r"|hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t[12])"
    r"|oft_blocks|oft_diag|rescale|on_input|diff(?:_b)?|[wb]_norm|set_weight|[ab][12]\.weight|bm\.weight|weight|bias|scale"
    r")$"
)
_DOWN = frozenset({"lora_down", "lora_A", "lora.down"})
_UP = frozenset({"lora_up", "lora_B", "lora.up"})

#: Network type → one part that only it has; the first that is present names the file.
_BY_PART: tuple[tuple[str, frozenset[str]], ...] = (
    ("loha", frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a"})),
    ("lokr", frozenset({"lokr_w1", "lokr_w1_a", "lokr_w2", "lokr_w2_a"})),
    ("glora", frozenset({"a1", "b1"})),
    ("ia3", frozenset({"on_input"})),
    ("oft", frozenset({"oft_blocks", "oft_diag"})),
)
_DORA_PARTS = frozenset({"dora_scale", "lora_magnitude_vector"})
_ALGORITHMS = {"dylora": "dylora", "networks.dylora": "dylora", "boft": "boft", "locon": "locon", "diag-oft": "oft"}


@dataclass
class Module:
    """What a file holds for one module of the base: part → (tensor name, its row of the table)."""

    component: str
    #: Module path with every dot turned into an underscore.
    path: str
    parts: dict[str, tuple[str, TensorInfo]] = field(default_factory=dict)

    def _first(self, names: frozenset[str]) -> tuple[int, ...] | None:
        return next((info.shape for part, (_, info) in self.parts.items() if part in names), None)

    @property
    def down(self) -> tuple[int, ...] | None:
        """Shape of the matrix that reads the input: `(rank, in)` or `(rank, in, kernel, kernel)`."""
        return self._first(_DOWN)

    @property
    def up(self) -> tuple[int, ...] | None:
        """Shape of the matrix that writes the output: `(out, rank)`, with two unit axes for a convolution."""
        return self._first(_UP)

    @property
    def in_width(self) -> int | None:
        """Width of the module's input (channels for a convolution), if the parts tell."""
        if self.down and len(self.down) >= 2:
            return self.down[1]
        if "diff" in self.parts and len(self.parts["diff"][1].shape) >= 2:
            return self.parts["diff"][1].shape[1]
        if "hada_w1_b" in self.parts and "hada_t1" not in self.parts:
            shape = self.parts["hada_w1_b"][1].shape
            return shape[1] if len(shape) == 2 else None
        return self._kron(1)

    @property
    def out_width(self) -> int | None:
        """Width of the module's output, if the parts tell."""
        if self.up:
            return self.up[0]
        if "diff" in self.parts and self.parts["diff"][1].shape:
            return self.parts["diff"][1].shape[0]
        if "hada_w1_a" in self.parts and "hada_t1" not in self.parts:
            return self.parts["hada_w1_a"][1].shape[0]
        return self._kron(0)

    def _kron(self, axis: int) -> int | None:
        """LoKr: the width is the product of the widths of its two factors, each whole or itself a product a·b."""
        width = 1
        for factor in ("lokr_w1", "lokr_w2"):
            part = self.parts.get(factor) or self.parts.get(f"{factor}_{'ab'[axis]}")
            if part is None or len(part[1].shape) <= axis:
                return None
            width *= part[1].shape[axis]
        return width

    @property
    def rank(self) -> int | None:
        """Rank of the decomposition; None where there is none (full difference, LoKr of two whole factors)."""
        if self.down:
            return self.down[0]
        for part in ("hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
            if part in self.parts and self.parts[part][1].shape:
                return self.parts[part][1].shape[0]
        return None


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


def split_key(name: str) -> tuple[str, str, str] | None:
    """`(component, module path with underscores, part)` of a tensor name; None if it does not end in a known part."""
    match = _PART.search(name)
    if match is None:
        return None
    component, stem = "unet", name[: match.start()]
    prefix = _PREFIX.match(stem)
    if prefix:
        component, stem = _COMPONENTS[prefix[0]], stem[prefix.end() :]
    part = match["part"]
    attention = re.match(r"(to_[qkv]|to_out)_(lora\..*)", part)
    if attention:  # old diffusers: `processor.to_q_lora.down.weight` belongs to the module `to_q`
        stem = f"{stem.removesuffix('.processor')}.{attention[1]}"
        part = attention[2]
    return component, stem.replace(".", "_").lstrip("_"), _plain_part(part)


def _plain_part(part: str) -> str:
    text = part.replace(".default", "")
    if text.endswith(".bias"):
        return text
    return re.sub(r"^lora[12]\.", "lora.", text.removesuffix(".weight")) or part


def is_adapter(modules: Mapping[str, Module], tensor_count: int) -> bool:
    """Whether this is an adapter and not a whole model: most tensors must be parts of low-rank or difference modules.

    A merged checkpoint may contain stray adapter keys, so one such key proves nothing.
    """
    own = sum(len(module.parts) for module in modules.values() if network_of(module) is not None)
    return own > 0 and 2 * own > tensor_count


def network_of(module: Module) -> str | None:
    """The algorithm of one module, or None if its parts are no adapter (a plain `weight`, a lone `alpha`)."""
    parts = module.parts.keys()
    for network, names in _BY_PART:
        if names & parts:
            return network
    if module.down and module.up:
        return "locon" if "lora_mid" in parts or any(size > 1 for size in module.down[2:]) else "lora"
    if {"diff", "diff_b", "set_weight"} & parts:
        return "full"
    if {"w_norm", "b_norm"} & parts:
        return "norm"
    return None


def network_type(modules: Mapping[str, Module], metadata: Mapping[str, str]) -> str:
    """`lora`, `locon`, `dora`, `loha`, `lokr`, `dylora`, `glora`, `ia3`, `oft`, `boft`, `full`, `norm` or `unknown`.

    The parts decide. What leaves no trace in them (DyLoRA is saved as LoRA) is taken from the metadata.
    """
    counts = Counter(filter(None, map(network_of, modules.values())))
    if not counts:
        return "unknown"
    for special in ("loha", "lokr", "glora", "ia3", "oft"):
        if counts[special]:
            boft = special == "oft" and _has_4d_blocks(modules)
            return "boft" if boft else special
    if any(_DORA_PARTS & module.parts.keys() for module in modules.values()):
        return "dora"
    claimed = _ALGORITHMS.get(_algorithm(metadata), "")
    if claimed == "dylora":
        return claimed
    for network in ("locon", "lora", "full"):
        if counts[network]:
            return network
    return "norm"


def _has_4d_blocks(modules: Mapping[str, Module]) -> bool:
    blocks = (module.parts.get("oft_blocks") for module in modules.values())
    return any(part is not None and len(part[1].shape) == 4 for part in blocks)


def _algorithm(metadata: Mapping[str, str]) -> str:
    found = re.search(r'"algo"\s*:\s*"([\w-]+)"', metadata.get("ss_network_args", ""))
    return found[1].lower() if found else metadata.get("ss_network_module", "").lower()
