"""What the matrix of `matrix.py` is made of: layers of small bases, spellings of their keys, algorithms.

Where a layer of a file lies in a base is written down here, and not asked of the tables that are to be tested.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.formats import derived

Shape = tuple[int, ...]
#: Component, module of the base, rows.
Piece = tuple[str, str, slice]
ALL = slice(None)


@dataclass(frozen=True)
class Layer:
    """A layer as files know it."""

    #: As diffusers and transformers call it; as the model's own code does, where that differs.
    name: str
    original: str
    pieces: tuple[Piece, ...]

    @property
    def component(self) -> str:
        return self.pieces[0][0]


def layer(component: str, module: str, original: str | None = None, *fused: str, swapped: int = 0) -> Layer:
    """One layer of the base, or several that the model's own code has as one; `swapped`: the width of its halves."""
    pieces: tuple[Piece, ...] = tuple((component, one, ALL) for one in (module, *fused))
    if swapped:
        pieces = tuple((component, module, half) for half in (slice(swapped, None), slice(0, swapped)))
    return Layer(module, original or module, pieces)


def text(component: str, within: str = "") -> list[Layer]:
    """Of a CLIP, whose layers transformers may keep `within` another level."""
    names = [f"encoder.layers.1.{name}" for name in ("self_attn.q_proj", "mlp.fc1", "layer_norm1")]
    return [Layer(name, name, ((component, within + name, ALL),)) for name in names]


def _unet(*, sgm: bool) -> list[Layer]:
    block = "attentions.0.transformer_blocks.0"
    where = ("down_blocks.1", "input_blocks.3.1") if sgm else ("down_blocks.0", "")
    names = {
        f"{where[0]}.{block}.attn2.to_k": f"{where[1]}.transformer_blocks.0.attn2.to_k",
        f"{where[0]}.{block}.attn1.to_out.0": f"{where[1]}.transformer_blocks.0.attn1.to_out.0",
        f"{where[0]}.{block}.ff.net.0.proj": f"{where[1]}.transformer_blocks.0.ff.net.0.proj",
        "mid_block.attentions.0.proj_in": "middle_block.1.proj_in",
        "down_blocks.0.resnets.0.conv1": "input_blocks.1.0.in_layers.2",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
        "mid_block.resnets.1.time_emb_proj": "middle_block.2.emb_layers.1",
        "mid_block.resnets.0.norm1": "middle_block.0.in_layers.0",
        "conv_in": "input_blocks.0.0",
    }
    return [layer("unet", module, other if sgm else None) for module, other in names.items()]


def _joint(double: str, *, stream: tuple[str, str] = ("img_attn.", "txt_attn.")) -> list[Layer]:
    at, (image, words) = "transformer_blocks.0.attn", stream
    q, k, v = (f"{at}.to_{name}" for name in "qkv")
    add = [f"{at}.add_{name}_proj" for name in "qkv"]
    return [
        layer("transformer", q, f"{double}.{image}qkv", k, v),
        layer("transformer", add[0], f"{double}.{words}qkv", *add[1:]),
        layer("transformer", f"{at}.to_out.0", f"{double}.{image}proj"),
    ]


def _flux() -> list[Layer]:
    at = "single_transformer_blocks.0"
    return [
        *_joint("double_blocks.0"),
        layer("transformer", f"{at}.attn.to_q", "single_blocks.0.linear1", f"{at}.attn.to_k", f"{at}.attn.to_v",
              f"{at}.proj_mlp"),
        layer("transformer", f"{at}.proj_out", "single_blocks.0.linear2"),
        layer("transformer", "transformer_blocks.0.ff.net.2", "double_blocks.0.img_mlp.2"),
        layer("transformer", "norm_out.linear", "final_layer.adaLN_modulation.1", swapped=32),
        layer("transformer", "transformer_blocks.0.attn.norm_q", "double_blocks.0.img_attn.norm.query_norm"),
        layer("text_encoder_2", "encoder.block.1.layer.0.SelfAttention.o"),
    ]  # fmt: skip


def _z_image() -> list[Layer]:
    q, k, v = (f"layers.0.attention.to_{name}" for name in "qkv")
    fused = layer("transformer", q, "layers.0.attention.qkv", k, v)
    return [fused, layer("transformer", "layers.0.attention.to_out.0", "layers.0.attention.out"),
            layer("transformer", "layers.0.attention_norm1")]  # fmt: skip


def _qwen_image() -> list[Layer]:
    names = ("attn.to_q", "attn.add_k_proj", "img_mlp.net.2", "attn.norm_q")
    return [layer("transformer", f"transformer_blocks.0.{name}") for name in names]


#: Family → some layers of its small base (`tests/tiny_families.py`).
LAYERS: Mapping[str, list[Layer]] = {
    "sd15": [*_unet(sgm=False), *text("text_encoder")],
    "sdxl": [*_unet(sgm=True), *text("text_encoder"), *text("text_encoder_2", "text_model.")],
    "sd3": [*_joint("joint_blocks.0", stream=("x_block.attn.", "context_block.attn.")),
            *text("text_encoder_2", "text_model."),
            layer("transformer", "norm_out.linear", "final_layer.adaLN_modulation.1", swapped=32)],
    "flux": [*_flux(), *text("text_encoder")],
    "flux2": [*_joint("double_blocks.0"),
              layer("transformer", "transformer_blocks.0.attn.norm_q", "double_blocks.0.img_attn.norm.query_norm"),
              layer("transformer", "single_transformer_blocks.0.attn.to_qkv_mlp_proj", "single_blocks.0.linear1")],
    "z-image": _z_image(),
    "qwen-image": _qwen_image(),
}  # fmt: skip

# ---- spellings

#: Component → what stands for it before underscores.
_UNDERSCORED = {"text_encoder": "lora_te1_text_model_", "text_encoder_2": "lora_te2_text_model_"}


def _kohya(family: str, one: Layer, name: str, prefix: str = "lora_unet_") -> str:
    flat = name.replace(".", "_")
    if not one.component.startswith("text_encoder"):
        return prefix + flat
    if name.startswith("encoder.block"):  # T5
        return f"lora_te3_{flat}"
    return ("lora_te_text_model_" if family == "sd15" else _UNDERSCORED[one.component]) + flat


def _dotted(one: Layer, name: str, prefix: str | None = None) -> str:
    text_model = "text_model." if name.startswith("encoder.layers") else ""
    encoder = one.component.startswith("text_encoder")
    return f"{one.component}.{text_model}{name}" if encoder or prefix is None else f"{prefix}{name}"


def _xlabs(_family: str, one: Layer) -> str | None:
    known = {"img_attn.qkv": "qkv_lora1", "txt_attn.qkv": "qkv_lora2", "img_attn.proj": "proj_lora1"}
    block, _, tail = one.original.partition(".0.")
    if block == "double_blocks" and tail in known:
        return f"double_blocks.0.processor.{known[tail]}"
    return None


def _processor(_family: str, one: Layer) -> str | None:
    head, _, tail = one.name.removesuffix(".0").rpartition(".")
    return f"unet.{head}.processor.{tail}_lora" if one.component == "unet" and tail.startswith("to_") else None


@dataclass(frozen=True)
class Spelling:
    """One way to write keys."""

    who: str
    #: (family, layer) → the module's name in the file; None if such files do not have that layer.
    spell: Callable[[str, Layer], str | None]
    #: `kohya`, `peft`, `peft in memory` (with the adapter's name), or `halves` (`down` and `up`).
    parts: str = "kohya"
    #: Whether fused layers are written fused.
    fused: bool = False
    families: tuple[str, ...] = tuple(LAYERS)


_DITS = ("sd3", "flux", "flux2", "z-image", "qwen-image")
SPELLINGS: tuple[Spelling, ...] = (
    Spelling("kohya", lambda family, one: _kohya(family, one, one.original), fused=True),
    Spelling("kohya's prefix, diffusers' names", lambda family, one: _kohya(family, one, one.name)),
    Spelling("LyCORIS", lambda family, one: _kohya(family, one, one.name, "lycoris_")),
    Spelling("OneTrainer", lambda family, one: _kohya(family, one, one.name, "lora_transformer_"), families=_DITS),
    Spelling("the model's own (BFL, ComfyUI)", lambda _, one: _dotted(one, one.original, "diffusion_model."),
             fused=True),
    Spelling("ai-toolkit", lambda _, one: _dotted(one, one.name, "diffusion_model."), "peft"),
    Spelling("diffusers", lambda _, one: _dotted(one, one.name), "peft"),
    Spelling("diffusers, old", _processor, "halves", families=("sd15", "sdxl")),
    Spelling("PEFT", lambda _, one: None if one.component[:4] == "text" else f"base_model.model.{one.name}",
             "peft in memory"),
    Spelling("XLabs", _xlabs, "halves", fused=True, families=("flux",)),
)  # fmt: skip

# ---- algorithms


def _tucker(shape: Shape) -> derived.Parts:
    return {"lora_down.weight": (4, shape[1], 1, 1), "lora_up.weight": (shape[0], 4, 1, 1), "alpha": (),
            "lora_mid.weight": (4, 4, *shape[2:])}  # fmt: skip


def _dora_inputs(shape: Shape) -> derived.Parts:
    return {**derived.lora(shape, 4), "dora_scale": (1, shape[1], *([1] * (len(shape) - 2)))}


def _lokr_halves(shape: Shape) -> derived.Parts:
    return {"lokr_w1_a": (4, 2), "lokr_w1_b": (2, 4), "lokr_w2_a": (shape[0] // 4, 2), "alpha": (),
            "lokr_w2_b": (2, shape[1] // 4)}  # fmt: skip


def _boft(shape: Shape) -> derived.Parts:
    count = shape[0] // 8
    stages = 3 if count % 4 == 0 else 2 if count % 2 == 0 else 1
    return {"oft_blocks": (stages, count, 8, 8), "rescale": (shape[0], 1), "alpha": ()}


def _square(size: int) -> int:
    return next(block for block in (8, 4, 2, 1) if size % block == 0)


def _peft_oft(shape: Shape) -> derived.Parts:
    into = shape[1]
    return {"oft_R.weight": (into // _square(into), _square(into) * (_square(into) - 1) // 2)}


def _peft_boft(shape: Shape) -> derived.Parts:
    return {"boft_R": (1, shape[1] // _square(shape[1]), _square(shape[1]), _square(shape[1])),
            "boft_s": (shape[0], 1)}  # fmt: skip


def _peft_lora(shape: Shape) -> derived.Parts:
    return {name: size for name, size in derived.lora(shape, 4).items() if name != "alpha"}


def _peft_dora(shape: Shape) -> derived.Parts:
    return {**_peft_lora(shape), "lora_magnitude_vector": (shape[0],)}


def _without_alpha(make: Callable[[Shape], derived.Parts]) -> Callable[[Shape], derived.Parts]:
    return lambda shape: {part: size for part, size in make(shape).items() if part != "alpha"}


@dataclass(frozen=True)
class Algorithm:
    """One kind of change."""

    name: str
    #: As `formats.normal.Patch` calls it.
    kind: str
    #: Shape of a layer → the shapes of its parts.
    make: Callable[[Shape], derived.Parts]
    #: Whether PEFT writes it; if both do, what PEFT writes.
    peft: Callable[[Shape], derived.Parts] | None = None
    kohya: bool = True
    #: Dimensions of the layers that there is such a change for.
    dimensions: tuple[int, ...] = (2, 4)


def _fours(make: Callable[..., derived.Parts]) -> Callable[[Shape], derived.Parts]:
    return lambda shape: make(shape, 4)


ALGORITHMS: tuple[Algorithm, ...] = (
    Algorithm("LoRA, LoCon", "lora", _fours(derived.lora), _peft_lora),
    Algorithm("LoCon with core", "locon", _tucker, dimensions=(4,)),
    Algorithm("LoRA with bias", "lora", lambda shape: {**_peft_lora(shape), "lora_up.bias": shape[:1]},
              lambda shape: {**_peft_lora(shape), "lora_up.bias": shape[:1]}, kohya=False, dimensions=(2,)),
    Algorithm("DoRA, outputs", "lora", _fours(derived.dora), _peft_dora),
    Algorithm("DoRA, inputs", "lora", _dora_inputs),
    Algorithm("LoHa", "loha", _fours(derived.loha), _without_alpha(_fours(derived.loha))),
    Algorithm("LoHa with cores", "loha", _fours(derived.loha_tucker), dimensions=(4,)),
    Algorithm("LoKr", "lokr", lambda shape: derived.lokr(shape, 2, 4),
              _without_alpha(lambda shape: derived.lokr(shape, 2, 4))),
    Algorithm("LoKr, both whole", "lokr", derived.lokr_full),
    Algorithm("LoKr, both in halves", "lokr", _lokr_halves, dimensions=(2,)),
    Algorithm("IA3", "ia3", derived.ia3),
    Algorithm("IA3 of PEFT", "ia3", derived.ia3, lambda shape: {"ia3_l": (shape[0], 1)}, kohya=False, dimensions=(2,)),
    Algorithm("GLoRA", "glora", _fours(derived.glora)),
    Algorithm("OFT", "oft", derived.oft),
    Algorithm("BOFT", "boft", _boft),
    Algorithm("OFT of PEFT", "oft", _peft_oft, _peft_oft, kohya=False, dimensions=(2,)),
    Algorithm("BOFT of PEFT", "boft", _peft_boft, _peft_boft, kohya=False, dimensions=(2,)),
    Algorithm("full, with bias", "full", derived.full),
    Algorithm("new values", "full", lambda shape: {"set_weight": shape}),
    Algorithm("norm", "norm", lambda shape: {"w_norm": shape}, dimensions=(1,)),
)  # fmt: skip

HALVES = {"lora_down.weight": "down.weight", "lora_up.weight": "up.weight"}
PEFT = {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight", "lora_up.bias": "lora_B.bias"}
