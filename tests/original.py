"""Diffusers folders written as single files in the layout of the models' original code. Needs torch.

Written down from how the original code names its modules, and not taken from the tables that are to be tested.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]


def single_file(folder: Path, path: Path, family: str, *, only_denoiser: bool = False) -> Tensors:
    """Writes `folder` to `path` as its family's checkpoints are; returns the tensors."""
    tensors: Tensors = {}
    name = "unet" if family in ("sd15", "sd2", "sdxl") else "transformer"
    convert = {"transformer": sd3 if family == "sd3" else flux, "unet": unet}[name]
    prefix = "" if only_denoiser else "model.diffusion_model."
    tensors |= _prefixed(prefix, convert(weights(folder / name)))
    if not only_denoiser:
        tensors |= _prefixed("first_stage_model.", vae(weights(folder / "vae")))
        for part, (beginning, reshape) in _ENCODERS[family].items():
            if (folder / part).is_dir():
                tensors |= _prefixed(beginning, reshape(weights(folder / part)))
    save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, path)
    return tensors


def weights(folder: Path) -> Tensors:
    """The tensors of one part of a folder."""
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def _prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


# ---- UNet and VAE

_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip


def unet(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """A UNet, by its own number of residual blocks per level."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        path, _, tip = name.rpartition(".")
        found[f"{_UNET_ENDS.get(path) or _unet_block(path, tensors)}.{tip}"] = tensor
    return found


def _unet_block(path: str, tensors: Mapping[str, torch.Tensor]) -> str:
    layers = len({name.split(".")[3] for name in tensors if name.startswith("down_blocks.0.resnets.")})
    match = re.fullmatch(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?(\w+)\.(\d+)\.(.*)", path)
    assert match, path
    side, level, kind, number, rest = match[1], int(match[2] or 0), match[3], int(match[4]), match[5]
    rest = _RESNET.get(rest, rest)
    if side == "mid":
        return f"middle_block.{1 if kind == 'attentions' else 2 * number}.{rest}"
    if kind == "downsamplers":
        return f"input_blocks.{(layers + 1) * (level + 1)}.0.op"
    if kind == "upsamplers":
        attended = any(name.startswith(f"up_blocks.{level}.attentions") for name in tensors)
        return f"output_blocks.{(layers + 1) * level + layers}.{2 if attended else 1}.conv"
    block = (layers + 1) * level + number + (side == "down")
    return f"{'input' if side == 'down' else 'output'}_blocks.{block}.{int(kind == 'attentions')}.{rest}"


def vae(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """An AutoencoderKL of four levels."""
    found: Tensors = {}
    rules = (
        (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
        (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
        (r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}"),
        (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample"),
        (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
        (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
        (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
        (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
        (r"conv_norm_out", "norm_out"),
        (r"conv_shortcut", "nin_shortcut"),
    )
    for name, tensor in tensors.items():
        new = name
        for pattern, target in rules:
            new = re.sub(pattern, target, new)  # type: ignore[call-overload]
        attention = "attn_1" in new and new.endswith("weight") and tensor.ndim == 2
        found[new] = tensor[:, :, None, None] if attention else tensor
    return found


# ---- text encoders


def clip(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """As published: the layers below `text_model.`."""
    return {
        name if name.startswith(("text_model.", "text_projection")) else f"text_model.{name}": tensor
        for name, tensor in tensors.items()
    }


def open_clip(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """q, k and v in one, and the projection the other way round."""
    bare = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    found: Tensors = {"logit_scale": torch.ones(())}
    names = {
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias",
    }  # fmt: skip
    inner = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
             "self_attn.out_proj": "attn.out_proj"}  # fmt: skip
    for name, tensor in bare.items():
        layer = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        if name in names:
            found[names[name]] = tensor
        elif name == "text_projection.weight":
            found["text_projection"] = tensor.T
        elif layer and layer[2] in inner:
            found[f"transformer.resblocks.{layer[1]}.{inner[layer[2]]}.{layer[3]}"] = tensor
        elif layer and layer[2] == "self_attn.q_proj":
            parts = [bare[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            found[f"transformer.resblocks.{layer[1]}.attn.in_proj_{layer[3]}"] = torch.cat(parts)
    if "text_projection" not in found:
        found["text_projection"] = torch.eye(found["ln_final.weight"].shape[0])
    return found


def t5(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Its words once."""
    return {name: tensor for name, tensor in tensors.items() if name != "encoder.embed_tokens.weight"}


_CLIP_L = ("text_encoders.clip_l.transformer.", clip)
_T5 = ("text_encoders.t5xxl.transformer.", t5)
_ENCODERS = {
    "sd15": {"text_encoder": ("cond_stage_model.transformer.", clip)},
    "sd2": {"text_encoder": ("cond_stage_model.model.", open_clip)},
    "sdxl": {
        "text_encoder": ("conditioner.embedders.0.transformer.", clip),
        "text_encoder_2": ("conditioner.embedders.1.model.", open_clip),
    },
    "sd3": {
        "text_encoder": _CLIP_L,
        "text_encoder_2": ("text_encoders.clip_g.transformer.", clip),
        "text_encoder_3": _T5,
    },
    "flux": {"text_encoder": _CLIP_L, "text_encoder_2": _T5},
    "chroma": {"text_encoder": _T5},
}


# ---- transformers


def _moved(
    tensors: Mapping[str, torch.Tensor],
    names: Mapping[str, str],
    fused: Mapping[str, tuple[str, ...]],
    swapped: str = "norm_out.linear",
) -> Tensors:
    """By rules with `#` for the number of a block: paths renamed, layers fused, one swapped half for half."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        path, _, tip = name.rpartition(".")
        number = next(iter(re.findall(r"\d+", path)), "")
        pattern = re.sub(r"(?<=blocks\.)\d+|(?<=layers\.)\d+|(?<=norms\.)\d+", "#", path, count=1)
        firsts = {parts[0]: (new, parts) for new, parts in fused.items()}
        if pattern == swapped:
            found[f"{names[pattern]}.{tip}"] = torch.cat(tensor.chunk(2)[::-1])
        elif pattern in names:
            new = names[pattern].replace("#", number)
            found[f"{new.removesuffix('!')}.{'scale' if new.endswith('!') else tip}"] = tensor
        elif pattern in firsts:
            new, parts = firsts[pattern]
            pieces = [tensors[f"{part.replace('#', number)}.{tip}"] for part in parts]
            found[f"{new.replace('#', number)}.{tip}"] = torch.cat(pieces)
        elif not any(pattern in parts for parts in fused.values()):
            found[name] = tensor
    return found


def flux(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Flux.1 and Chroma; `!` marks the norms, whose weight is called scale."""
    d, s, t, u = "double_blocks.#.", "single_blocks.#.", "transformer_blocks.#.", "single_transformer_blocks.#."
    names = {
        "x_embedder": "img_in", "context_embedder": "txt_in", "proj_out": "final_layer.linear",
        "norm_out.linear": "final_layer.adaLN_modulation.1",
        t + "norm1.linear": d + "img_mod.lin", t + "norm1_context.linear": d + "txt_mod.lin",
        t + "attn.to_out.0": d + "img_attn.proj", t + "attn.to_add_out": d + "txt_attn.proj",
        t + "attn.norm_q": d + "img_attn.norm.query_norm!", t + "attn.norm_k": d + "img_attn.norm.key_norm!",
        t + "attn.norm_added_q": d + "txt_attn.norm.query_norm!",
        t + "attn.norm_added_k": d + "txt_attn.norm.key_norm!",
        t + "ff.net.0.proj": d + "img_mlp.0", t + "ff.net.2": d + "img_mlp.2",
        t + "ff_context.net.0.proj": d + "txt_mlp.0", t + "ff_context.net.2": d + "txt_mlp.2",
        u + "norm.linear": s + "modulation.lin", u + "proj_out": s + "linear2",
        u + "attn.norm_q": s + "norm.query_norm!", u + "attn.norm_k": s + "norm.key_norm!",
        "distilled_guidance_layer.norms.#": "distilled_guidance_layer.norms.#!",
        "distilled_guidance_layer.layers.#.linear_1": "distilled_guidance_layer.layers.#.in_layer",
        "distilled_guidance_layer.layers.#.linear_2": "distilled_guidance_layer.layers.#.out_layer",
        **{f"time_text_embed.{old}_embedder.linear_{n}": f"{new}_in.{layer}_layer"
           for old, new in (("timestep", "time"), ("text", "vector"), ("guidance", "guidance"))
           for n, layer in ((1, "in"), (2, "out"))},
    }  # fmt: skip
    fused = {
        d + "img_attn.qkv": (t + "attn.to_q", t + "attn.to_k", t + "attn.to_v"),
        d + "txt_attn.qkv": (t + "attn.add_q_proj", t + "attn.add_k_proj", t + "attn.add_v_proj"),
        s + "linear1": (u + "attn.to_q", u + "attn.to_k", u + "attn.to_v", u + "proj_mlp"),
    }
    return _moved(tensors, names, fused)


def sd3(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Stable Diffusion 3 medium; the last block does not change the text, and its modulation is swapped too."""
    j, t = "joint_blocks.#.", "transformer_blocks.#."
    last = max(int(re.findall(r"\d+", name)[0]) for name in tensors if name.startswith("transformer_blocks"))
    final = f"transformer_blocks.{last}.norm1_context.linear"
    names = {
        "pos_embed.proj": "x_embedder.proj", "context_embedder": "context_embedder", "proj_out": "final_layer.linear",
        "norm_out.linear": "final_layer.adaLN_modulation.1",
        t + "norm1.linear": j + "x_block.adaLN_modulation.1",
        t + "norm1_context.linear": j + "context_block.adaLN_modulation.1",
        t + "attn.to_out.0": j + "x_block.attn.proj", t + "attn.to_add_out": j + "context_block.attn.proj",
        **{f"{t}{a}.norm_{part}": f"{j}x_block.{a}.ln_{part}" for a in ("attn", "attn2") for part in "qk"},
        **{f"{t}attn.norm_added_{part}": f"{j}context_block.attn.ln_{part}" for part in "qk"},
        t + "attn2.to_out.0": j + "x_block.attn2.proj",
        t + "ff.net.0.proj": j + "x_block.mlp.fc1", t + "ff.net.2": j + "x_block.mlp.fc2",
        t + "ff_context.net.0.proj": j + "context_block.mlp.fc1",
        t + "ff_context.net.2": j + "context_block.mlp.fc2",
        **{f"time_text_embed.{old}_embedder.linear_{n}": f"{new}_embedder.mlp.{2 * n - 2}"
           for old, new in (("timestep", "t"), ("text", "y")) for n in (1, 2)},
    }  # fmt: skip
    fused = {
        j + "x_block.attn2.qkv": (t + "attn2.to_q", t + "attn2.to_k", t + "attn2.to_v"),
        j + "x_block.attn.qkv": (t + "attn.to_q", t + "attn.to_k", t + "attn.to_v"),
        j + "context_block.attn.qkv": (t + "attn.add_q_proj", t + "attn.add_k_proj", t + "attn.add_v_proj"),
    }
    swapped = {
        name: torch.cat(tensor.chunk(2)[::-1]) if name.startswith(final) else tensor for name, tensor in tensors.items()
    }
    found = _moved(swapped, names, fused)
    found["pos_embed"] = found.pop("pos_embed.pos_embed")
    return found
