"""Headers of adapters for every base model that diffusers has, in the spellings and algorithms that are used.

The layers come from `architectures.json` (see `derive.py`). How other code names and fuses them is written down here
once more, from diffusers' converters, and not taken from the tables that are to be tested.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import product
from pathlib import Path

from loravault.formats.safetensors_header import Header, TensorInfo

Shape = tuple[int, ...]
#: Tensor name -> shape.
Shapes = dict[str, Shape]
Layers = dict[str, Shape]
_DATA = Path(__file__).with_name("architectures.json")


@cache
def architectures() -> dict[tuple[str, str | None], Layers]:
    """(family, variant) → path with dots → shape of the weight, in diffusers' names."""
    result = {}
    for name, rows in json.loads(_DATA.read_text("utf-8")).items():
        family, _, variant = name.partition(" ")
        result[family, variant or None] = {path: tuple(shape) for row, shape in rows.items() for path in _expand(row)}
    return result


def _expand(path: str) -> Iterator[str]:
    pieces = re.split(r"\[([\d,-]+)\]", path)
    choices = [_numbers(piece) if index % 2 else [piece] for index, piece in enumerate(pieces)]
    return ("".join(chosen) for chosen in product(*choices))


def _numbers(text: str) -> list[str]:
    runs = [run.split("-") for run in text.split(",")]
    return [str(number) for run in runs for number in range(int(run[0]), int(run[-1]) + 1)]


Rules = tuple[tuple[str, str], ...]


def renamed(layers: Layers, rules: Rules) -> Layers:
    """The first rule that fits the whole path gives its new name; what gets one name is one fused layer."""
    result: Layers = {}
    compiled = [(re.compile(pattern), target) for pattern, target in rules]
    for path, shape in layers.items():
        for pattern, target in compiled:
            match = pattern.fullmatch(path)
            if match:
                new = match.expand(target)
                before = result.get(new)
                result[new] = (before[0] + shape[0], *shape[1:]) if before else shape
                break
    return result


_T, _S = r"transformer_blocks\.(\d+)\.", r"single_transformer_blocks\.(\d+)\."


def _flux_like(separator: str, first: str, second: str, lin: str) -> Rules:
    """Black Forest Labs' names, and those of Tencent, which differ in details."""
    double, single = r"double_blocks.\1.", r"single_blocks.\1."
    rules = [
        (_S + r"(?:attn\.to_[qkv]|proj_mlp|attn\.to_qkv_mlp_proj)", single + "linear1"),
        (_S + r"(?:proj_out|attn\.to_out)", single + "linear2"),
        (_S + r"norm\.linear", f"{single}modulation.{lin}"),
        (_T + r"attn\.to_[qkv]", f"{double}img_attn{separator}qkv"),
        (_T + r"attn\.add_[qkv]_proj", f"{double}txt_attn{separator}qkv"),
        (_T + r"attn\.to_out\.0", f"{double}img_attn{separator}proj"),
        (_T + r"attn\.to_add_out", f"{double}txt_attn{separator}proj"),
        (_T + r"norm1\.linear", f"{double}img_mod.{lin}"),
        (_T + r"norm1_context\.linear", f"{double}txt_mod.{lin}"),
        (r"x_embedder", "img_in"),
        (r"context_embedder", "txt_in"),
        (r"(double_stream_modulation_\w+|single_stream_modulation)\.linear", r"\1.lin"),
        (r"norm_out\.linear", "final_layer.adaLN_modulation.1"),
        (r"proj_out", "final_layer.linear"),
        (r"(distilled_guidance_layer\..*)", r"\1"),
    ]
    for side, ff in (("img", "ff"), ("txt", "ff_context")):
        rules.append((_T + rf"{ff}\.(?:net\.0\.proj|linear_in)", f"{double}{side}_mlp.{first}"))
        rules.append((_T + rf"{ff}\.(?:net\.2|linear_out)", f"{double}{side}_mlp.{second}"))
    for old, new in (("timestep", "time"), ("guidance", "guidance"), ("text", "vector")):
        for old_layer, new_layer in (("linear_1", "in_layer"), ("linear_2", "out_layer")):
            rules.append((rf"time_\w+_embed\.{old}_embedder\.{old_layer}", f"{new}_in.{new_layer}"))
    return tuple(rules)


_BFL = _flux_like(".", "0", "2", "lin")
_REFINER = r"context_embedder\.token_refiner\.refiner_blocks\.(\d+)\."
_NATIVE_REFINER = r"txt_in.individual_token_refiner.blocks.\1."
_TENCENT: Rules = (
    (_REFINER + r"attn\.to_[qkv]", _NATIVE_REFINER + "self_attn_qkv"),
    (_REFINER + r"attn\.to_out\.0", _NATIVE_REFINER + "self_attn_proj"),
    (_REFINER + r"ff\.net\.0\.proj", _NATIVE_REFINER + "mlp.fc1"),
    (_REFINER + r"ff\.net\.2", _NATIVE_REFINER + "mlp.fc2"),
    (r"context_embedder\.proj_in", "txt_in.input_embedder"),
    *_flux_like("_", "fc1", "fc2", "linear"),
)
_WAN: Rules = (
    (r"blocks\.(\d+)\.attn1\.to_([qkv])", r"blocks.\1.self_attn.\2"),
    (r"blocks\.(\d+)\.attn1\.to_out\.0", r"blocks.\1.self_attn.o"),
    (r"blocks\.(\d+)\.attn2\.to_([qkv])", r"blocks.\1.cross_attn.\2"),
    (r"blocks\.(\d+)\.attn2\.to_out\.0", r"blocks.\1.cross_attn.o"),
    (r"blocks\.(\d+)\.attn2\.add_([kv])_proj", r"blocks.\1.cross_attn.\2_img"),
    (r"blocks\.(\d+)\.ffn\.net\.0\.proj", r"blocks.\1.ffn.0"),
    (r"blocks\.(\d+)\.ffn\.net\.2", r"blocks.\1.ffn.2"),
    (r"condition_embedder\.time_proj", "time_projection.1"),
    (r"condition_embedder\.text_embedder\.linear_1", "text_embedding.0"),
    (r"condition_embedder\.time_embedder\.linear_2", "time_embedding.2"),
    (r"proj_out", "head.head"),
)
_LAYER = r"(layers|noise_refiner|context_refiner)\.(\d+)\."
_FUSED_LAYERS: Rules = (
    (_LAYER + r"(?:attention|attn)\.to_[qkv]", r"\1.\2.attention.qkv"),
    (_LAYER + r"(?:attention|attn)\.to_out\.0", r"\1.\2.attention.out"),
    (_LAYER + r"feed_forward\.(?:linear_|w)(\d)", r"\1.\2.feed_forward.w\3"),
    (_LAYER + r"norm1\.linear", r"\1.\2.adaLN_modulation.1"),
    (_LAYER + r"(adaLN_modulation\.\d)", r"\1.\2.\3"),
)
_COSMOS: Rules = (
    *((_T + rf"norm{n}\.linear_([12])", rf"blocks.\1.adaln_modulation_{part}.\2")
      for n, part in ((1, "self_attn"), (2, "cross_attn"), (3, "mlp"))),
    (_T + r"attn1\.to_([qkv])", r"blocks.\1.self_attn.\2_proj"),
    (_T + r"attn1\.to_out\.0", r"blocks.\1.self_attn.output_proj"),
    (_T + r"attn2\.to_([qkv])", r"blocks.\1.cross_attn.\2_proj"),
    (_T + r"attn2\.to_out\.0", r"blocks.\1.cross_attn.output_proj"),
    (_T + r"ff\.net\.0\.proj", r"blocks.\1.mlp.layer1"),
    (_T + r"ff\.net\.2", r"blocks.\1.mlp.layer2"),
    (r"norm_out\.linear_([12])", r"final_layer.adaln_modulation.\1"),
)  # fmt: skip
_SD3: Rules = (
    (_T + r"attn\.to_[qkv]", r"joint_blocks.\1.x_block.attn.qkv"),
    (_T + r"attn\.add_[qkv]_proj", r"joint_blocks.\1.context_block.attn.qkv"),
    (_T + r"attn\.to_out\.0", r"joint_blocks.\1.x_block.attn.proj"),
    (_T + r"attn\.to_add_out", r"joint_blocks.\1.context_block.attn.proj"),
    (_T + r"attn2\.to_[qkv]", r"joint_blocks.\1.x_block.attn2.qkv"),
    (_T + r"attn2\.to_out\.0", r"joint_blocks.\1.x_block.attn2.proj"),
    *((_T + rf"{ff}\.net\.{old}", rf"joint_blocks.\1.{block}.mlp.{new}")
      for ff, block in (("ff", "x_block"), ("ff_context", "context_block"))
      for old, new in ((r"0\.proj", "fc1"), ("2", "fc2"))),
    (_T + r"norm1\.linear", r"joint_blocks.\1.x_block.adaLN_modulation.1"),
    (_T + r"norm1_context\.linear", r"joint_blocks.\1.context_block.adaLN_modulation.1"),
)  # fmt: skip
_AURAFLOW: Rules = tuple(
    (rf"{old}_transformer_blocks\.(\d+)\.{inner}", rf"{new}_layers.\1.{target}")
    for old, new in (("joint", "double"), ("single", "single"))
    for inner, target in (
        (r"attn\.to_([qkv])", r"attn.w2\2" if old == "joint" else r"attn.w1\2"),
        (r"attn\.to_out\.0", "attn.w2o" if old == "joint" else "attn.w1o"),
        (r"attn\.add_([qkv])_proj", r"attn.w1\2"),
        (r"attn\.to_add_out", "attn.w1o"),
        (r"ff\.linear_(\d)", r"mlpX.c_fc\2" if old == "joint" else r"mlp.c_fc\2"),
        (r"ff\.out_projection", "mlpX.c_proj" if old == "joint" else "mlp.c_proj"),
        (r"ff_context\.linear_(\d)", r"mlpC.c_fc\2"),
        (r"norm1\.linear", "modX.1" if old == "joint" else "modCX.1"),
    )
)
_KREA2: Rules = (
    (_T + r"attn\.to_([qkv])", r"blocks.\1.attn.w\2"),
    (_T + r"attn\.to_out\.0", r"blocks.\1.attn.wo"),
    (_T + r"attn\.to_gate", r"blocks.\1.attn.gate"),
    (_T + r"ff\.(\w+)", r"blocks.\1.mlp.\2"),
    (r"text_fusion\.(\w+)\.(\d)\.attn\.to_([qkv])", r"txtfusion.\1.\2.attn.w\3"),
    (r"text_fusion\.(\w+)\.(\d)\.ff\.(\w+)", r"txtfusion.\1.\2.mlp.\3"),
    (r"img_in", "first"),
    (r"time_mod_proj", "tproj.1"),
)
_MINIMAX: Rules = (
    (_T + r"attn\.to_[qkv]", r"blocks.\1.attn.qkv_proj"),
    (_T + r"attn\.to_out\.0", r"blocks.\1.attn.out_proj"),
    (_T + r"ff\.net\.0\.proj", r"blocks.\1.mlp.fc1"),
    (_T + r"ff\.net\.2", r"blocks.\1.mlp.fc2"),
    (_T + r"adaln_proj\.linear", r"blocks.\1.adaln_proj.linear"),
    (r"token_refiner\.refiner_blocks\.(\d+)\.attn\.to_[qkv]", r"token_refiner.blocks.\1.attn.qkv_proj"),
)
_IDEOGRAM: Rules = (
    (r"layers\.(\d+)\.attention\.to_[qkv]", r"layers.\1.attention.qkv"),
    (r"layers\.(\d+)\.attention\.to_out\.0", r"layers.\1.attention.o"),
    (r"layers\.(\d+)\.(feed_forward\.w\d|adaln_modulation)", r"layers.\1.\2"),
)
_LTX: Rules = ((r"time_embed\.(.*)", r"adaln_single.\1"), (r"proj_in", "patchify_proj"), (r"(.*)", r"\1"))
_QWEN: Rules = ((r"(.*)", r"\1"),)

#: Family → how its own code names what diffusers names otherwise.
ORIGINAL: Mapping[str, Rules] = {
    "flux": _BFL, "chroma": _BFL, "flux2": _BFL, "hunyuan-video": _TENCENT, "hunyuan-image": _TENCENT, "wan": _WAN,
    "z-image": _FUSED_LAYERS, "lumina2": _FUSED_LAYERS, "anima": _COSMOS, "sd3": _SD3, "auraflow": _AURAFLOW,
    "krea2": _KREA2, "minimax-h3": _MINIMAX, "ideogram4": _IDEOGRAM, "ltx": _LTX,
}  # fmt: skip


def sgm(layers: Layers) -> Layers:
    """The names of the original UNet, which kohya writes for SDXL."""
    result: Layers = {}
    inner = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1",
             "conv_shortcut": "skip_connection"}  # fmt: skip
    outside = {"conv_in": "input_blocks.0.0", "conv_out": "out.2", "time_embedding.linear_1": "time_embed.0",
               "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
               "add_embedding.linear_2": "label_emb.0.2"}  # fmt: skip
    for path, shape in layers.items():
        if path in outside:
            result[outside[path]] = shape
            continue
        match = re.fullmatch(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?(\w+)\.(\d+)\.(.*)", path)
        if match is None:
            continue
        side, kind, number, rest = match[1], match[3], int(match[4]), match[5]
        level = int(match[2] or 0)
        rest = inner.get(rest, rest)
        if side == "mid":
            block = f"middle_block.{1 if kind == 'attentions' else 2 * number}"
        elif kind == "downsamplers":
            block, rest = f"input_blocks.{3 * level + 3}.0", "op"
        elif kind == "upsamplers":
            attended = any(name.startswith(f"up_blocks.{level}.attentions") for name in layers)
            block = f"output_blocks.{3 * level + 2}.{2 if attended else 1}"
        else:
            first = 3 * level + number + (1 if side == "down" else 0)
            block = f"{'input' if side == 'down' else 'output'}_blocks.{first}.{1 if kind == 'attentions' else 0}"
        result[f"{block}.{rest}"] = shape
    return result


def clip(width: int, layers: int) -> Layers:
    """A CLIP text encoder."""
    result: Layers = {}
    for layer in range(layers):
        at = f"text_model.encoder.layers.{layer}"
        result |= {f"{at}.self_attn.{part}_proj": (width, width) for part in ("q", "k", "v", "out")}
        result |= {f"{at}.mlp.fc1": (4 * width, width), f"{at}.mlp.fc2": (width, 4 * width)}
    return result


#: What of a model is trained: name → which paths, given all of them.
def subset(name: str, layers: Layers) -> Layers:
    """Part of the layers: `everything`, `blocks`, `attention`, `feed-forward`, `first blocks`, `last blocks`."""
    blocks = {path: shape for path, shape in layers.items() if re.search(r"(?:blocks?|layers|refiner)\.\d", path)}
    if name == "everything":
        return layers
    if name == "blocks":
        return blocks
    if name == "attention":
        return {path: shape for path, shape in blocks.items() if re.search(r"attn|attention|linear1$", path)}
    if name == "feed-forward":
        inner = re.compile(r"\.(?:\w*ff\w*|\w*mlp\w*|feed_forward)\.")
        return {path: shape for path, shape in blocks.items() if inner.search(path)}
    numbers = sorted({_block(path) for path in blocks if _block(path)[1] >= 0})
    stacks = {stack for stack, _ in numbers}
    chosen = set()
    for stack in stacks:
        mine = [number for other, number in numbers if other == stack]
        chosen |= {(stack, number) for number in (mine[:2] if name == "first blocks" else mine[-2:])}
    return {path: shape for path, shape in blocks.items() if _block(path) in chosen}


def _block(path: str) -> tuple[str, int]:
    match = re.search(r"^(.*?(?:blocks?|layers|refiner))\.(\d+)", path)
    return (match[1], int(match[2])) if match else ("", -1)


SUBSETS = ("everything", "blocks", "attention", "feed-forward", "first blocks", "last blocks")

Parts = dict[str, Shape]


def _lora(shape: Shape, rank: int) -> Parts:
    return {"down": (rank, *shape[1:]), "up": (shape[0], rank, *([1] * len(shape[2:])))}


def lora(shape: Shape, rank: int = 16) -> Parts:
    """kohya's parts."""
    parts = _lora(shape, rank)
    return {"lora_down.weight": parts["down"], "lora_up.weight": parts["up"], "alpha": ()}


def peft(shape: Shape, rank: int = 16) -> Parts:
    """PEFT's parts: no alpha."""
    parts = _lora(shape, rank)
    return {"lora_A.weight": parts["down"], "lora_B.weight": parts["up"]}


def peft_named(shape: Shape, rank: int = 16) -> Parts:
    """PEFT's parts as in memory, with the name of the adapter in them."""
    parts = _lora(shape, rank)
    return {"lora_A.default.weight": parts["down"], "lora_B.default.weight": parts["up"]}


def dora(shape: Shape, rank: int = 16) -> Parts:
    """LoRA with magnitudes."""
    return {**lora(shape, rank), "dora_scale": (shape[0], *([1] * (len(shape) - 1)))}


def loha(shape: Shape, rank: int = 8) -> Parts:
    """LyCORIS' Hadamard product; a convolution's kernel is flattened into the columns."""
    columns = _columns(shape)
    return {
        "hada_w1_a": (shape[0], rank), "hada_w1_b": (rank, columns), "hada_w2_a": (shape[0], rank),
        "hada_w2_b": (rank, columns), "alpha": (),
    }  # fmt: skip


def loha_tucker(shape: Shape, rank: int = 8) -> Parts:
    """LoHa with a core for the kernel of a convolution."""
    if len(shape) < 4 or shape[2] == 1:
        return loha(shape, rank)
    core = (rank, rank, *shape[2:])
    return {
        "hada_t1": core, "hada_t2": core, "hada_w1_a": (rank, shape[0]), "hada_w1_b": (rank, shape[1]),
        "hada_w2_a": (rank, shape[0]), "hada_w2_b": (rank, shape[1]), "alpha": (),
    }  # fmt: skip


def lokr(shape: Shape, rank: int = 8, factor: int = 8) -> Parts:
    """LyCORIS' Kronecker product: a small whole matrix, and a large one as a product where that is smaller."""
    (out_small, out_large), (in_small, in_large) = (_factors(size, factor) for size in shape[:2])
    small = (out_small, in_small)
    if len(shape) > 2 and shape[2] > 1:
        return {"lokr_w1": small, "lokr_w2_a": (out_large, rank), "alpha": (),
                "lokr_w2_b": (rank, in_large * _area(shape))}  # fmt: skip
    if rank >= max(out_large, in_large) / 2:
        return {"lokr_w1": small, "lokr_w2": (out_large, in_large, *shape[2:]), "alpha": ()}
    return {"lokr_w1": small, "lokr_w2_a": (out_large, rank), "lokr_w2_b": (rank, in_large), "alpha": ()}


def lokr_full(shape: Shape) -> Parts:
    """LoKr of two whole factors."""
    return lokr(shape, rank=10**6) if len(shape) == 2 else lokr(shape)


def glora(shape: Shape, rank: int = 8) -> Parts:
    """LyCORIS' generalised LoRA."""
    out, into = shape[0], _columns(shape)
    return {"a1.weight": (into, rank), "a2.weight": (rank, into), "b1.weight": (out, rank), "b2.weight": (rank, into),
            "alpha": ()}  # fmt: skip


def ia3(shape: Shape) -> Parts:
    """One factor for each output."""
    return {"weight": (shape[0], 1), "on_input": ()}


def full(shape: Shape) -> Parts:
    """The whole difference."""
    return {"diff": shape, "diff_b": (shape[0],)}


def oft(shape: Shape) -> Parts:
    """Rotations of blocks of outputs."""
    size = next(size for size in (64, 32, 16, 8, 4, 2, 1) if shape[0] % size == 0)
    return {"oft_blocks": (shape[0] // size, size, size), "alpha": ()}


def boft(shape: Shape) -> Parts:
    """Butterfly rotations."""
    size = next(size for size in (8, 4, 2, 1) if shape[0] % size == 0)
    return {"oft_blocks": (3, shape[0] // size, size, size), "rescale": (shape[0], 1), "alpha": ()}


def _columns(shape: Shape) -> int:
    return shape[1] * _area(shape)


def _area(shape: Shape) -> int:
    area = 1
    for edge in shape[2:]:
        area *= edge
    return area


def _factors(size: int, factor: int) -> tuple[int, int]:
    small = next(number for number in range(min(factor, size), 0, -1) if size % number == 0)
    return small, size // small


ALGORITHMS: Mapping[str, Callable[[Shape], Parts]] = {
    "lora": lora, "dora": dora, "loha": loha, "lokr": lokr, "glora": glora, "ia3": ia3, "full": full, "oft": oft,
    "boft": boft,
}  # fmt: skip

#: Name of a spelling → (how a path is written, the parts of LoRA there).
SPELLINGS: Mapping[str, tuple[Callable[[str], str], Callable[[Shape], Parts]]] = {
    "kohya": (lambda path: "lora_unet_" + path.replace(".", "_"), lora),
    "onetrainer": (lambda path: "lora_transformer_" + path.replace(".", "_"), lora),
    "lycoris": (lambda path: "lycoris_" + path.replace(".", "_"), lora),
    "diffusers": (lambda path: "transformer." + path, peft),
    "peft": (lambda path: "base_model.model." + path, peft_named),
    "comfyui": (lambda path: "diffusion_model." + path, peft),
    "bare": (lambda path: path, lora),
}


def spellings_of(family: str, layers: Layers) -> Iterator[tuple[str, Layers]]:
    """(`diffusers` or `original`, layers with these names)."""
    yield "diffusers", layers
    if family in ORIGINAL:
        yield "original", renamed(layers, ORIGINAL[family])
    elif "mid_block.resnets.0.conv1" in layers:
        yield "original", sgm(layers)


def tensors(layers: Layers, spell: Callable[[str], str], parts: Callable[[Shape], Parts]) -> dict[str, Shape]:
    """Tensor name → shape of an adapter of these layers."""
    return {f"{spell(path)}.{part}": size for path, shape in layers.items() for part, size in parts(shape).items()}


def header(shapes: Mapping[str, Shape], metadata: Mapping[str, str] | None = None) -> Header:
    """A header of F16 tensors with these names and shapes, without a file."""
    rows: dict[str, TensorInfo] = {}
    end = 0
    for name, shape in shapes.items():
        size = 2
        for edge in shape:
            size *= edge
        rows[name] = TensorInfo("F16", shape, (end, end + size))
        end += size
    return Header(dict(metadata or {}), rows, 100, 108 + end)


def thinned(layers: Layers) -> Layers:
    """The first two, the middle and the last two blocks of each stack: the same questions in a tenth of the time."""
    stacks: dict[str, set[int]] = {}
    for path in layers:
        stack, number = _block(path)
        stacks.setdefault(stack, set()).add(number)
    kept = set()
    for stack, found in stacks.items():
        numbers = sorted(found)
        middle = len(numbers) // 2
        kept |= {(stack, number) for number in {*numbers[:2], numbers[middle], *numbers[-2:]}}
    return {path: shape for path, shape in layers.items() if _block(path) in kept}


def cases(family: str, layers: Layers) -> Iterator[tuple[str, str, str, Layers]]:
    """(what was trained, algorithm, spelling of the keys, layers) for everything that one model is asked."""
    spelled = list(spellings_of(family, layers))
    for naming, rows in spelled:
        for trained in SUBSETS:
            if part := subset(trained, rows):
                yield trained, "lora", "kohya" if naming == "original" else "diffusers", part
    blocks = subset("blocks", spelled[-1][1])
    for algorithm in ALGORITHMS:
        if algorithm != "lora":
            yield "blocks", algorithm, "lycoris", blocks
