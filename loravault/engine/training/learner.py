"""What every process of a training does in a step: forward and backward. What becomes of the gradients is others' work.

A batch of a training on several cards is `world` times as long as that of each, and its random numbers are drawn for
the whole of it: two cards come to what one with twice the batch comes to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from loravault.engine.bases import Base
from loravault.engine.devices import Device
from loravault.engine.training import chance
from loravault.engine.training.batch import Batch
from loravault.engine.training.networks import Network
from loravault.engine.training.objectives import Draw, Objective
from loravault.engine.training.reading import read
from loravault.formats.training import TrainingPlan

#: What a plan's precision is.
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Source(Protocol):
    """What steps learn from: `batches.Batches`."""

    def at(self, step: int, micro: int = 0) -> Batch:
        """The pictures of a step; always the same."""

    def held_out(self) -> Iterator[Batch]:
        """The pictures that are measured with."""


class Echo(Protocol):
    """What is held to the base: `echoes.Echoes`."""

    def at(self, step: int, micro: int, batch: Batch) -> Batch | None:
        """Pictures of a batch with other captions."""


class Learner:
    """One process of a training. The network is attached to the base all the time."""

    def __init__(
        self,
        *,
        base: Base,
        network: Network,
        objective: Objective,
        source: Source,
        plan: TrainingPlan,
        device: Device,
        echoes: Echo | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """`echoes` says what is held to the base; `source` gives the batches of this `rank` of `world` processes."""
        self._base, self._network, self._objective, self._source = base, network, objective, source
        self._plan, self._device, self._echoes = plan, device, echoes
        self._rank, self._world = rank, world
        self._parameters = [one for some in network.parameters().values() for one in some]
        dtype = PRECISIONS[plan.precision]
        # A base that stays in fp32 (on a processor) still computes in half, if that is the plan.
        self._cast = torch.autocast(device.place.type, dtype, enabled=dtype != base.denoiser.dtype)
        #: Slices that each batch is worked off in.
        self._pieces = 1
        self._checkpointing = False
        if plan.checkpointing:
            self._compute_twice()

    @property
    def numbers(self) -> int:
        """How many numbers are learned."""
        return sum(one.numel() for one in self._parameters)

    def _learn(self, number: int, scaled: Callable[[Tensor], Tensor]) -> Tensor:
        """Adds the gradients of step `number` to the parameters; returns the loss, still on the device."""
        plan = self._plan
        self._network.step_begins(chance.generator(plan.seed, number, purpose="network"))
        total = torch.zeros((), device=self._device.place)
        for micro in range(plan.accumulation):
            batch = self._source.at(number, micro)
            draw = self._drawn(batch, chance.generator(plan.seed, number, micro, purpose="noise"))
            count = len(batch) * plan.accumulation
            for pictures in self._slices(len(batch)):
                loss = self._loss(batch.part(pictures), draw.part(pictures)) / count
                self._note_memory()
                scaled(loss).backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
            if self._echoes is not None and (echo := self._echoes.at(number, micro, batch)) is not None:
                self._hold(echo, number, micro, count, scaled)
        return total

    def _drawn(self, batch: Batch, generator: torch.Generator) -> Draw:
        """The random numbers of our part of the batch of all."""
        own = len(batch)
        together = batch.latents.new_empty((own * self._world, *batch.latents.shape[1:]))
        return self._objective.draw(together, generator).part(slice(self._rank * own, (self._rank + 1) * own))

    def _note_memory(self) -> None:
        """Between forward and backward a process is at its largest."""

    def _slices(self, pictures: int) -> list[slice]:
        size = math.ceil(pictures / self._pieces)
        return [slice(start, start + size) for start in range(0, pictures, size)]

    def _loss(self, batch: Batch, draw: Draw) -> Tensor:
        place = self._device.place
        there = batch.to(place)
        with self._cast:
            texts = read(self._base, there, self._plan.clip_skip)
            return self._objective.loss(there, texts, draw.to(place))

    def _hold(self, echo: Batch, number: int, micro: int, count: int, scaled: Callable[[Tensor], Tensor]) -> None:
        """To what the base alone says of these pictures. Not part of the loss that is told."""
        others = (
            (self._rank,) if self._rank else ()
        )  # as many are looked at again on each card, each with its own noise
        generator = chance.generator(self._plan.seed, number, micro, *others, purpose="echo")
        draw = self._objective.draw(echo.latents, generator)
        for pictures in self._slices(len(echo)):
            there, noise = echo.part(pictures).to(self._device.place), draw.part(pictures).to(self._device.place)
            with self._cast:
                with torch.no_grad(), self._network.without():
                    wanted = self._objective.said(there, read(self._base, there, self._plan.clip_skip), noise)
                texts = read(self._base, there, self._plan.clip_skip)
                errors = self._objective.errors(there, texts, noise, weighted=True, wanted=wanted)
            scaled(errors.sum() / count).backward()  # type: ignore[no-untyped-call]

    def _compute_twice(self) -> bool:
        enable = getattr(self._base.denoiser, "enable_gradient_checkpointing", None)
        if enable is None:
            return False
        enable()
        self._checkpointing = True
        return True
