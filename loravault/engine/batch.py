"""Jobs whose pictures are drawn together: which pictures go into the next call, and what becomes of each job."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from loravault.engine.appliers import Applier, Stack
from loravault.engine.bases import Base
from loravault.engine.devices import Device, StopWatch, free_cache, is_out_of_memory
from loravault.engine.draw import HalfMoved, decode, draw_latents
from loravault.engine.families import Family
from loravault.engine.job import Job
from loravault.engine.memory import Offload, Thrift
from loravault.engine.modes import Calls
from loravault.engine.offload import tiled
from loravault.engine.samplers import make_scheduler
from loravault.engine.saving import keep
from loravault.errors import UserError
from loravault.formats.generation import GenerationSpec
from loravault.formats.outcome import StepReport

#: Seconds of silence after which the supervisor may look whether we still live. Generous: a slow disk is no fault.
STEP_DEADLINE_S = 180.0


class Apart(Exception):  # noqa: N818 - only another order of work
    """The jobs have different adapters and cannot be worked on together after all."""


class NobodyLeft(Exception):  # noqa: N818 - being asked to stop is not an error
    """Every job that is worked on was cancelled."""


@dataclass
class Batch:
    """Some jobs of one mark (`formats.grouping`). Each ends for itself, whatever becomes of the others."""

    jobs: Sequence[Job]
    #: How memory is saved now.
    thrift: Thrift
    #: The strongest way to offload that may be tried.
    most: Offload
    #: What is being done, as the jobs were told, and for which of them.
    phase: str = "load"
    at: Sequence[Job] = ()

    @property
    def live(self) -> list[Job]:
        """The jobs that have no end yet."""
        return [job for job in self.jobs if not job.ended]

    @property
    def spec(self) -> GenerationSpec:
        """For what is the same in all of them."""
        return self.jobs[0].spec

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.spec.width, self.spec.height

    def enter(self, phase: str, deadline_s: float, jobs: Sequence[Job] | None = None) -> None:
        """Says what is done next, and for which jobs: all that live if not told otherwise."""
        self.phase, self.at = phase, self.live if jobs is None else jobs
        for job in self.at:
            job.wish.on_phase(phase, deadline_s)

    def stop_if_asked(self) -> None:
        """Ends those that were cancelled. Raises `NobodyLeft` if none is left of those that are worked on."""
        ended = [job.stop_if_asked() for job in self.at or self.live]
        if all(ended):
            raise NobodyLeft

    def each(self, action: Callable[[Job], None]) -> None:
        """For every job that lives; a `UserError` ends that one. Raises `NobodyLeft`."""
        for job in self.live:
            if job.stop_if_asked():
                continue
            try:
                action(job)
            except UserError as error:
                job.end(error)
        if not self.live:
            raise NobodyLeft

    def warn(self, sentence: str | None) -> None:
        """Keeps a sentence for the result of every job that lives."""
        for job in self.live:
            job.warn(sentence)

    # ---- when memory runs out

    def thriftier(self, error: Exception) -> Thrift | None:
        """What to try next; None if it was not memory that ran out, or nothing is left to try."""
        return self.thrift.less(self.phase, self.size, self.most) if is_out_of_memory(error) else None

    def again(self, error: Exception) -> bool:
        """Whether the same can be tried again at once, with everything where it is."""
        if isinstance(error, HalfMoved):
            return False
        following = self.thriftier(error)
        if following is None or following.offload != self.thrift.offload:
            return False
        self.thrift = following
        return True


@dataclass(frozen=True)
class Sample:
    """One picture of one job."""

    job: Job
    seed: int


class Drawing:
    """Draws a batch whose jobs have their prompts read."""

    def __init__(  # noqa: PLR0917
        self, batch: Batch, base: Base, device: Device, applier: Applier, versions: Mapping[str, str], finish: Finish
    ) -> None:
        """`finish` ends a job all of whose seeds are dealt with."""
        self._batch = batch
        self._base = base
        self._device = device
        self._applier = applier
        self._versions = versions
        self._finish = finish
        #: Combinations of adapters that are drawn in one call though they differ.
        self._mixed = self._which_mix()

    def run(self) -> None:
        """Until every job has its end."""
        batch = self._batch
        while samples := self._next():
            latents = None
            try:
                latents = self._draw(samples)
            except NobodyLeft:
                continue
            except Exception as error:
                if not batch.again(error):
                    raise
            if latents is None:
                free_cache(self._device)  # not in the handler: there the error keeps what could be freed
                continue
            for sample, latent in zip(samples, torch.split(latents, 1), strict=True):
                self._keep(sample.job, latent)

    def _next(self) -> list[Sample]:
        """The pictures of the next call, in the order of the jobs; those whose prompts do not go together wait."""
        batch, drawer = self._batch, self._base.drawer
        pending = (
            Sample(job, seed) for job in batch.live if not job.stop_if_asked() for seed in job.spec.seeds[job.done :]
        )
        first = next(pending, None)
        if first is None:
            return []
        fitting = (
            one for one in pending if _go_together(drawer, first.job, one.job) and self._may_mix(first.job, one.job)
        )
        return [first, *islice(fitting, batch.thrift.together - 1)]

    def _which_mix(self) -> list[Stack]:
        """Those that are faster in common calls."""
        pictures: list[tuple[Stack, int]] = []
        found = _each_once([job.stack for job in self._batch.live])
        for stack in found if len(found) > 1 else ():
            if self._applier.mixable([stack]):
                own = [job for job in self._batch.live if job.stack == stack]
                pictures.append((stack, sum(len(job.spec.seeds) - job.done for job in own)))
        stacks, counts = [stack for stack, _ in pictures], [count for _, count in pictures]
        if len(stacks) < 2:
            return []
        apart, together = [self._calls(count) for count in counts], [self._calls(sum(counts))]
        return stacks if self._applier.pays_together(stacks, apart, together) else []

    def _may_mix(self, one: Job, other: Job) -> bool:
        return one.stack == other.stack or (one.stack in self._mixed and other.stack in self._mixed)

    def _calls(self, pictures: int) -> Calls:
        """For so many pictures."""
        spec, together = self._batch.spec, max(1, min(pictures, self._batch.thrift.together))
        return Calls(spec.steps * -(-pictures // together), spec.width * spec.height, together)

    def _apply(self, samples: Sequence[Sample]) -> bool:
        """Has the adapters of these in effect. False: those of a job cannot be, or not so: choose anew."""
        if self._batch.thrift.offload is not Offload.NONE:  # they are; what is attached may not be changed
            return True
        stacks = [sample.job.stack for sample in samples]
        left = sum(
            len(job.spec.seeds) - job.done for job in self._batch.live if any(job.stack == stack for stack in stacks)
        )
        try:
            self._applier.for_pictures(stacks, self._calls(left))
        except UserError as error:
            if len(_each_once(stacks)) > 1:
                self._mixed = []  # each with its own, so that only whose fault it is fails
            else:
                for job in {sample.job: None for sample in samples}:
                    job.end(error)
            return False
        except Exception as error:
            if len(_each_once(stacks)) == 1 or not is_out_of_memory(error):
                raise
            self._mixed = []  # there is no room for all of them in slots
            return False
        return True

    def _draw(self, samples: Sequence[Sample]) -> torch.Tensor | None:
        """Their latents; None: they have to be chosen anew."""
        batch, base, spec = self._batch, self._base, self._batch.spec
        jobs = list(dict.fromkeys(sample.job for sample in samples))
        if not self._apply(samples):
            return None
        batch.enter("draw", STEP_DEADLINE_S, jobs)
        counts = {job: sum(sample.job is job for sample in samples) for job in jobs}
        watch = StopWatch(self._device)

        def after_step(step: int) -> None:
            watch.step()
            for job, count in counts.items():
                if not job.ended:
                    job.wish.on_step(_report(job, count, step))
            batch.stop_if_asked()

        negatives = [sample.job.negative for sample in samples]
        drawn = draw_latents(
            base,
            self._device,
            make_scheduler(spec.sampler, base.scheduler_config, flow=base.drawer.flow),
            seeds=[sample.seed for sample in samples],
            size=batch.size,
            steps=spec.steps,
            cfg=spec.cfg,
            prompt=base.drawer.joined([_there(sample.job.prompt) for sample in samples]),
            negative=None if negatives[0] is None else base.drawer.joined([_there(one) for one in negatives]),
            on_step=after_step,
        )
        calls = Calls(watch.steps, spec.width * spec.height, len(samples))
        self._applier.drawn(calls, watch.step_s(), [sample.job.stack for sample in samples])
        return drawn

    def _keep(self, job: Job, latent: torch.Tensor) -> None:
        """Decodes and saves one picture; one of a job that has ended meanwhile is let go."""
        if job.stop_if_asked():
            return
        if self._batch.phase != "decode" or job not in self._batch.at:
            self._batch.enter("decode", STEP_DEADLINE_S, [job])
        pixels = self._decode(latent)
        try:
            keep(job, pixels, self._versions)
        except UserError as error:
            job.end(error)
            return
        if job.done == len(job.spec.seeds):
            self._finish(job, time.perf_counter())

    def _decode(self, latent: torch.Tensor) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
        while True:
            try:
                with tiled(self._base.pipe.vae, self._batch.thrift.tile):
                    return decode(self._base, latent)
            except Exception as error:
                if not self._batch.again(error):
                    raise
            free_cache(self._device)  # as above


def _each_once(stacks: Sequence[Stack]) -> list[Stack]:
    return [stack for number, stack in enumerate(stacks) if stack not in stacks[:number]]


#: Ends a job that has dealt with all its seeds, at this time (`time.perf_counter`).
Finish = Callable[[Job, float], None]


def _there(encoded: Any) -> Any:
    assert encoded is not None
    return encoded


def _go_together(drawer: Family, one: Job, other: Job) -> bool:
    if one is other:
        return True
    fits = drawer.goes_with(_there(one.prompt), _there(other.prompt))
    return fits and (one.negative is None or drawer.goes_with(one.negative, _there(other.negative)))


def _report(job: Job, count: int, step: int) -> StepReport:
    spec = job.spec
    return StepReport(
        image=job.done,
        batch=count,
        images=len(spec.seeds),
        step=step,
        steps=spec.steps,
        deadline_s=STEP_DEADLINE_S,
    )
