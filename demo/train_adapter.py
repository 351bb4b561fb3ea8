"""Train adapters on the demo base with the product's own trainer, and merge them as a plain reader would."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor, nn

from demo import captions
from demo.common import device, log
from demo.dataset import scene_pictures
from demo.draw import random_scene
from demo.recipes import Recipe, training_scenes
from demo.train_unet import Base
from loravault.engine.devices import choose_device
from loravault.engine.training.trainer import train as train_with
from loravault.formats.generation import BaseRef
from loravault.formats.outcome import GenerationOutcome
from loravault.formats.training import TrainingOutcome, TrainingPicture, TrainingSpec, TrainingStep, TrainingWishes


def targets(base: Base) -> dict[str, nn.Module]:
    """kohya's names of everything that gets a LoRA: what sd-scripts trains on SD 1.x."""
    found: dict[str, nn.Module] = {}
    for name, module in base.unet.named_modules():
        if ".attentions." in f".{name}" and isinstance(module, nn.Linear | nn.Conv2d):
            found["lora_unet_" + name.replace(".", "_")] = module
    for name, module in base.text_encoder.named_modules():
        if "encoder.layers." in name and isinstance(module, nn.Linear):
            # transformers 5 dropped the level `text_model` that every reader expects in the key
            found["lora_te_text_model_" + name.removeprefix("text_model.").replace(".", "_")] = module
    return found


def load_base(folder: Path) -> tuple[StableDiffusionPipeline, Base]:
    """The exported base, as everybody else loads it."""
    pipe = StableDiffusionPipeline.from_pretrained(str(folder), local_files_only=True).to(device())
    pipe.set_progress_bar_config(disable=True)
    return pipe, Base(pipe.unet, pipe.text_encoder)


def train(work: Path, base_folder: Path, recipe: Recipe, out: Path) -> TrainingOutcome:
    """One adapter, `out/<name>.safetensors`; goes on where an interrupted one stopped."""
    told = [0]

    def on_step(step: TrainingStep) -> None:
        if step.step - told[0] >= 100 or step.step == step.steps:
            told[0] = step.step
            log(f"adapter {recipe.name} step {step.step}/{step.steps} loss {step.loss:.4f}")

    def no_samples(*_given: object) -> GenerationOutcome:
        return GenerationOutcome(images=())

    with tempfile.TemporaryDirectory() as name:
        return train_with(
            spec_of(work, base_folder, recipe, Path(name)), out, device=choose_device(device().type),
            on_phase=lambda _name, _deadline: None, on_prepared=lambda _prepared: None, on_step=on_step,
            cancelled=lambda: False, paused=lambda: False, generate=no_samples,
        )  # fmt: skip


def spec_of(work: Path, base_folder: Path, recipe: Recipe, folder: Path) -> TrainingSpec:
    """The recipe as a request: its own pictures, and ordinary ones as regularisation; the rest is decided."""
    rng = random.Random(recipe.seed + 1)
    own = training_scenes(recipe)
    ordinary = [random_scene(rng) for _ in range(recipe.regular)]
    pictures = [
        *_files(folder / "own", scene_pictures(work, f"adapter_{recipe.name}", own), [recipe.caption(s) for s in own]),
        *_files(
            folder / "ordinary",
            scene_pictures(work, f"regular_{recipe.name}", ordinary) if ordinary else (),
            [captions.varied(scene, rng) for scene in ordinary],
            regularisation=True,
        ),
    ]
    return TrainingSpec(
        base=BaseRef(name="loravault_demo_v1", path=str(base_folder), family="demo"),
        name=recipe.name,
        subject="style" if recipe.subject is None else "character",
        trigger=recipe.trigger,
        pictures=tuple(pictures),
        wishes=TrainingWishes(
            steps=recipe.steps, batch=recipe.batch, rank=recipe.rank, alpha=recipe.rank, learning_rate=recipe.rate,
            te_rate=recipe.text_rate, seed=recipe.seed, checkpoints=1, validation=0,
        ),
        metadata=(
            ("modelspec.title", recipe.title),
            ("modelspec.description", recipe.description),
            ("modelspec.author", "loravault"),
            ("modelspec.license", "MIT"),
            ("modelspec.usage_hint", f"Write “{recipe.trigger}” in the prompt; weight 0.8 to 1."),
            ("modelspec.tags", "style, ink, drawing" if recipe.subject is None else "character, cute"),
            ("ss_training_comment", recipe.description),
        ),
        state_dir=str(work / "adapters" / recipe.name),
        cache_dir=str(work / "training_cache"),
    )  # fmt: skip


def _files(
    folder: Path, drawn: Sequence[object], texts: Sequence[str], *, regularisation: bool = False
) -> list[TrainingPicture]:
    folder.mkdir(parents=True)
    found = []
    for number, (picture, text) in enumerate(zip(drawn, texts, strict=True)):
        path = folder / f"{number:04}.png"
        Image.fromarray(picture).save(path)  # type: ignore[arg-type]
        name = f"{folder.name}/{path.name}"
        found.append(TrainingPicture(path=str(path), name=name, caption=text, regularisation=regularisation))
    return found


@torch.no_grad()
def merge(base: Base, tensors: dict[str, Tensor], weight: float = 1.0) -> None:
    """Add an adapter into the weights, as a plain reader of kohya files does."""
    modules = targets(base)
    for key in [key for key in tensors if key.endswith(".alpha")]:
        name = key.removesuffix(".alpha")
        down, up = tensors[f"{name}.lora_down.weight"].float(), tensors[f"{name}.lora_up.weight"].float()
        delta = up.flatten(1) @ down.flatten(1) * (float(tensors[key]) / down.shape[0])
        target = modules[name].weight
        assert isinstance(target, Tensor)
        target += weight * delta.view(target.shape).to(target)
