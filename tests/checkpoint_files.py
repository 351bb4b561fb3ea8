"""Headers as published checkpoints have them, in files that take no room on the disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tests.formats.headers import table

Shapes = Mapping[str, tuple[int, ...]]

_D = "model.diffusion_model."
SD1_CLIP = "cond_stage_model.transformer.text_model.embeddings.position_ids"
VAE = {"decoder.conv_in.weight": (512, 4, 3, 3), "decoder.conv_out.weight": (3, 128, 3, 3)}
VAE_16 = {"decoder.conv_in.weight": (512, 16, 3, 3), "decoder.conv_out.weight": (3, 128, 3, 3)}


def unet(width: int, *, into: int = 4, prefix: str = _D) -> dict[str, tuple[int, ...]]:
    """The telling tensors of a Stable Diffusion UNet."""
    return {
        f"{prefix}input_blocks.0.0.weight": (320, into, 3, 3),
        f"{prefix}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, width),
    }


def _below(prefix: str, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    return {prefix + name: shape for name, shape in shapes.items()}


def flux(*, dev: bool = True, into: int = 64, chroma: bool = False, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """The telling tensors of a Flux.1 transformer."""
    found: dict[str, tuple[int, ...]] = {
        "double_blocks.0.img_attn.norm.key_norm.scale": (128,), "img_in.weight": (3072, into)
    }  # fmt: skip
    if dev:
        found["guidance_in.in_layer.bias"] = (3072,)
    if chroma:
        found["distilled_guidance_layer.in_proj.bias"] = (5120,)
    return _below(prefix, found)


def sd3(blocks: int = 24, *, dual: bool = False) -> dict[str, tuple[int, ...]]:
    """The telling tensors of a Stable Diffusion 3 transformer."""
    found: dict[str, tuple[int, ...]] = {
        f"joint_blocks.{number}.context_block.adaLN_modulation.1.bias": (8,) for number in range(blocks)
    }
    if dual:
        found["joint_blocks.0.x_block.attn2.qkv.weight"] = (8, 8)
    return _below(_D, found)


CLIP_L = {"text_model.embeddings.token_embedding.weight": (49408, 768)}
CLIP_G = {"text_model.embeddings.token_embedding.weight": (49408, 1280)}
T5_XXL = {"encoder.block.0.layer.0.SelfAttention.q.weight": (4096, 4096), "shared.weight": (32128, 4096)}

SD15 = {**unet(768), **_below("first_stage_model.", VAE), SD1_CLIP: (1, 77)}
SD2 = {**unet(1024), **_below("first_stage_model.", VAE), "cond_stage_model.model.ln_final.bias": (1024,)}
SDXL = {
    **unet(2048), **_below("first_stage_model.", VAE), "conditioner.embedders.0.transformer.x": (1,),
    "conditioner.embedders.1.model.x": (1,),
}  # fmt: skip
SD3_CLIPS = {"text_encoders.clip_l.transformer.x": (1,), "text_encoders.clip_g.transformer.x": (1,)}
SD3 = {**sd3(), **_below("first_stage_model.", VAE_16), **SD3_CLIPS}


def write(path: Path, shapes: Shapes, metadata: Mapping[str, str] | None = None) -> Path:
    """A file with this header whose tensors are a hole."""
    entries, size = table(shapes)
    if metadata:
        entries = {"__metadata__": dict(metadata), **entries}
    header = json.dumps(entries).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    return path
