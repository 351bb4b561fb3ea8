"""Tensors of the original code → the names and shapes of transformers and diffusers.

UNets, VAEs and Stable Diffusion 3 are converted by diffusers. What it reads in one size only, or fills up silently
where something is missing, is done here: CLIP and T5, Flux.1 and Chroma.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch

Tensors = dict[str, torch.Tensor]


def below(tensors: Mapping[str, torch.Tensor], prefix: str) -> Tensors:
    """Those whose names begin with `prefix`, without it."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


# ---- text encoders


def clip(tensors: Mapping[str, torch.Tensor], *, wrapped: bool) -> Tensors:
    """A CLIP text encoder, in the names of transformers or of OpenCLIP.

    `wrapped`: whether the model at hand keeps its layers below `text_model.` (transformers 5.6 flattened one of two).
    """
    if "token_embedding.weight" in tensors:
        tensors = _open_clip(tensors)
    found = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    outside = ("text_projection.",)
    if not wrapped:
        return found
    return {name if name.startswith(outside) else f"text_model.{name}": tensor for name, tensor in found.items()}


_OPEN_CLIP: Mapping[str, str] = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_OPEN_CLIP_LAYERS: Mapping[str, str] = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def _open_clip(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    found: Tensors = {}
    for name, tensor in tensors.items():
        layer = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+?)\.?(weight|bias|in_proj_weight|in_proj_bias)", name)
        if name in _OPEN_CLIP:
            found[_OPEN_CLIP[name]] = tensor
        elif name == "text_projection":  # kept the other way round
            found["text_projection.weight"] = tensor.T.contiguous()
        elif layer and layer[3].startswith("in_proj"):
            kind = layer[3].removeprefix("in_proj_")
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                found[f"encoder.layers.{layer[1]}.self_attn.{part}_proj.{kind}"] = piece
        elif layer and layer[2] in _OPEN_CLIP_LAYERS:
            found[f"encoder.layers.{layer[1]}.{_OPEN_CLIP_LAYERS[layer[2]]}.{layer[3]}"] = tensor
    return found


def t5(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """A T5 encoder; its words are kept once or twice."""
    found = {name: tensor for name, tensor in tensors.items() if name.startswith(("shared.", "encoder."))}
    words = found.get("shared.weight", found.get("encoder.embed_tokens.weight"))
    return found if words is None else {**found, "shared.weight": words, "encoder.embed_tokens.weight": words}


# ---- Flux.1 and Chroma

#: Original path → path in diffusers, outside of the blocks.
_FLUX: Mapping[str, str] = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
}
_DOUBLE: Mapping[str, str] = {
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
}
_SINGLE: Mapping[str, str] = {
    "modulation.lin": "norm.linear",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
    "linear2": "proj_out",
}
#: Fused layers → their pieces.
_FUSED: Mapping[str, tuple[str, ...]] = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
_TIP = re.compile(r"(.+)\.(weight|bias|scale)")
_BLOCK = re.compile(r"(double|single)_blocks\.(\d+)\.(.+)")


def flux(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """The transformer of Flux.1 or Chroma; one that has the names of diffusers already stays as it is."""
    if "x_embedder.weight" in tensors:
        return dict(tensors)
    found: Tensors = {}
    for name, tensor in tensors.items():
        tip = _TIP.fullmatch(name)
        if tip:
            found.update(_flux_layer(tip[1], "weight" if tip[2] == "scale" else tip[2], tensor))
    return found


def _flux_layer(path: str, kind: str, tensor: torch.Tensor) -> Iterable[tuple[str, torch.Tensor]]:
    block = _BLOCK.fullmatch(path)
    if path in _FLUX:
        yield f"{_FLUX[path]}.{kind}", tensor
    elif path == "final_layer.adaLN_modulation.1":  # shift and scale stand the other way round
        yield f"norm_out.linear.{kind}", torch.cat(tensor.chunk(2)[::-1])
    elif path.startswith("distilled_guidance_layer."):
        yield f"{_chroma_guidance(path)}.{kind}", tensor
    elif block and block[1] == "double":
        yield from _double(f"transformer_blocks.{block[2]}", block[3], kind, tensor)
    elif block:
        yield from _single(f"single_transformer_blocks.{block[2]}", block[3], kind, tensor)


def _double(block: str, path: str, kind: str, tensor: torch.Tensor) -> Iterable[tuple[str, torch.Tensor]]:
    if path in _DOUBLE:
        yield f"{block}.{_DOUBLE[path]}.{kind}", tensor
    elif path in _FUSED:
        for target, piece in zip(_FUSED[path], tensor.chunk(3), strict=True):
            yield f"{block}.{target}.{kind}", piece


def _single(block: str, path: str, kind: str, tensor: torch.Tensor) -> Iterable[tuple[str, torch.Tensor]]:
    if path in _SINGLE:
        yield f"{block}.{_SINGLE[path]}.{kind}", tensor
    elif path == "linear1":  # q, k and v of one width, and an MLP that is four times as wide
        width = tensor.shape[0] // 7
        pieces = torch.split_with_sizes(tensor, [width, width, width, tensor.shape[0] - 3 * width])
        for target, piece in zip(("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"), pieces, strict=True):
            yield f"{block}.{target}.{kind}", piece


def _chroma_guidance(path: str) -> str:
    """Chroma's approximator: its MLPs are named after the parts of transformers' text projection."""
    path = re.sub(r"layers\.(\d+)\.in_layer", r"layers.\1.linear_1", path)
    return re.sub(r"layers\.(\d+)\.out_layer", r"layers.\1.linear_2", path)
