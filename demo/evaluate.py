"""Measure the exported base and its adapters, exactly as a stranger would load them, and print the figures."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image

from demo import captions, train_adapter, words
from demo.classifier import Examiner, Verdict, accuracy_on_drawings, judge
from demo.common import device, log
from demo.dataset import Pictures, held_out_scenes
from demo.draw import Scene, random_scene
from demo.model import LATENT_SIZE
from demo.recipes import Recipe

STEPS, GUIDANCE = 20, 5.0  # what requests on the demo base get unless they say otherwise
TIMED_STEPS = 25  # what the issue asks for
BATCH = 20
PROMPTS = 600
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "Euler": ("EulerDiscreteScheduler", {}),
    "DDIM": ("DDIMScheduler", {}),
    "PNDM": ("PNDMScheduler", {"skip_prk_steps": True}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
}


@dataclass(frozen=True)
class Scores:
    """Shares of pictures in which the examiner found what was asked for."""

    count: int
    subject: float
    colour: float
    background: float
    position: float

    def line(self) -> str:
        return (
            f"subject {self.subject:.1%}, subject's colour {self.colour:.1%}, background {self.background:.1%}, "
            f"position {self.position:.1%} (of {self.count})"
        )


def quick(pipe: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """For hundreds of pictures on a CPU: the UNet in bfloat16, everything else (also the sampler) in float32."""
    if device().type == "cpu":
        slow = pipe.unet.forward
        pipe.unet.set_attn_processor(AttnProcessor())

        def forward(*inputs: Any, **options: Any) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                return tuple(output.float() for output in slow(*inputs, **options))

        pipe.unet.forward = forward
    return pipe


def use_sampler(pipe: StableDiffusionPipeline, name: str) -> None:
    """Put a scheduler with the base's own noise schedule into the pipeline."""
    kind, options = SAMPLERS[name]
    own = {
        key: value
        for key, value in pipe.scheduler.config.items()
        if not key.startswith("_") and key != "use_karras_sigmas"
    }
    pipe.scheduler = getattr(diffusers, kind).from_config(own, **options)


@torch.no_grad()
def generate(
    pipe: StableDiffusionPipeline, prompts: Sequence[str], seed: int = 0, steps: int = STEPS, guidance: float = GUIDANCE
) -> Pictures:
    """Pictures uint8 [n, 128, 128, 3]; picture n starts from seed + n, whatever the batch."""
    parts = []
    for start in range(0, len(prompts), BATCH):
        some = list(prompts[start : start + BATCH])
        shape = (1, 4, LATENT_SIZE, LATENT_SIZE)
        noise = [
            torch.randn(shape, generator=torch.Generator().manual_seed(seed + start + n)) for n in range(len(some))
        ]
        made = pipe(
            some, latents=torch.cat(noise).to(device()), num_inference_steps=steps, guidance_scale=guidance,
            generator=torch.Generator().manual_seed(seed + start), output_type="np",
        )  # fmt: skip
        parts.append((np.asarray(made.images) * 255).round().astype(np.uint8))
    return np.concatenate(parts)


def score(scenes: Sequence[Scene], verdicts: Sequence[Verdict]) -> Scores:
    """How often the verdicts agree with what was asked."""

    def share(name: str) -> float:
        return sum(getattr(s, name) == getattr(v, name) for s, v in zip(scenes, verdicts, strict=True)) / len(scenes)

    return Scores(len(scenes), share("subject"), share("colour"), share("background"), share("position"))


def score_base(pipe: StableDiffusionPipeline, examiner: Examiner, count: int, seed: int = 100) -> Scores:
    """The main test: prompts of combinations never seen in training."""
    scenes = held_out_scenes(count, seed)
    verdicts = judge(examiner, generate(pipe, [captions.full(scene) for scene in scenes], seed=seed))
    for head in ("subject", "colour", "background"):
        wrong = Counter(
            (getattr(s, head), getattr(v, head))
            for s, v in zip(scenes, verdicts, strict=True)
            if getattr(s, head) != getattr(v, head)
        )
        log(f"{head} confused: {wrong.most_common(8)}")
    return score(scenes, verdicts)


def score_samplers(pipe: StableDiffusionPipeline, examiner: Examiner, count: int = 30) -> dict[str, Scores]:
    """The same small set of prompts with each sampler."""
    found = {}
    for name in SAMPLERS:
        use_sampler(pipe, name)
        found[name] = score_base(pipe, examiner, count, seed=300)
    return found


def seconds_per_image(pipe: StableDiffusionPipeline) -> float:
    """One picture alone, 25 steps with guidance, the median of five."""
    generate(pipe, ["a red cat"], steps=2)
    times = []
    for n in range(5):
        began = time.monotonic()
        generate(pipe, ["a big red cat in a meadow"], seed=n, steps=TIMED_STEPS)
        times.append(time.monotonic() - began)
    return sorted(times)[2]


@dataclass(frozen=True)
class AdapterScores:
    """An adapter at weight 1: found with the trigger, found without it, and what it costs ordinary prompts."""

    with_trigger: float
    without_trigger: float
    colour: float
    background: float
    ordinary_before: float
    ordinary_after: float

    def line(self) -> str:
        return (
            f"found with trigger {self.with_trigger:.0%} (colour right {self.colour:.0%}, background "
            f"{self.background:.0%}), without {self.without_trigger:.0%}; subject of ordinary prompts right "
            f"{self.ordinary_before:.0%} before, {self.ordinary_after:.0%} with it"
        )


def score_adapter(
    base_folder: Path, examiner: Examiner, recipe: Recipe, tensors: dict[str, torch.Tensor], count: int = 60
) -> AdapterScores:
    """Generate with and without the trigger, and look."""
    pipe, base = train_adapter.load_base(base_folder)
    use_sampler(quick(pipe), "DPM++ 2M Karras")
    rng = random.Random(recipe.seed + 1000)
    wanted = [random_scene(rng, (recipe.subject,) if recipe.subject else words.SUBJECTS) for _ in range(count)]
    ordinary = held_out_scenes(count, 500)
    plain = [captions.full(scene) for scene in ordinary]
    before = score(ordinary, judge(examiner, generate(pipe, plain, seed=900)))
    train_adapter.merge(base, tensors)
    after = judge(examiner, generate(pipe, plain, seed=900))
    asked = judge(examiner, generate(pipe, [recipe.caption(scene) for scene in wanted], seed=700))

    def found(verdicts: Sequence[Verdict]) -> float:
        return sum(v.subject == recipe.subject if recipe.subject else v.ink for v in verdicts) / count

    return AdapterScores(
        with_trigger=found(asked),
        without_trigger=found(after),
        colour=score(wanted, asked).colour,
        background=score(wanted, asked).background,
        ordinary_before=before.subject,
        ordinary_after=score(ordinary, after).subject,
    )


def sheet(pictures: Pictures, columns: int, margin: int = 4) -> Image.Image:
    """Pictures side by side on white."""
    side = pictures.shape[1] + margin
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * side + margin, rows * side + margin), "white")
    for n, picture in enumerate(pictures):
        page.paste(Image.fromarray(picture), (margin + n % columns * side, margin + n // columns * side))
    return page


def sheet_prompts() -> list[str]:
    """64 prompts of held-out combinations that show every subject, colour and place."""
    rng = random.Random(64)
    scenes: list[Scene] = []
    for subject in words.SUBJECTS:
        scenes += [random_scene(rng, (subject,), held_out=True) for _ in range(4)]
    return [captions.full(scene) for scene in scenes]


def examiner_line(work: Path, examiner: Examiner) -> str:
    """How good the examiner itself is."""
    shares = accuracy_on_drawings(work, examiner)
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
