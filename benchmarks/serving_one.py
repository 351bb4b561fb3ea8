"""One picture with an adapter: ours, durably on the disk with its data, beside diffusers' call with the same merged.

The bare side is a plain pipeline over the very same modules, called as anybody would call it; the adapter is merged
already, and what it gives stays in memory.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image

from benchmarks.serving_many import demo
from benchmarks.serving_set import lora_set
from loravault.engine.bases import load_base
from loravault.engine.devices import choose_device
from loravault.engine.generate import Engine
from loravault.formats.generation import AdapterUse, BaseRef, GenerationSpec
from tests.tiny import clip_tokenizer

#: What is promised: so much of the bare call, and so many seconds.
SHARE, SECONDS = 0.03, 0.1
PROMPT = "a red house in a meadow"


def measure(folder: Path, count: int, *, sd1: bool) -> tuple[str, bool]:
    """(table, whether the promise is kept)."""
    folder.mkdir()
    cases = [("demo base, 128×128, 25 steps", demo(), (128, 25), count)]
    if sd1:
        cases.append(
            ("SD 1.5's size, random, 256×256, 4 steps", make_sd1(folder / "sd1"), (256, 4), max(3, count // 2))
        )
    lines, kept = [], True
    for name, base, shape, turns in cases:
        costs = _costs(base, folder / name.partition(",")[0], shape, turns)
        bare, ours = (statistics.median(column) for column in zip(*costs, strict=True))
        extra = statistics.median(ours - bare for bare, ours in costs)
        good = extra <= bare * SHARE + SECONDS
        kept &= good
        lines.append(
            f"| {name} | {len(costs)} | {bare * 1000:.0f} ms | {ours * 1000:.0f} ms | {extra * 1000:+.0f} ms "
            f"{'✓' if good else '✗'} | {bare * SHARE * 1000 + SECONDS * 1000:.0f} ms |"
        )
    head = (
        "| one picture with an adapter | pairs | bare diffusers, merged | ours, saved | extra (median) | "
        "promised: 3 % + 100 ms |\n"
        "|---|---|---|---|---|---|"
    )
    return "\n".join([head, *lines]), kept


def _costs(base: BaseRef, folder: Path, shape: tuple[int, int], count: int) -> list[tuple[float, float]]:
    (use,) = lora_set(folder, load_base(base, choose_device("cpu")), 1)
    engine = Engine("cpu")
    ours = _ours(engine, base, use, folder / "out", shape)
    first = ours(0)  # loads and merges
    bare = _bare(engine, shape)
    difference = int(np.abs(bare(0).astype(int) - first.astype(int)).max())
    assert difference <= 1, f"not the same picture: {difference} of 255 off"
    ours(1)  # what happens only once
    costs = []
    for turn in range(count):
        both = [(0, bare), (1, ours)] if turn % 2 else [(1, ours), (0, bare)]
        took = [0.0, 0.0]
        for place, draw in both:
            began = time.perf_counter()
            draw(turn)
            took[place] = time.perf_counter() - began
        costs.append((took[0], took[1]))
    return costs


def _ours(engine: Engine, base: BaseRef, use: AdapterUse, out: Path, shape: tuple[int, int]) -> Callable[[int], Any]:
    def draw(seed: int) -> Any:
        spec = GenerationSpec(
            base=base, prompt=PROMPT, seeds=(seed,), width=shape[0], height=shape[0], steps=shape[1], cfg=5.0,
            sampler="DDIM", adapters=(use,), image_format="png", written_prompt=PROMPT,
        )  # fmt: skip
        return np.asarray(Image.open(engine.generate(spec, out).images[0].path))

    return draw


def _bare(engine: Engine, shape: tuple[int, int]) -> Callable[[int], Any]:
    """A pipeline of its own over the engine's modules as they are now, with the adapter in their weights."""
    assert engine._loaded is not None
    base = engine._loaded.base
    parts = {name: getattr(base.pipe, name) for name in ("vae", "text_encoder", "tokenizer", "unet")}
    scheduler = diffusers.DDIMScheduler.from_config(base.scheduler_config, timestep_spacing="leading")
    pipe: Any = diffusers.StableDiffusionPipeline(
        **parts, scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)

    def draw(seed: int) -> Any:
        generator = torch.Generator("cpu").manual_seed(seed)
        side, steps = shape
        found = pipe(
            PROMPT, width=side, height=side, num_inference_steps=steps, guidance_scale=5.0, generator=generator
        )
        return np.asarray(found.images[0])

    return draw


def make_sd1(folder: Path) -> BaseRef:
    """UNet, VAE and text encoder of SD 1.5's sizes with random weights, in half precision on the disk."""
    words = clip_tokenizer(folder / "tokenizer")
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    unet.half().save_pretrained(folder / "unet")
    del unet
    vae = diffusers.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, layers_per_block=2, sample_size=512,
    )  # fmt: skip
    vae.half().save_pretrained(folder / "vae")
    config = transformers.CLIPTextConfig(
        vocab_size=words, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        max_position_embeddings=77, bos_token_id=words - 2, eos_token_id=words - 1, pad_token_id=words - 1,
    )  # fmt: skip
    transformers.CLIPTextModel(config).half().save_pretrained(folder / "text_encoder")
    diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    ).save_pretrained(folder / "scheduler")
    parts = {"scheduler": ("diffusers", "DDIMScheduler"), "text_encoder": ("transformers", "CLIPTextModel"),
             "tokenizer": ("transformers", "CLIPTokenizer"), "unet": ("diffusers", "UNet2DConditionModel"),
             "vae": ("diffusers", "AutoencoderKL")}  # fmt: skip
    listed = "".join(f', "{name}": ["{library}", "{kind}"]' for name, (library, kind) in parts.items())
    nothing = '"safety_checker": [null, null], "feature_extractor": [null, null], "requires_safety_checker": false'
    (folder / "model_index.json").write_text(
        f'{{"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1", {nothing}{listed}}}'
    )
    return BaseRef(name="sd1", path=str(folder), family="sd15")
