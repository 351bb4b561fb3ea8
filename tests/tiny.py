"""Makes small Stable-Diffusion-1-shaped folders with random weights, and kohya adapters for them. Needs torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from loravault.formats.generation import AdapterUse, BaseRef
from loravault.formats.safetensors_header import header_of, reader
from loravault.formats.weight_id import weight_id

#: Cross-attention width that no family has.
WIDTH = 40


def make_base(folder: Path, *, seed: int = 0, linear_projection: bool = False, width: int = WIDTH) -> BaseRef:
    """A diffusers folder: 64-pixel images, UNet of two levels with attention on both, text encoder of three layers."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=width,
        norm_num_groups=8,
        use_linear_projection=linear_projection,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
    )
    words = clip_tokenizer(folder / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=min(2 * width, 128),
        num_hidden_layers=3 if width < 200 else 1,  # wide ones are for what is told by their width
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=words - 2,
        eos_token_id=words - 1,
        pad_token_id=words - 1,
    )
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    scheduler.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return BaseRef(name=folder.name, path=str(folder), family="tiny")


def clip_tokenizer(folder: Path) -> int:
    """A CLIP tokenizer that knows single characters only: one token per letter. Returns the size of its vocabulary."""
    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(vocabulary)


@dataclass(frozen=True)
class Part:
    """One module of an adapter to be made."""

    #: (out, in) or (out, in, kernel, kernel).
    shape: tuple[int, ...]
    rank: int = 4
    #: None = the file has no alpha for it.
    alpha: float | None = 4.0
    #: Tucker form (`lora_mid`).
    mid: bool = False


#: The kinds of modules an adapter for the tiny base can touch.
PARTS: Mapping[str, Part] = {
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": Part((32, WIDTH), rank=3, alpha=1.5),
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_ff_net_0_proj": Part((256, 32), rank=8, alpha=2.0),
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0": Part((64, 64), rank=2, alpha=None),
    "lora_unet_mid_block_attentions_0_proj_in": Part((64, 64, 1, 1), rank=5, alpha=4.0),
    "lora_unet_down_blocks_0_resnets_0_conv1": Part((32, 32, 3, 3), rank=4, alpha=1.0),
    "lora_unet_down_blocks_0_downsamplers_0_conv": Part((32, 32, 3, 3), rank=4, alpha=8.0, mid=True),
    "lora_unet_mid_block_resnets_0_time_emb_proj": Part((64, 128), rank=4, alpha=4.0),
    "lora_te_text_model_encoder_layers_1_self_attn_q_proj": Part((WIDTH, WIDTH), rank=4, alpha=2.0),
    "lora_te_text_model_encoder_layers_2_mlp_fc1": Part((2 * WIDTH, WIDTH), rank=6, alpha=3.0),
}


def make_adapter(
    path: Path,
    parts: Mapping[str, Part] = PARTS,
    *,
    seed: int = 0,
    size: float = 0.3,
    dtype: torch.dtype = torch.float32,
    extra: Mapping[str, torch.Tensor] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> dict[str, torch.Tensor]:
    """Writes a kohya adapter with random weights of about `size`; returns its tensors."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return (torch.randn(shape, generator=generator) * size).to(dtype)

    tensors: dict[str, torch.Tensor] = dict(extra or {})
    for name, part in parts.items():
        out, into, *kernel = part.shape
        ones = [1] * len(kernel)
        tensors[f"{name}.lora_down.weight"] = random(part.rank, into, *(ones if part.mid else kernel))
        tensors[f"{name}.lora_up.weight"] = random(out, part.rank, *ones)
        if part.mid:
            tensors[f"{name}.lora_mid.weight"] = random(part.rank, part.rank, *kernel)
        if part.alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(part.alpha, dtype=dtype)
    save_file(tensors, path, metadata=dict(metadata or {}))
    return tensors


def use_of(path: Path, weight: float = 1.0, *, te: float | None = None, **more: Any) -> AdapterUse:
    """The adapter at `path`, as a request names it."""
    with open(path, "rb") as file:
        found = weight_id(header_of(file), reader(file))
    strengths = {"te": weight if te is None else te, "unet": weight}
    return AdapterUse(name=path.stem, path=str(path), weight_id=found, **strengths, **more)
