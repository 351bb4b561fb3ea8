"""How the models' own code, and trainers after it, name and fuse the layers that diffusers has.

Written down from diffusers' converters, and not taken from the tables that are to be tested.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

Shape = tuple[int, ...]
Layers = dict[str, Shape]
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
_ATTENTIONS = (("attn1", "self_attn"), ("attn2", "cross_attn"))
_WAN: Rules = (
    *((rf"blocks\.(\d+)\.{old}\.to_([qkv])", rf"blocks.\1.{new}.\2") for old, new in _ATTENTIONS),
    *((rf"blocks\.(\d+)\.{old}\.to_out\.0", rf"blocks.\1.{new}.o") for old, new in _ATTENTIONS),
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
    *((_T + rf"{old}\.to_([qkv])", rf"blocks.\1.{new}.\2_proj") for old, new in _ATTENTIONS),
    *((_T + rf"{old}\.to_out\.0", rf"blocks.\1.{new}.output_proj") for old, new in _ATTENTIONS),
    (_T + r"ff\.net\.0\.proj", r"blocks.\1.mlp.layer1"),
    (_T + r"ff\.net\.2", r"blocks.\1.mlp.layer2"),
    (r"norm_out\.linear_([12])", r"final_layer.adaln_modulation.\1"),
)  # fmt: skip
_SD3: Rules = (
    *((_T + rf"{name}\.to_[qkv]", rf"joint_blocks.\1.x_block.{name}.qkv") for name in ("attn", "attn2")),
    *((_T + rf"{name}\.to_out\.0", rf"joint_blocks.\1.x_block.{name}.proj") for name in ("attn", "attn2")),
    (_T + r"attn\.add_[qkv]_proj", r"joint_blocks.\1.context_block.attn.qkv"),
    (_T + r"attn\.to_add_out", r"joint_blocks.\1.context_block.attn.proj"),
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
