"""The engine: takes a spec, leaves files. Keeps the base, the adapters and the encoded prompts between jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
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
from loravault.engine.draw import HalfMoved, decode, draw_latents, flatness
from loravault.engine.ends import OutOfMemory, Stopped
from loravault.engine.families import Encoded
from loravault.engine.imagefile import SUFFIXES, save_image
from loravault.engine.inscription import chunk_of, infotext_of
from loravault.engine.job import Job, OnPhase, OnStep
from loravault.engine.memory import OFFLOADS, Offload, Thrift, plan
from loravault.engine.offload import attach, rest, tiled
from loravault.engine.prompts import PromptEncoder
from loravault.engine.samplers import check_sampler, make_scheduler
from loravault.engine.tuning import compile_blocks, tune
from loravault.errors import UserError
from loravault.formats.generation import AdapterUse, BaseRef, GenerationSpec
from loravault.formats.outcome import GenerationOutcome, MadeImage, Provenance, StepReport

#: Seconds of silence after which the supervisor may look whether we still live. Generous: a slow disk is no fault.
LOAD_DEADLINE_S = 300.0
STEP_DEADLINE_S = 180.0


@dataclass
class _Loaded:
    """A base in memory and everything that is kept with it."""

    key: Hashable
    base: Base
    offload: Offload
    #: Why it is not compiled although it should be.
    uncompiled: str | None
    patcher: Patcher
    encoder: PromptEncoder
    vaes: VaeShelf
    adapters: AdapterShelf


class Engine:
    """Owner of the device. Not thread-safe; one per process."""

    def __init__(
        self, device: str = "auto", *, dtype: str = "auto", offload: str = "auto", compiled: bool = False
    ) -> None:
        """`offload`: one of `memory.OFFLOADS`. Raises `UserError` for what there is not."""
        for library in (diffusers.utils.logging, transformers.logging):
            logging: Any = library
            logging.set_verbosity_error()
            logging.disable_progress_bar()
        if offload not in OFFLOADS:
            raise UserError(f"There is no way to offload called {offload!r}; use {', '.join(OFFLOADS)}.")
        self._device: Device = choose_device(device, dtype)
        self._compiled = compiled
        self._offload_wish = offload
        self._loaded: _Loaded | None = None
        #: The base for which memory ran out, and what helped.
        self._short: tuple[BaseRef, Offload] | None = None

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
        job = Job(spec, out_dir, stem, origin, originals, on_phase, on_step, cancelled, self._first_plan(spec))
        if self._offload_wish in ("models", "layers") and not self._device.offloads:
            job.warn(f"`offload = {self._offload_wish}` had no effect: it is for NVIDIA cards.")
        while (unused := self._attempt(job)) is None:
            # Not before here has the failed attempt let go of its tensors.
            self._loaded = None
            free_cache(self._device)
        usual = replace(self._first_plan(spec), offload=self._first_offload)
        job.warn(job.thrift.sentence(usual, self._device.name, job.size))
        return GenerationOutcome(
            images=tuple(job.images),
            warnings=tuple(job.warnings),
            seconds=time.perf_counter() - began,
            unused_keys=unused,
            adapter_hashes=job.hashes,
        )

    # ---- when memory runs out

    @property
    def _first_offload(self) -> Offload:
        return OFFLOADS[self._offload_wish] if self._device.offloads else Offload.NONE

    def _first_plan(self, spec: GenerationSpec) -> Thrift:
        """How a job begins; with a base for which memory ran out before, as it went then."""
        helped = self._short[1] if self._short is not None and self._short[0] == spec.base else Offload.NONE
        together = 1
        if spec.width > 0 and spec.height > 0:  # else it will be refused
            together = images_at_once(spec.width, spec.height, on_cpu=self._device.place.type == "cpu")
            together = max(1, min(together, len(spec.seeds)))
        return plan((spec.width, spec.height), together, max(self._first_offload, helped))

    def _thriftier(self, job: Job, error: Exception) -> Thrift | None:
        """What to try next; None if it was not memory that ran out, or nothing is left to try."""
        if not is_out_of_memory(error):
            return None
        movable = self._device.offloads and self._offload_wish != "none"
        return job.thrift.less(job.phase, job.size, Offload.LAYERS if movable else Offload.NONE)

    def _again(self, job: Job, error: Exception) -> bool:
        """Whether the same can be tried again at once, with everything where it is."""
        if isinstance(error, HalfMoved):
            return False
        following = self._thriftier(job, error)
        if following is None or following.offload != job.thrift.offload:
            return False
        job.thrift = following
        return True

    def _attempt(self, job: Job) -> dict[str, int] | None:
        """Everything that is not done yet; None: memory ran out, and there is another way to try."""
        try:
            return self._run(job)
        except (UserError, Stopped):
            raise
        except Exception as error:
            if not is_out_of_memory(error):
                self._loaded = None  # nobody knows in which state it left the base
                raise
            following = self._thriftier(job, error)
            if following is None:
                self._loaded = None
                raise OutOfMemory(
                    f"{self._device.name} has too little memory for one image of {job.size[0]}×{job.size[1]}. "
                    "Choose a smaller size, or close what else uses the device."
                ) from error
            job.thrift = following
            self._short = (job.spec.base, following.offload)
            return None

    # ---- one attempt

    def _run(self, job: Job) -> dict[str, int]:
        """Everything; returns the unused tensors per adapter."""
        spec = job.spec
        _check(spec)
        job.stop_if_asked()
        job.enter("load", LOAD_DEADLINE_S)
        loaded = self._base(spec.base, job.thrift.offload)
        _check_fit(spec, loaded.base)
        job.warn(loaded.uncompiled)
        rest(loaded.base.pipe, loaded.offload)
        job.warn(loaded.vaes.put(spec.vae))
        job.enter("adapters", LOAD_DEADLINE_S)
        strengths = [Strength(self._adapter(job, loaded, use), use.te, use.unet, use.blocks) for use in spec.adapters]
        in_text, _ = loaded.patcher.apply(strengths)
        attach(loaded.base.pipe, loaded.offload, self._device.place)
        job.enter("prompt", LOAD_DEADLINE_S)
        prompt, negative = self._encode(job, loaded, in_text)
        self._draw_all(job, loaded.base, prompt, negative)
        if not job.images:
            raise UserError(" ".join(job.warnings))
        return {name: len(adapter.unused) for name, (_, adapter) in job.adapters.items() if adapter.unused}

    # ---- what is kept between jobs

    def _base(self, ref: BaseRef, offload: Offload) -> _Loaded:
        key = (ref, signature(ref), offload)
        if self._loaded is not None and self._loaded.key == key:
            return self._loaded
        self._loaded = None  # before the next one takes its memory
        free_cache(self._device)
        device = self._device if offload is Offload.NONE else replace(self._device, place=torch.device("cpu"))
        base = load_base(ref, device)
        tune(base, self._device)
        self._loaded = _Loaded(
            key=key,
            base=base,
            offload=offload,
            uncompiled=compile_blocks(base, self._device, offload) if self._compiled else None,
            patcher=Patcher(base.modules),
            encoder=PromptEncoder(base.drawer, base.pipe),
            vaes=VaeShelf(base, device),
            adapters=AdapterShelf(base),
        )
        return self._loaded

    def _adapter(self, job: Job, loaded: _Loaded, use: AdapterUse) -> Adapter:
        job.stop_if_asked()
        adapter = loaded.adapters.get(use)
        job.adapters.setdefault(use.name, (use, adapter))
        job.warn(describe_unused(use.name, adapter, loaded.base))
        if adapter.void:
            job.warn(f"“{use.name}” changes nothing: all its weights are zero.")
        return adapter

    def _encode(self, job: Job, loaded: _Loaded, in_text: State) -> tuple[Encoded, Encoded | None]:
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

    def _draw_all(self, job: Job, base: Base, prompt: Encoded, negative: Encoded | None) -> None:
        spec = job.spec
        while job.done < len(spec.seeds):
            seeds = spec.seeds[job.done : job.done + job.thrift.together]
            try:
                latents = self._draw_batch(job, base, seeds, prompt, negative)
            except Exception as error:
                if not self._again(job, error):
                    raise
                latents = None
            if latents is None:
                free_cache(self._device)  # not in the handler: there the error keeps what could be freed
                continue
            job.enter("decode", STEP_DEADLINE_S)
            for latent in torch.split(latents, 1):
                job.stop_if_asked()
                self._finish(job, self._decode(job, base, latent))

    def _decode(self, job: Job, base: Base, latent: torch.Tensor) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
        while True:
            try:
                with tiled(base.pipe.vae, job.thrift.tile):
                    return decode(base, latent)
            except Exception as error:
                if not self._again(job, error):
                    raise
            free_cache(self._device)  # as above

    def _draw_batch(
        self, job: Job, base: Base, seeds: tuple[int, ...], prompt: Encoded, negative: Encoded | None
    ) -> torch.Tensor:
        spec = job.spec
        job.stop_if_asked()
        job.enter("draw", STEP_DEADLINE_S)

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

    def _finish(self, job: Job, pixels: np.ndarray[Any, np.dtype[np.uint8]] | None) -> None:
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
