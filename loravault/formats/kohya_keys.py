"""kohya's names for the modules of Stable-Diffusion-architecture models, and what shapes those modules have.

A kohya key is a prefix and the module's path with every dot turned into an underscore. Module names themselves contain
underscores, so the way back is a look-up in a table made from the modules there are, never a guess. The tables are
generated from the numbers in a model's config; the demo base and SD 1.x come out of the same code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

UNET_PREFIX = "lora_unet"
#: SD 1.x has one text encoder, which trainers call `lora_te` (kohya) or `lora_te1` (some others).
TEXT_ENCODER_PREFIXES = ("lora_te", "lora_te1")
#: Trainers keep this level in their keys; transformers 5 dropped it from the module names.
TEXT_MODEL_LEVEL = "text_model."

#: Weight shapes: `(out, in)` of a linear layer, `(out, in, kernel, kernel)` of a convolution.
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Target:
    """Where the tensors of one kohya module go."""

    #: `unet` or `text_encoder`.
    component: str
    #: The module's path inside that component, as diffusers and transformers name it.
    module: str


def build_key_map(module_names: Iterable[str], prefix: str) -> dict[str, str]:
    """kohya module name → module path, for the modules a model really has. `prefix` without its last underscore.

    Raises `ValueError` if two modules would get the same kohya name.
    """
    result: dict[str, str] = {}
    for module in module_names:
        key = f"{prefix}_{module.replace('.', '_')}"
        if result.setdefault(key, module) != module:
            raise ValueError(f"{module} and {result[key]} are both called {key}")
    return result


def build_text_key_map(module_names: Iterable[str], prefixes: Sequence[str] = TEXT_ENCODER_PREFIXES) -> dict[str, str]:
    """As `build_key_map` for a CLIP text encoder: every prefix, keys with and without the `text_model` level.

    The paths on the right are the given names, whichever of the two levels the installed transformers uses.
    """
    bare = {name.removeprefix(TEXT_MODEL_LEVEL): name for name in module_names}
    result: dict[str, str] = {}
    for prefix in prefixes:
        for inner in (prefix, f"{prefix}_{TEXT_MODEL_LEVEL[:-1]}"):
            result.update({key: bare[name] for key, name in build_key_map(bare, inner).items()})
    return result


def sd_key_map(unet_modules: Iterable[str], text_modules: Iterable[str]) -> dict[str, Target]:
    """kohya module name → target, for a model with one UNet and one CLIP text encoder."""
    result = {key: Target("unet", name) for key, name in build_key_map(unet_modules, UNET_PREFIX).items()}
    result.update({key: Target("text_encoder", name) for key, name in build_text_key_map(text_modules).items()})
    return result


def module_path(kohya_name: str, key_map: Mapping[str, Target]) -> Target | None:
    """Where a kohya module goes, or None if the model has no such module."""
    return key_map.get(kohya_name)


def clip_modules(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Module path (with `text_model`) → weight shape of a CLIP text encoder's linear layers, from its config."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, Shape] = {}
    for layer in range(config["num_hidden_layers"]):
        path = f"{TEXT_MODEL_LEVEL}encoder.layers.{layer}"
        shapes.update({f"{path}.self_attn.{part}_proj": (width, width) for part in ("k", "v", "q", "out")})
        shapes[f"{path}.mlp.fc1"] = (inner, width)
        shapes[f"{path}.mlp.fc2"] = (width, inner)
    return shapes


def unet_modules(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Module path → weight shape of every linear and convolution of a `UNet2DConditionModel`, from its `config.json`.

    Covers what SD 1.x, SD 2.x and the demo base use: (CrossAttn)Down/Up blocks and a cross-attention middle block.
    """
    channels: list[int] = list(config["block_out_channels"])
    down_types, up_types = config["down_block_types"], config["up_block_types"]
    unknown = {*down_types, *up_types} - {"CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"}
    if unknown:
        raise ValueError(f"unknown block types: {', '.join(sorted(unknown))}")
    shapes: dict[str, Shape] = {
        "conv_in": (channels[0], config["in_channels"], 3, 3),
        "time_embedding.linear_1": (4 * channels[0], channels[0]),
        "time_embedding.linear_2": (4 * channels[0], 4 * channels[0]),
        "conv_out": (config["out_channels"], channels[0], 3, 3),
    }
    shapes.update(_down(config, channels))
    shapes.update(_middle(config, channels))
    shapes.update(_up(config, channels))
    return shapes


def _down(config: Mapping[str, Any], channels: list[int]) -> Iterator[tuple[str, Shape]]:
    before = channels[0]
    for block, (kind, width) in enumerate(zip(config["down_block_types"], channels, strict=True)):
        path = f"down_blocks.{block}"
        for layer in range(config["layers_per_block"]):
            yield from _resnet(f"{path}.resnets.{layer}", before, width, 4 * channels[0])
            if kind.startswith("CrossAttn"):
                yield from _attention(f"{path}.attentions.{layer}", width, config)
            before = width
        if block < len(channels) - 1:
            yield f"{path}.downsamplers.0.conv", (width, width, 3, 3)


def _middle(config: Mapping[str, Any], channels: list[int]) -> Iterator[tuple[str, Shape]]:
    width = channels[-1]
    for layer in range(2):
        yield from _resnet(f"mid_block.resnets.{layer}", width, width, 4 * channels[0])
    yield from _attention("mid_block.attentions.0", width, config)


def _up(config: Mapping[str, Any], channels: list[int]) -> Iterator[tuple[str, Shape]]:
    reverse = channels[::-1]
    layers = config["layers_per_block"] + 1
    before = reverse[0]
    for block, (kind, width) in enumerate(zip(config["up_block_types"], reverse, strict=True)):
        path = f"up_blocks.{block}"
        for layer in range(layers):
            # the skip connection of the last layer comes from the down block one further up
            skip = reverse[min(block + 1, len(reverse) - 1)] if layer == layers - 1 else width
            width_in = (before if layer == 0 else width) + skip
            yield from _resnet(f"{path}.resnets.{layer}", width_in, width, 4 * channels[0])
            if kind.startswith("CrossAttn"):
                yield from _attention(f"{path}.attentions.{layer}", width, config)
        if block < len(channels) - 1:
            yield f"{path}.upsamplers.0.conv", (width, width, 3, 3)
        before = width


def _resnet(path: str, width_in: int, width: int, time_width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{path}.conv1", (width, width_in, 3, 3)
    yield f"{path}.time_emb_proj", (width, time_width)
    yield f"{path}.conv2", (width, width, 3, 3)
    if width_in != width:
        yield f"{path}.conv_shortcut", (width, width_in, 1, 1)


def _attention(path: str, width: int, config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
    outer: Shape = (width, width) if config.get("use_linear_projection") else (width, width, 1, 1)
    cross = config["cross_attention_dim"]
    yield f"{path}.proj_in", outer
    yield f"{path}.proj_out", outer
    for depth in range(config.get("transformer_layers_per_block", 1)):
        block = f"{path}.transformer_blocks.{depth}"
        for attention, context in (("attn1", width), ("attn2", cross)):
            yield f"{block}.{attention}.to_q", (width, width)
            yield f"{block}.{attention}.to_k", (width, context)
            yield f"{block}.{attention}.to_v", (width, context)
            yield f"{block}.{attention}.to_out.0", (width, width)
        yield f"{block}.ff.net.0.proj", (8 * width, width)  # GEGLU: value and gate in one layer
        yield f"{block}.ff.net.2", (width, 4 * width)


#: The numbers of SD 1.x, as its `unet/config.json` and `text_encoder/config.json` give them.
SD1_UNET: Mapping[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "in_channels": 4,
    "out_channels": 4,
}
SD1_TEXT_ENCODER: Mapping[str, Any] = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
