"""Train adapters on the demo base: LoRA on text encoder and UNet, no embedding: a kohya file carries it all."""

from __future__ import annotations

import math
import random
import time
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from torch import Tensor, nn
from torch.nn import functional

from demo import captions
from demo.common import device, log, one_cycle, seed_everything
from demo.dataset import scene_pictures
from demo.draw import random_scene
from demo.model import new_scheduler
from demo.recipes import Recipe, training_scenes
from demo.train_unet import Base, diffusion_loss, encode, fast_attention, tokenise

PRIOR_STEPS = 12

Patches = dict[str, "LoraPatch"]


class LoraPatch(nn.Module):
    """One LoRA on a Linear or a 1x1 convolution; adds itself to the module's output while attached."""

    def __init__(self, target: nn.Module, rank: int) -> None:
        super().__init__()
        if not isinstance(target, nn.Linear | nn.Conv2d):
            raise TypeError(f"no LoRA for {type(target).__name__}")
        kernel = (1, 1) if isinstance(target, nn.Conv2d) else ()
        self.down = nn.Parameter(torch.empty(rank, target.weight.shape[1], *kernel, device=target.weight.device))
        self.up = nn.Parameter(torch.zeros(target.weight.shape[0], rank, *kernel, device=target.weight.device))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.alpha = float(rank)
        self.hook = target.register_forward_hook(self._add)

    def _add(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        apply = functional.conv2d if self.down.ndim == 4 else functional.linear
        return output + apply(apply(inputs[0], self.down), self.up) * (self.alpha / self.down.shape[0])


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


def train(work: Path, base_folder: Path, recipe: Recipe) -> tuple[dict[str, Tensor], float]:
    """Train one adapter; returns its tensors (fp16, kohya keys) and the seconds of pure training."""
    seed_everything(recipe.seed)
    pipe, base = load_base(base_folder)
    fast_attention(base).requires_grad_(False)
    scenes = training_scenes(recipe)
    latents = encode(pipe.vae, scene_pictures(work, f"adapter_{recipe.name}", scenes)).to(device())
    texts = [recipe.caption(scene) for scene in scenes]
    if recipe.regular:
        rng = random.Random(recipe.seed + 1)
        ordinary = [random_scene(rng) for _ in range(recipe.regular)]
        extra = encode(pipe.vae, scene_pictures(work, f"regular_{recipe.name}", ordinary)).to(device())
        latents, texts = torch.cat([latents, extra]), texts + [captions.varied(scene, rng) for scene in ordinary]
    began = time.monotonic()
    if recipe.prior:
        made, prompts = base_pictures(pipe, recipe)
        latents, texts = torch.cat([latents, made]), texts + prompts
    patches = {name: LoraPatch(module, recipe.rank) for name, module in targets(base).items()}
    _fit(base, patches, (latents, tokenise(pipe.tokenizer, texts)), len(scenes), recipe)
    seconds = time.monotonic() - began
    for patch in patches.values():
        patch.hook.remove()
    return tensors_of(patches), seconds


@torch.no_grad()
def base_pictures(pipe: StableDiffusionPipeline, recipe: Recipe) -> tuple[Tensor, list[str]]:
    """Latents that the base makes for ordinary prompts, with the prompts: what it can do now and is to keep."""
    rng = random.Random(recipe.seed + 2)
    prompts = [captions.full(random_scene(rng)) for _ in range(recipe.prior)]
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    made = [
        pipe(prompts[start : start + 20], num_inference_steps=PRIOR_STEPS, output_type="latent").images
        for start in range(0, len(prompts), 20)
    ]
    return torch.cat(made).to(device()), prompts


def _fit(base: Base, patches: Patches, data: tuple[Tensor, Tensor], own: int, recipe: Recipe) -> None:
    latents, tokens = data
    groups = [
        {
            "params": [p for name, patch in patches.items() if name.startswith(prefix) for p in patch.parameters()],
            "peak": peak,
        }
        for prefix, peak in (("lora_unet_", recipe.rate), ("lora_te_", recipe.text_rate))
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.rate, weight_decay=0.01, fused=True)
    alphas = new_scheduler().alphas_cumprod.to(device())
    share = recipe.ordinary if len(latents) > own else 0.0
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(step, recipe.steps, group["peak"])
        ordinary = torch.rand(recipe.batch) < share
        pick = torch.where(
            ordinary,
            torch.randint(own, max(len(latents), own + 1), (recipe.batch,)),
            torch.randint(0, own, (recipe.batch,)),
        )
        loss = diffusion_loss(base, latents[pick], tokens[pick], alphas)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            log(f"adapter {recipe.name} step {step}/{recipe.steps} loss {loss.item():.4f}")


def tensors_of(patches: Patches) -> dict[str, Tensor]:
    """fp16 tensors under kohya's keys, an alpha for every module."""
    tensors: dict[str, Tensor] = {}
    for name, patch in patches.items():
        tensors[f"{name}.lora_down.weight"] = patch.down.detach().half().cpu().contiguous()
        tensors[f"{name}.lora_up.weight"] = patch.up.detach().half().cpu().contiguous()
        tensors[f"{name}.alpha"] = torch.tensor(patch.alpha, dtype=torch.float16)
    return tensors


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
