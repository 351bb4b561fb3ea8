"""Makes a small base in the layout of SD 1 with random weights: `python -m benchmarks.training_base FOLDER KIND`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from loravault.resources import base_parts

#: Kind → widths of the UNet's blocks, its heads, and widths of the VAE's. kohya's UNet has exactly four blocks, of two
#: layers and eight heads; the other one has heads about as wide as SD 1's (40): narrower ones take most of a step.
SHAPES = {
    "the VAE dominates": ((32, 64), (1, 2), (32, 64, 128, 128)),
    "the UNet dominates": ((32, 64, 64, 64), 8, (32, 32, 32, 32)),
}
#: Of the text encoder.
WIDTH = 64


def main() -> None:
    """One folder."""
    folder, kind = Path(sys.argv[1]), sys.argv[2]
    torch.manual_seed(0)
    widths, heads, vae_widths = SHAPES[kind]
    deep = len(widths) - 1
    unet = UNet2DConditionModel(
        sample_size=32,
        block_out_channels=widths,
        down_block_types=("CrossAttnDownBlock2D",) * deep + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * deep,
        cross_attention_dim=WIDTH,
        attention_head_dim=heads,
    )
    vae = AutoencoderKL(
        block_out_channels=vae_widths,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        sample_size=256,
    )
    tokenizer = CLIPTokenizer.from_pretrained(base_parts() / "tokenizers" / "clip")
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        projection_dim=WIDTH,
    )
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    StableDiffusionPipeline(
        unet=unet,
        vae=vae,
        text_encoder=CLIPTextModel(config),
        tokenizer=tokenizer,
        scheduler=scheduler,
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    ).save_pretrained(folder)


if __name__ == "__main__":
    main()
