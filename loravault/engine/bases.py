"""Loading a base: a diffusers folder of the Stable Diffusion 1 architecture, offline and without a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from safetensors import SafetensorError
from transformers.models.clip.modeling_clip import CLIPTextModel
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from loravault.engine.devices import Device
from loravault.errors import UserError
from loravault.formats.generation import BaseRef
from loravault.formats.kohya_keys import Target, sd_key_map
from loravault.formats.safetensors_header import BrokenFile, read_header

#: Component folder → name of its weights without suffix.
_WEIGHTS: Mapping[str, str] = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")


@dataclass(frozen=True)
class Base:
    """A base that is ready to draw. Its weights are only ever changed by `apply.Patcher`."""

    name: str
    family: str
    pipe: Any
    #: `scheduler_config.json` as it was on disk.
    scheduler_config: Mapping[str, Any]
    #: (component, module path) → the module, for every linear and convolution of UNet and text encoder.
    modules: Mapping[tuple[str, str], torch.nn.Module]
    #: kohya module name → where it goes.
    key_map: Mapping[str, Target]

    @property
    def pixels_per_latent(self) -> int:
        """8 for every Stable Diffusion."""
        return int(self.pipe.vae_scale_factor)


def load_base(ref: BaseRef, device: Device) -> Base:
    """Reads the folder and moves the models to the device. Raises `UserError` with what is wrong with the folder."""
    folder = Path(ref.path)
    index = _read_json(folder / "model_index.json", ref.name)
    kind = index.get("_class_name")
    if kind != "StableDiffusionPipeline":
        raise UserError(
            f"The base “{ref.name}” is a {kind}; this version draws with Stable Diffusion 1 folders and the demo base."
        )
    variants = {part: _variant(folder, part, ref.name) for part in _WEIGHTS}
    scheduler_config = _read_json(folder / "scheduler" / "scheduler_config.json", ref.name)
    try:
        unet, vae, text_encoder = (
            _load(UNet2DConditionModel, folder, "unet", variants, device),
            _load(AutoencoderKL, folder, "vae", variants, device),
            _load(CLIPTextModel, folder, "text_encoder", variants, device),
        )
        tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
    except UserError as error:
        raise UserError(f"The base “{ref.name}” cannot be loaded: {error}") from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"The base “{ref.name}” cannot be loaded: {_short(error)}") from error
    pipeline: Any = StableDiffusionPipeline
    pipe = pipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),  # a placeholder; every job brings its own
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    modules = {
        (component, name): module
        for component, model in (("unet", unet), ("text_encoder", text_encoder))
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    }
    names: dict[str, list[str]] = {"unet": [], "text_encoder": []}
    for component, name in modules:
        names[component].append(name)
    key_map = sd_key_map(names["unet"], names["text_encoder"])
    return Base(ref.name, ref.family, pipe, scheduler_config, modules, key_map)


def signature(ref: BaseRef) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of every file of the folder: another signature is another base under the same name."""
    folder = Path(ref.path)
    files = sorted(path for pattern in ("*.json", "*/*.json", "*/*.safetensors") for path in folder.glob(pattern))
    stats = ((path, path.stat()) for path in files)
    return tuple((str(path.relative_to(folder)), status.st_size, status.st_mtime_ns) for path, status in stats)


def _load(kind: Any, folder: Path, part: str, variants: Mapping[str, str | None], device: Device) -> Any:
    model, report = kind.from_pretrained(
        str(folder / part),
        use_safetensors=True,  # without it diffusers and transformers fall back to pickles
        local_files_only=True,
        variant=variants[part],
        output_loading_info=True,
        **{"dtype" if part == "text_encoder" else "torch_dtype": device.dtype},
    )
    missing = [key for key in report["missing_keys"] if not key.endswith("position_ids")]
    if missing:
        # The libraries would fill the gap with random numbers and only log it.
        raise UserError(f"its {part} lacks {len(missing)} tensors (first: {min(missing)}). Copy the folder again.")
    return model.to(device.place).eval().requires_grad_(False)


def _variant(folder: Path, part: str, name: str) -> str | None:
    stem = _WEIGHTS[part]
    if not (folder / part).is_dir():
        raise UserError(f"The base “{name}” is incomplete: its folder {part} is missing.")
    for variant in (None, "fp16"):
        middle = f".{variant}" if variant else ""
        whole, sharded = f"{stem}{middle}.safetensors", f"{stem}.safetensors.index{middle}.json"
        if (folder / part / whole).is_file():
            _check_whole(folder / part / whole, part, name)
            return variant
        if (folder / part / sharded).is_file():
            return variant
    if any(file.suffix in _PICKLES for file in (folder / part).iterdir()):
        raise UserError(
            f"The base “{name}” keeps its {part} as a pickle, which is never opened because it can run programs. "
            "Get the folder with safetensors weights."
        )
    raise UserError(f"The base “{name}” is incomplete: {part}/{stem}.safetensors is missing.")


def _check_whole(path: Path, part: str, name: str) -> None:
    """Refuses a truncated file in words; the libraries say only that its header is wrong."""
    try:
        read_header(path)
    except BrokenFile as error:
        raise UserError(f"The base “{name}” cannot be loaded: of its {part}, {error.message}.") from error


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise UserError(f"The base “{name}” is not where it was: moved, or its drive is offline.") from None
        raise UserError(f"The base “{name}” is not a diffusers folder: {path.name} is missing.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"The base “{name}” cannot be loaded: {path.name} is unreadable ({_short(error)}).") from error
    if not isinstance(value, dict):
        raise UserError(f"The base “{name}” cannot be loaded: {path.name} holds no object.")
    return value


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
