"""The engine: takes a spec, leaves files. Keeps the base, the adapters and the encoded prompts between jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image

from loravault.engine.adapters import Adapter, describe_unused
from loravault.engine.apply import Patcher, State, Strength
from loravault.engine.bases import Base, load_base, signature
from loravault.engine.bases.vae import VaeShelf
from loravault.engine.cache import AdapterShelf
from loravault.engine.devices import Device, choose_device, free_cache, images_at_once, is_out_of_memory
from loravault.engine.draw import decode, draw_latents, flatness
from loravault.engine.ends import OutOfMemory, Stopped
from loravault.engine.families import Encoded
from loravault.engine.imagefile import SUFFIXES, save_image
from loravault.engine.inscription import chunk_of, infotext_of
from loravault.engine.prompts import PromptEncoder
from loravault.engine.samplers import check_sampler, make_scheduler
from loravault.errors import UserError
from loravault.formats.generation import AdapterUse, BaseRef, GenerationSpec
from loravault.formats.outcome import AdapterHashes, GenerationOutcome, MadeImage, Provenance, StepReport

#: Seconds of silence after which the supervisor may look whether we still live. Generous: a slow disk is no fault.
LOAD_DEADLINE_S = 300.0
STEP_DEADLINE_S = 180.0

OnPhase = Callable[[str, float], None]
OnStep = Callable[[StepReport], None]


@dataclass
class _Job:
    """One call of `generate`: what was asked, and what it has made and said so far."""

    spec: GenerationSpec
    out_dir: Path
    stem: str
    provenance: Provenance
    originals: Path | None
    on_phase: OnPhase
    on_step: OnStep
    cancelled: Callable[[], bool]
    images: list[MadeImage] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    #: Name → how it is used, and the file.
    adapters: dict[str, tuple[AdapterUse, Adapter]] = field(default_factory=dict)
    #: Seeds that are dealt with, those that gave no image included.
    done: int = 0

    @cached_property
    def hashes(self) -> tuple[AdapterHashes, ...]:
        """Of every adapter. Asked for when a picture is saved: they are computed while it is drawn."""
        return tuple(_hashes(use, adapter) for use, adapter in self.adapters.values())

    def stop_if_asked(self) -> None:
        """Raises `Stopped` if the job was cancelled."""
        if self.cancelled():
            raise Stopped(tuple(self.images))

    def warn(self, sentence: str | None) -> None:
        """Keeps a sentence for the result, once."""
        if sentence and sentence not in self.warnings:
            self.warnings.append(sentence)


@dataclass
class _Loaded:
    """A base in memory and everything that is kept with it."""

    key: Hashable
    base: Base
    patcher: Patcher
    encoder: PromptEncoder
    vaes: VaeShelf
    adapters: AdapterShelf


class Engine:
    """Owner of the device. Not thread-safe; one per process."""

    def __init__(self, device: str = "auto") -> None:
        for library in (diffusers.utils.logging, transformers.logging):
            logging: Any = library
            logging.set_verbosity_error()
            logging.disable_progress_bar()
        self._device: Device = choose_device(device)
        self._loaded: _Loaded | None = None

    def device_name(self) -> str:
        """The device in words."""
        return self._device.name

    def versions(self) -> dict[str, str]:
        """Library name → version."""
        return {
            "torch": str(torch.__version__),
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
        }

    def generate(
        self,
        spec: GenerationSpec,
        out_dir: Path,
        *,
        stem: str = "image",
        provenance: Provenance | None = None,
        originals: Path | None = None,
        on_phase: OnPhase = lambda _name, _deadline_s: None,
        on_step: OnStep = lambda _report: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> GenerationOutcome:
        """Makes one image per seed: `out_dir/<stem>-<n>.<ext>`, n from 1; on return they are durably there.

        Raises `UserError` (a sentence: bad base, adapter or option; every image NaN), `OutOfMemory`, `Stopped`.
        """
        began = time.perf_counter()
        origin = provenance or Provenance(job=stem)
        job = _Job(spec, out_dir, stem, origin, originals, on_phase, on_step, cancelled)
        try:
            unused = self._run(job)
        except (UserError, Stopped):
            raise
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(
                f"{self._device.name} has too little memory for one image of {spec.width}×{spec.height}. "
                "Choose a smaller size, or close what else uses the device."
            ) from error
        return GenerationOutcome(
            images=tuple(job.images),
            warnings=tuple(job.warnings),
            seconds=time.perf_counter() - began,
            unused_keys=unused,
            adapter_hashes=job.hashes,
        )

    def _run(self, job: _Job) -> dict[str, int]:
        """Everything; returns the unused tensors per adapter."""
        spec = job.spec
        _check(spec)
        job.stop_if_asked()
        job.on_phase("load", LOAD_DEADLINE_S)
        loaded = self._base(spec.base)
        _check_fit(spec, loaded.base)
        loaded.vaes.put(spec.vae)
        job.on_phase("adapters", LOAD_DEADLINE_S)
        strengths = [Strength(self._adapter(job, loaded, use), use.te, use.unet) for use in spec.adapters]
        in_text, _ = loaded.patcher.apply(strengths)
        job.on_phase("prompt", LOAD_DEADLINE_S)
        prompt, negative = self._encode(job, loaded, in_text)
        self._draw_all(job, loaded.base, prompt, negative)
        if not job.images:
            raise UserError(" ".join(job.warnings))
        return {name: len(adapter.unused) for name, (_, adapter) in job.adapters.items() if adapter.unused}

    # ---- what is kept between jobs

    def _base(self, ref: BaseRef) -> _Loaded:
        key = (ref, signature(ref))
        if self._loaded is not None and self._loaded.key == key:
            return self._loaded
        self._loaded = None  # before the next one takes its memory
        free_cache(self._device)
        base = load_base(ref, self._device)
        vaes = VaeShelf(base, self._device)
        self._loaded = _Loaded(
            key, base, Patcher(base.modules), PromptEncoder(base.drawer, base.pipe), vaes, AdapterShelf(base)
        )
        return self._loaded

    def _adapter(self, job: _Job, loaded: _Loaded, use: AdapterUse) -> Adapter:
        job.stop_if_asked()
        adapter = loaded.adapters.get(use)
        job.adapters.setdefault(use.name, (use, adapter))
        job.warn(describe_unused(use.name, adapter, loaded.base))
        if adapter.void:
            job.warn(f"“{use.name}” changes nothing: all its weights are zero.")
        return adapter

    def _encode(self, job: _Job, loaded: _Loaded, in_text: State) -> tuple[Encoded, Encoded | None]:
        """Prompt and negative prompt; None for a negative that is not looked at."""
        spec, base = job.spec, loaded.base
        for sentence in base.drawer.ineffective(base.pipe, spec):
            job.warn(sentence)
        guided = base.drawer.guided(base.pipe, spec.cfg)
        for what, text in {"prompt": spec.prompt, "negative prompt": spec.negative if guided else ""}.items():
            if cut := loaded.encoder.cut_off(text):
                job.warn(f"The {what} is too long: {cut}.")
        prompt = loaded.encoder.encode(spec.prompt, spec.clip_skip, in_text)
        if not guided:
            return prompt, None
        return prompt, loaded.encoder.encode(spec.negative, spec.clip_skip, in_text, negative=True)

    # ---- drawing

    def _draw_all(self, job: _Job, base: Base, prompt: Encoded, negative: Encoded | None) -> None:
        spec = job.spec
        together = images_at_once(spec.width, spec.height, on_cpu=self._device.place.type == "cpu")
        while job.done < len(spec.seeds):
            seeds = spec.seeds[job.done : job.done + together]
            try:
                latents = self._draw_batch(job, base, seeds, prompt, negative)
            except Exception as error:
                if together == 1 or not is_out_of_memory(error):
                    raise
                together //= 2
                free_cache(self._device)
                continue
            job.on_phase("decode", STEP_DEADLINE_S)
            for latent in torch.split(latents, 1):
                job.stop_if_asked()
                self._finish(job, decode(base, latent))

    def _draw_batch(
        self, job: _Job, base: Base, seeds: tuple[int, ...], prompt: Encoded, negative: Encoded | None
    ) -> torch.Tensor:
        spec = job.spec
        job.stop_if_asked()
        job.on_phase("draw", STEP_DEADLINE_S)

        def after_step(step: int) -> None:
            report = StepReport(
                image=job.done,
                batch=len(seeds),
                images=len(spec.seeds),
                step=step,
                steps=spec.steps,
                deadline_s=STEP_DEADLINE_S,
            )
            job.on_step(report)
            job.stop_if_asked()

        return draw_latents(
            base,
            self._device,
            make_scheduler(spec.sampler, base.scheduler_config, flow=base.drawer.flow),
            seeds=seeds,
            size=(spec.width, spec.height),
            steps=spec.steps,
            cfg=spec.cfg,
            prompt=prompt,
            negative=negative,
            on_step=after_step,
        )

    def _finish(self, job: _Job, pixels: np.ndarray[Any, np.dtype[np.uint8]] | None) -> None:
        """Saves one image, or says why there is none."""
        spec, index = job.spec, job.done
        job.done += 1
        which = f"Image {index + 1} (seed {spec.seeds[index]})"
        if pixels is None:
            job.warn(
                f"{which} came out as NaN, so nothing was kept of it. Lower the weights of the adapters or cfg, "
                "or try another sampler."
            )
            return
        if flaw := flatness(pixels):
            job.warn(f"{which} is {flaw}. Lower the weights of the adapters or cfg, or take more steps.")
        image = Image.fromarray(pixels)
        path = job.out_dir / f"{job.stem}-{index + 1}.{SUFFIXES[spec.image_format]}"
        infotext = infotext_of(spec, index, job.hashes)
        chunk = chunk_of(spec, index, job.provenance, self.versions())
        try:
            if job.originals is not None:
                original = job.originals / f"{job.stem}-{index + 1}.png"
                save_image(image, original, image_format="png", infotext=infotext, chunk=chunk)
            save_image(image, path, image_format=spec.image_format, infotext=infotext, chunk=chunk)
        except OSError as error:
            raise UserError(f"The picture could not be written: {error.strerror or error}.") from error
        made = MadeImage(path=str(path), index=index, seed=spec.seeds[index], width=spec.width, height=spec.height)
        job.images.append(made)


def _check(spec: GenerationSpec) -> None:
    """What needs no base to be refused; before a gigabyte is loaded."""
    check_sampler(spec.sampler)
    if not spec.seeds or spec.steps < 1:
        raise UserError("A picture needs at least one seed and one step.")
    if spec.image_format not in SUFFIXES:
        raise UserError(f"Pictures are saved as {', '.join(SUFFIXES)}, not as {spec.image_format!r}.")


def _check_fit(spec: GenerationSpec, base: Base) -> None:
    check_sampler(spec.sampler, flow=base.drawer.flow)
    unit = base.pixels_per_latent
    if spec.width < unit or spec.height < unit or spec.width % unit or spec.height % unit:
        raise UserError(f"The size {spec.width}×{spec.height} is not possible: both must be multiples of {unit}.")


def _hashes(use: AdapterUse, adapter: Adapter) -> AdapterHashes:
    known = adapter.hashes
    return AdapterHashes(
        name=use.name,
        weight_id=use.weight_id,
        sha256=known.sha256,
        autov2=known.autov2,
        autov3=known.autov3[:12],
    )
