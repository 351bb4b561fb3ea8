"""Writes `architectures.json`: every linear and convolution of the published base models, from diffusers' own classes.

    python -m tests.formats.derive

The models are built on torch's meta device, so that even the largest costs no memory. Numbers are those of the
published configs; what is not given is diffusers' default. Equal blocks are written once, their numbers as a range.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

OUT = Path(__file__).with_name("architectures.json")
_SDXL = {
    "block_out_channels": (320, 640, 1280), "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * 2),
    "up_block_types": (*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"), "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20], "cross_attention_dim": 2048, "use_linear_projection": True,
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip

#: family, variant → class and numbers.
MODELS: Mapping[tuple[str, str | None], tuple[str, dict[str, Any]]] = {
    ("sd15", None): ("UNet2DConditionModel", {"cross_attention_dim": 768}),
    ("sd2", None): ("UNet2DConditionModel", {
        "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True}),
    ("sdxl", None): ("UNet2DConditionModel", _SDXL),
    ("kolors", None): ("UNet2DConditionModel", {
        **_SDXL, "projection_class_embeddings_input_dim": 5632, "encoder_hid_dim": 4096,
        "encoder_hid_dim_type": "text_proj"}),
    ("unknown", "sdxl-refiner"): ("UNet2DConditionModel", {
        **_SDXL, "block_out_channels": (384, 768, 1536, 1536), "cross_attention_dim": 1280,
        "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * 2, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 2, "UpBlock2D"),
        "transformer_layers_per_block": 4, "attention_head_dim": [6, 12, 24, 24],
        "projection_class_embeddings_input_dim": 2560}),
    ("sd3", "medium"): ("SD3Transformer2DModel", {"num_layers": 24, "num_attention_heads": 24,
                                                   "caption_projection_dim": 1536}),
    ("sd3", "3.5-medium"): ("SD3Transformer2DModel", {"num_layers": 24, "num_attention_heads": 24,
                            "caption_projection_dim": 1536, "dual_attention_layers": tuple(range(13))}),
    ("sd3", "3.5-large"): ("SD3Transformer2DModel", {"num_layers": 38, "num_attention_heads": 38,
                                                      "caption_projection_dim": 2432}),
    ("flux", None): ("FluxTransformer2DModel", {"guidance_embeds": True}),
    ("flux2", "klein-4b"): ("Flux2Transformer2DModel", {
        "num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680}),
    ("flux2", "klein-9b"): ("Flux2Transformer2DModel", {
        "num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288}),
    ("flux2", "dev"): ("Flux2Transformer2DModel", {}),
    ("flux3", None): ("Flux3Transformer2DModel", {}),
    ("chroma", None): ("ChromaTransformer2DModel", {}),
    ("qwen-image", None): ("QwenImageTransformer2DModel", {}),
    ("z-image", None): ("ZImageTransformer2DModel", {}),
    ("wan", "1.3b"): ("WanTransformer3DModel", {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}),
    ("wan", "14b"): ("WanTransformer3DModel", {}),
    ("wan", "14b-i2v"): ("WanTransformer3DModel", {"added_kv_proj_dim": 5120, "image_dim": 1280, "in_channels": 36}),
    ("wan", "5b"): ("WanTransformer3DModel", {
        "num_attention_heads": 24, "ffn_dim": 14336, "num_layers": 30, "in_channels": 48, "out_channels": 48}),
    ("hunyuan-video", None): ("HunyuanVideoTransformer3DModel", {}),
    ("hunyuan-video", "1.5"): ("HunyuanVideo15Transformer3DModel", {}),
    ("hunyuan-image", None): ("HunyuanImageTransformer2DModel", {}),
    ("ltx", "2b"): ("LTXVideoTransformer3DModel", {}),
    ("ltx", "13b"): ("LTXVideoTransformer3DModel", {
        "attention_head_dim": 128, "num_layers": 48, "cross_attention_dim": 4096}),
    ("ltx", "ltx2"): ("LTX2VideoTransformer3DModel", {}),
    ("pixart", None): ("PixArtTransformer2DModel", {"caption_channels": 4096}),
    ("sana", "1.6b"): ("SanaTransformer2DModel", {}),
    ("sana", "0.6b"): ("SanaTransformer2DModel", {
        "num_attention_heads": 36, "num_layers": 28, "num_cross_attention_heads": 16, "cross_attention_head_dim": 72,
        "cross_attention_dim": 1152}),
    ("lumina2", None): ("Lumina2Transformer2DModel", {"cap_feat_dim": 2304}),
    ("hidream", "i1"): ("HiDreamImageTransformer2DModel", {
        "patch_size": 2, "in_channels": 16, "out_channels": 16, "caption_channels": [4096, 4096],
        "num_routed_experts": 4, "num_activated_experts": 2, "llama_layers": [0]}),
    ("auraflow", None): ("AuraFlowTransformer2DModel", {"in_channels": 4, "pos_embed_max_size": 9216}),
    ("anima", "2b"): ("CosmosTransformer3DModel", {
        "in_channels": 17, "num_attention_heads": 16, "num_layers": 28, "adaln_lora_dim": 256,
        "extra_pos_embed_type": None}),
    ("anima", "14b"): ("CosmosTransformer3DModel", {
        "in_channels": 17, "num_attention_heads": 40, "num_layers": 36, "adaln_lora_dim": 256,
        "extra_pos_embed_type": None}),
    ("krea2", None): ("Krea2Transformer2DModel", {}),
    ("cogvideox", "2b"): ("CogVideoXTransformer3DModel", {}),
    ("cogvideox", "5b"): ("CogVideoXTransformer3DModel", {"num_attention_heads": 48, "num_layers": 42}),
    ("cogview4", None): ("CogView4Transformer2DModel", {"num_layers": 28, "num_attention_heads": 64}),
    ("mochi", None): ("MochiTransformer3DModel", {}),
    ("kandinsky5", "lite"): ("Kandinsky5Transformer3DModel", {"in_visual_dim": 16, "model_dim": 1792, "ff_dim": 7168}),
    ("kandinsky5", "image-lite"): ("Kandinsky5Transformer3DModel", {
        "in_visual_dim": 16, "model_dim": 2560, "ff_dim": 10240, "num_visual_blocks": 50}),
    ("kandinsky5", "pro"): ("Kandinsky5Transformer3DModel", {
        "in_visual_dim": 16, "model_dim": 4096, "ff_dim": 16384, "num_visual_blocks": 60, "num_text_blocks": 4,
        "time_dim": 1024}),
    ("ideogram4", None): ("Ideogram4Transformer2DModel", {}),
    ("minimax-h3", None): ("MiniMaxH3Transformer3DModel", {}),
    ("ernie-image", None): ("ErnieImageTransformer2DModel", {}),
    ("cascade", None): ("StableCascadeUNet", {}),
}  # fmt: skip


def layers_of(class_name: str, numbers: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Path → shape of the weight of every linear and convolution."""
    import diffusers
    import torch
    from torch import nn

    with torch.device("meta"):
        model = getattr(diffusers, class_name)(**numbers)
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return {name: tuple(module.weight.shape) for name, module in model.named_modules() if isinstance(module, kinds)}


def fold(layers: Mapping[str, tuple[int, ...]]) -> dict[str, list[int]]:
    """Paths that differ in one number and have one shape become one: `blocks.[0-18].attn.to_q`."""
    rows = [(tuple(name.split(".")), shape) for name, shape in layers.items()]
    for place in reversed(range(max(len(path) for path, _ in rows))):
        groups: dict[tuple[tuple[str, ...], tuple[str, ...] | None, tuple[int, ...]], list[int]] = {}
        for path, shape in rows:
            if place < len(path) and path[place].isdigit():
                groups.setdefault((path[:place], path[place + 1 :], shape), []).append(int(path[place]))
            else:
                groups[path, None, shape] = []
        rows = [
            (before if after is None else (*before, f"[{_ranges(numbers)}]", *after), shape)
            for (before, after, shape), numbers in groups.items()
        ]
    return {".".join(path): list(shape) for path, shape in rows}


def _ranges(numbers: Iterable[int]) -> str:
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def main() -> None:
    """Build every model, and write what they are made of."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    result = {}
    for (family, variant), (class_name, numbers) in MODELS.items():
        result[f"{family} {variant or ''}".strip()] = fold(layers_of(class_name, numbers))
    rows = ",\n".join(
        f"{json.dumps(name)}: {{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in rows.items()) + "\n}"
        for name, rows in result.items()
    )
    OUT.write_text("{\n" + rows + "\n}\n", "utf-8")


if __name__ == "__main__":
    main()
