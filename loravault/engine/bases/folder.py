"""Loading a diffusers folder of any family that is drawn with, offline and without a pickle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers

from loravault.engine.bases.base import Base, make_base
from loravault.engine.bases.parts import load_model, load_tokenizer, read_json
from loravault.engine.devices import Device
from loravault.engine.families import FAMILIES, Family
from loravault.errors import UserError
from loravault.formats.generation import BaseRef


def load_folder(ref: BaseRef, device: Device) -> Base:
    """Reads the folder and moves the models to the device. Raises `UserError` with what is wrong with the folder."""
    folder = Path(ref.path)
    index = read_json(folder / "model_index.json", ref.name)
    drawer = drawer_of(str(index.get("_class_name")), ref.name)
    device = replace(device, dtype=drawer.precision(device.dtype))
    scheduler_config = read_json(folder / "scheduler" / "scheduler_config.json", ref.name)
    loaded: dict[str, Any] = {}
    for name, part in drawer.parts.items():
        if part.optional and not (folder / name).is_dir():
            loaded[name] = None
        elif part.library == "tokenizer":
            loaded[name] = load_tokenizer(part, folder / name, ref.name)
        else:
            loaded[name] = load_model(part, folder, name, ref.name, device)
    settings = {key: index.get(key, value) for key, value in drawer.settings.items()}
    return make_base(ref.name, ref.family, make_pipe(drawer, loaded, settings, ref.name), scheduler_config)


def drawer_of(pipeline: str, base: str) -> Family:
    """How a pipeline of this class is used. Raises `UserError` for a class we do not draw with."""
    if pipeline not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise UserError(f"The base “{base}” is a {pipeline}; this version draws with {known}.")
    return FAMILIES[pipeline]


def make_pipe(drawer: Family, loaded: dict[str, Any], settings: dict[str, Any], base: str) -> Any:
    """The pipeline around its parts. Raises `UserError` for a base that fills in pictures instead of making them."""
    if drawer.denoiser == "unet":
        reads, writes = loaded["unet"].config.in_channels, loaded["vae"].config.latent_channels
        if reads != writes:
            raise UserError(
                f"The base “{base}” is for inpainting or another use that begins with a picture "
                f"(its UNet reads {reads} channels, not {writes}); it cannot make one from words alone."
            )
    # A placeholder; every job brings its own.
    scheduler: Any = diffusers.FlowMatchEulerDiscreteScheduler if drawer.flow else diffusers.DDIMScheduler
    settings = dict(settings)
    if drawer.pipeline == "StableDiffusionPipeline":
        settings |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if drawer.pipeline == "StableDiffusionXLPipeline":
        settings["add_watermarker"] = False
    made = scheduler() if drawer.flow else scheduler(clip_sample=False, steps_offset=1)
    return getattr(diffusers, drawer.pipeline)(**loaded, scheduler=made, **settings)
