"""The engine: takes specs, leaves files. Keeps the base, the adapters and the encoded prompts between jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from loravault.engine.ahead import ReadingAhead
from loravault.engine.appliers import Applier
from loravault.engine.bases import Base, load_base, signature
from loravault.engine.bases.vae import VaeShelf
from loravault.engine.batch import Apart, Batch, Drawing, NobodyLeft
from loravault.engine.cache import LIMIT, AdapterShelf
from loravault.engine.devices import Device, choose_device, free_cache, images_at_once, is_out_of_memory
from loravault.engine.ends import OutOfMemory
from loravault.engine.imagefile import SUFFIXES
from loravault.engine.job import Job, OnPhase, OnStep
from loravault.engine.lesson import Lesson
from loravault.engine.loaded import Loaded
from loravault.engine.memory import OFFLOADS, Offload, Thrift, plan
from loravault.engine.modes import WISHES, Calls
from loravault.engine.offload import attach, rest
from loravault.engine.prompts import PromptEncoder
from loravault.engine.samplers import check_sampler
from loravault.engine.tuning import compile_blocks, tune
from loravault.engine.wish import End, Wish
from loravault.errors import UserError
from loravault.formats.generation import BaseRef, GenerationSpec
from loravault.formats.grouping import drawing_of, mark_of
from loravault.formats.outcome import GenerationOutcome, Provenance
from loravault.formats.training import TrainingOutcome

#: Seconds of silence after which the supervisor may look whether we still live. Generous: a slow disk is no fault.
LOAD_DEADLINE_S = 300.0


class Engine:
    """Owner of the device. Not thread-safe; one per process."""

    def __init__(
        self,
        device: str = "auto",
        *,
        dtype: str = "auto",
        offload: str = "auto",
        compiled: bool = False,
        adapters: str = "auto",
        adapter_bytes: int = LIMIT,
    ) -> None:
        """`offload`: one of `memory.OFFLOADS`; `adapters`: one of `modes.WISHES`. Raises `UserError` for others.

        `adapter_bytes`: what adapters that were read may take.
        """
        for library in (diffusers.utils.logging, transformers.logging):
            logging: Any = library
            logging.set_verbosity_error()
            logging.disable_progress_bar()
        if offload not in OFFLOADS:
            raise UserError(f"There is no way to offload called {offload!r}; use {', '.join(OFFLOADS)}.")
        if adapters not in WISHES:
            raise UserError(f"`adapters` cannot be {adapters!r}; use {', '.join(WISHES)}.")
        self._adapters_wish, self._adapter_bytes = adapters, adapter_bytes
        self._device: Device = choose_device(device, dtype)
        self._compiled = compiled
        self._offload_wish = offload
        self._loaded: Loaded | None = None
        #: What is expected next, and who reads its adapters meanwhile.
        self._expected: tuple[GenerationSpec, ...] = ()
        self._ahead = ReadingAhead()
        #: The base for which memory ran out, and what helped.
        self._short: tuple[BaseRef, Offload] | None = None

    def device_name(self) -> str:
        """The device in words."""
        return self._device.name

    def cards(self) -> int:
        """NVIDIA cards that can be used, its own included; 0 if it draws on something else."""
        return torch.cuda.device_count() if self._device.place.type == "cuda" else 0

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
        ends: list[End] = []
        wish = Wish(
            spec=spec,
            out_dir=out_dir,
            stem=stem,
            provenance=provenance or Provenance(job=stem),
            originals=originals,
            on_phase=on_phase,
            on_step=on_step,
            cancelled=cancelled,
            on_end=ends.append,
        )
        self.generate_together([wish])
        end = ends[0]
        if isinstance(end, Exception):
            raise end
        return end

    def generate_together(self, wishes: Sequence[Wish]) -> None:
        """Makes the pictures of jobs of one mark (`mark_of`).

        Each is told its own end by `on_end`, as soon as it has one: its pictures durably there, or what `generate`
        raises. One that fails or is cancelled leaves the others to go on.
        """
        now = time.perf_counter()
        batch = self._batch([Job(wish, now) for wish in wishes])
        if self._offload_wish in ("models", "layers") and not self._device.offloads:
            batch.warn(f"`offload = {self._offload_wish}` had no effect: it is for NVIDIA cards.")
        self._serve(batch)

    def expect(self, specs: Sequence[GenerationSpec]) -> None:
        """These are likely to be asked for next, in this order: their adapters are read while pictures are drawn.

        Returns at once; may be called from another thread.
        """
        self._expected = tuple(specs)
        self._read_ahead()

    def _read_ahead(self) -> None:
        loaded = self._loaded
        if loaded is not None and loaded.drawing:
            ref = loaded.ref
            uses = [use for spec in self._expected if spec.base == ref for use in spec.adapters]
            self._ahead.want(loaded.adapters, dict.fromkeys(uses))

    def _unload(self) -> None:
        """Lets go of the base, before the next one takes its memory."""
        self._ahead.forget()
        self._loaded = None
        free_cache(self._device)

    def train(self, lesson: Lesson) -> TrainingOutcome:
        """Trains an adapter. Raises `UserError`, `OutOfMemory`, `Stopped`, `Paused`."""
        from loravault.engine.training.trainer import train  # noqa: PLC0415 - most workers never train

        self._unload()
        return train(
            lesson.spec,
            lesson.out_dir,
            device=self._device,
            on_phase=lesson.on_phase,
            on_prepared=lesson.on_prepared,
            on_step=lesson.on_step,
            cancelled=lesson.cancelled,
            paused=lesson.paused,
            generate=partial(self._sample, lesson),
        )

    def _sample(self, lesson: Lesson, spec: GenerationSpec, folder: Path, stem: str) -> GenerationOutcome:
        """Pictures of a training, by the way every picture is made: they stand for the adapter that is in them."""
        adapter = spec.adapters[-1].weight_id if spec.adapters else ""
        origin = replace(lesson.provenance, stands_for=adapter)
        return self.generate(
            spec, folder, stem=stem, provenance=origin, on_phase=lesson.on_phase, cancelled=lesson.cancelled
        )

    def pictures_at_once(self, spec: GenerationSpec) -> int:
        """How many pictures of this kind are denoised at the same time, as far as memory is known to bear it."""
        if spec.width <= 0 or spec.height <= 0:  # it will be refused
            return 1
        return images_at_once(spec.width, spec.height, on_cpu=self._device.place.type == "cpu")

    def mark_of(self, spec: GenerationSpec) -> Hashable:
        """Jobs of one mark can be worked on together: with other adapters too, where they need not be merged."""
        offloaded = self._first_plan(spec, 1).offload is not Offload.NONE
        if self._adapters_wish == "merge" or self._compiled or offloaded:
            return mark_of(spec)
        return drawing_of(spec)

    def _batch(self, jobs: Sequence[Job]) -> Batch:
        spec, movable = jobs[0].spec, self._device.offloads and self._offload_wish != "none"
        wanted = sum(len(job.spec.seeds) - job.done for job in jobs)
        return Batch(jobs, self._first_plan(spec, wanted), Offload.LAYERS if movable else Offload.NONE)

    def _serve(self, batch: Batch) -> None:
        while not self._attempt(batch):
            self._unload()  # not before here has the failed attempt let go of its tensors
        if batch.live:  # what went wrong is the fault of one of them: each alone
            for job in batch.live:
                self._serve(self._batch([job]))

    # ---- when memory runs out

    @property
    def _first_offload(self) -> Offload:
        return OFFLOADS[self._offload_wish] if self._device.offloads else Offload.NONE

    def _first_plan(self, spec: GenerationSpec, pictures: int) -> Thrift:
        """How jobs begin; with a base for which memory ran out before, as it went then."""
        helped = self._short[1] if self._short is not None and self._short[0] == spec.base else Offload.NONE
        together = max(1, min(self.pictures_at_once(spec), pictures))
        return plan((spec.width, spec.height), together, max(self._first_offload, helped))

    def _attempt(self, batch: Batch) -> bool:
        """Everything that is not done yet. False: memory ran out, and there is another way to try."""
        try:
            self._run(batch)
        except (NobodyLeft, Apart):
            pass
        except UserError as error:  # of the base, which is the same for all
            for job in batch.live:
                job.end(error)
        except Exception as error:
            if is_out_of_memory(error):
                return self._is_over_after(batch, error)
            self._loaded = None  # nobody knows in which state it left the base
            if len(batch.live) == 1:
                batch.live[0].end(error)
        return True

    def _is_over_after(self, batch: Batch, error: Exception) -> bool:
        """Memory ran out. If nothing is left to try, those that are worked on have failed, and the others go on."""
        following = batch.thriftier(error)
        if following is None:
            told = OutOfMemory(
                f"{self._device.name} has too little memory for one image of {batch.size[0]}×{batch.size[1]}. "
                "Choose a smaller size, or close what else uses the device."
            )
            for job in [job for job in batch.at if not job.ended] or batch.live:
                job.end(told)
            self._loaded = None
            return not batch.live
        batch.thrift = following
        self._short = (batch.spec.base, following.offload)
        return False

    # ---- one attempt

    def _run(self, batch: Batch) -> None:
        """Everything that the jobs still lack."""
        spec = batch.spec
        batch.each(lambda job: _check(job.spec))
        batch.enter("load", LOAD_DEADLINE_S)
        loaded = self._base(spec.base, batch.thrift.offload)
        batch.each(lambda job: _check_fit(job.spec, loaded.base))
        batch.warn(loaded.uncompiled)
        rest(loaded.base.pipe, loaded.offload)
        batch.warn(loaded.vaes.put(spec.vae))
        loaded.drawing = False
        batch.enter("LoRAs", LOAD_DEADLINE_S)
        batch.each(loaded.read)
        # Before anything is attached: what goes to the card is a copy of what rests in ordinary memory.
        if loaded.offload is not Offload.NONE:
            self._apply_first(batch, loaded)
        attach(loaded.base.pipe, loaded.offload, self._device.place)
        batch.enter("prompt", LOAD_DEADLINE_S)
        batch.each(loaded.encode)
        loaded.adapters.hold(one.adapter.key for job in batch.live for one in job.stack)
        loaded.drawing = True
        self._read_ahead()
        Drawing(
            batch,
            loaded.base,
            self._device,
            loaded.applier,
            self.versions(),
            lambda job, now: self._finish(batch, job, now),
        ).run()

    def _apply_first(self, batch: Batch, loaded: Loaded) -> None:
        """All of one combination. Raises `Apart` if there are several: they would change what is attached."""
        stack, spec = batch.live[0].stack, batch.spec
        if any(job.stack != stack for job in batch.live):
            raise Apart
        pictures = sum(len(job.spec.seeds) - job.done for job in batch.live)
        calls = -(-pictures // batch.thrift.together) * spec.steps
        loaded.applier.for_text(stack)
        loaded.applier.for_pictures([stack], Calls(calls, spec.width * spec.height, batch.thrift.together))

    def _finish(self, batch: Batch, job: Job, now: float) -> None:
        usual = replace(self._first_plan(job.spec, len(job.spec.seeds)), offload=self._first_offload)
        job.warn(batch.thrift.sentence(usual, self._device.name, batch.size))
        job.finish(now)

    # ---- what is kept between jobs

    def _base(self, ref: BaseRef, offload: Offload) -> Loaded:
        key = (ref, signature(ref), offload)
        if self._loaded is not None and self._loaded.key == key:
            return self._loaded
        self._unload()
        device = self._device if offload is Offload.NONE else replace(self._device, place=torch.device("cpu"))
        base = load_base(ref, device)
        tune(base, self._device)
        uncompiled = compile_blocks(base, self._device, offload) if self._compiled else None
        self._loaded = Loaded(
            key=key,
            ref=ref,
            base=base,
            offload=offload,
            uncompiled=uncompiled,
            # Slots are where the denoiser works, wherever its weights wait.
            applier=Applier(
                base, self._device, wish=self._adapters_wish, beside=not self._compiled or uncompiled is not None
            ),
            encoder=PromptEncoder(base.drawer, base.pipe),
            vaes=VaeShelf(base, device),
            adapters=AdapterShelf(base, self._adapter_bytes),
        )
        return self._loaded


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
