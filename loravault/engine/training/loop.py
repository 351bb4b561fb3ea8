"""The steps of a training: forward, backward, and everything that can go wrong between the two.

Step n is a pure function of the plan, the seed, n and what the steps before it have learned: pictures, captions, noise
and times are drawn by counters. So a training that goes on from a state comes to the same numbers as one that was
never interrupted, on a CPU bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from loravault.engine.bases import Base
from loravault.engine.devices import Device, free_cache, is_out_of_memory
from loravault.engine.ends import OutOfMemory
from loravault.engine.training import chance
from loravault.engine.training.average import Average
from loravault.engine.training.batch import Batch
from loravault.engine.training.checkpoints import State, load_optimizer_state, optimizer_state
from loravault.engine.training.networks import Network
from loravault.engine.training.objectives import Draw, Objective
from loravault.engine.training.optimizers import make_optimizer, set_rates
from loravault.engine.training.reading import read
from loravault.engine.training.schedules import factor
from loravault.errors import UserError
from loravault.formats.training import TrainingPlan
from loravault.osdep import rss_bytes

#: Steps between two looks at what a card has computed: each look waits for it.
LOOK = 10
#: Steps in a row whose gradients are no numbers before a training ends; fp16 searches its scale that way.
PATIENCE, PATIENCE_FP16 = 3, 20
#: What a plan's precision is.
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
#: Shares of noise at which held-out pictures are measured.
MEASURED = (0.125, 0.375, 0.625, 0.875)
#: How much an earlier loss still counts in the smoothed one, for each step.
SMOOTH = 0.98


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


class Diverged(UserError):  # noqa: N818 - a state, like `Stopped`
    """What is learned is no longer a number; the sentence says what to do."""


@dataclass
class History:
    """What a training has to tell about itself."""

    #: Of step 1, 2, …; NaN for a step that was left out.
    losses: list[float] = field(default_factory=list)
    #: (steps done, error of the held-out pictures).
    validation: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0
    peak_bytes: int = 0
    warnings: list[str] = field(default_factory=list)

    def smoothed(self) -> float:
        """The loss as a person wants to see it; NaN before the first step."""
        total = weight = 0.0
        for loss in self.losses[-400:]:
            if math.isfinite(loss):
                total, weight = SMOOTH * total + loss, SMOOTH * weight + 1
        return total / weight if weight else math.nan

    def warn(self, sentence: str | None) -> None:
        """Keeps a sentence, once."""
        if sentence and sentence not in self.warnings:
            self.warnings.append(sentence)


class Loop:
    """One training on its way. The network is attached to the base all the time."""

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
        share_gradients: Callable[[list[Any]], None] | None = None,
    ) -> None:
        """`echoes` says what is held to the base, `share_gradients` averages gradients with other processes.

        Raises `UserError` (see `make_optimizer`).
        """
        self._base, self._network, self._objective, self._source = base, network, objective, source
        self._plan, self._device, self._share, self._echoes = plan, device, share_gradients, echoes
        self.step = 0
        self.history = History()
        parameters = network.parameters()
        self._parameters = [one for some in parameters.values() for one in some]
        self._optimizer, said = make_optimizer(plan, parameters, device.place)
        self.history.warn(said)
        self._average = Average(self._parameters, plan.ema) if plan.ema else None
        self._scaler = torch.amp.GradScaler(device.place.type, enabled=plan.precision == "fp16")
        dtype = PRECISIONS[plan.precision]
        # A base that stays in fp32 (on a processor) still computes in half, if that is the plan.
        self._cast = torch.autocast(device.place.type, dtype, enabled=dtype != base.denoiser.dtype)
        self._patience = PATIENCE_FP16 if plan.precision == "fp16" else PATIENCE
        self._bad = torch.zeros((), device=device.place)
        self._recent: list[Tensor] = []
        #: Slices that each batch is worked off in.
        self._pieces = 1
        self._checkpointing = False
        if plan.checkpointing:
            self._compute_twice()
        if device.place.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device.place)

    @property
    def learning_rate(self) -> float:
        """Of the denoiser in the latest step."""
        return float(self._optimizer.param_groups[0]["lr"])

    # ---- one step

    def advance(self) -> None:
        """One step. Raises `Diverged` or `OutOfMemory`; what was learned before it is still whole."""
        began = time.perf_counter()
        while not self._attempt():
            free_cache(self._device)  # not in the handler: there the error keeps what could be freed
        self.step += 1
        if self._average is not None:
            self._average.update(self.step)
        if self._device.place.type == "cpu" or len(self._recent) >= LOOK:
            self.look()
        self.history.seconds += time.perf_counter() - began

    def _attempt(self) -> bool:
        """False: memory ran out, and there is another way to try."""
        try:
            self._try()
        except Exception as error:
            self._recent = self._recent[: self.step - len(self.history.losses)]
            self._optimizer.zero_grad(set_to_none=True)
            if not is_out_of_memory(error):
                raise
            if not self._thriftier():
                raise OutOfMemory(self._too_little()) from error
            return False
        return True

    def _try(self) -> None:
        plan, number = self._plan, self.step
        self._network.step_begins(chance.generator(plan.seed, number, purpose="network"))
        set_rates(self._optimizer, factor(number, plan.steps, plan.schedule, plan.warmup))
        total = torch.zeros((), device=self._device.place)
        for micro in range(plan.accumulation):
            batch = self._source.at(number, micro)
            draw = self._objective.draw(batch.latents, chance.generator(plan.seed, number, micro, purpose="noise"))
            count = len(batch) * plan.accumulation
            for pictures in self._slices(len(batch)):
                loss = self._loss(batch.part(pictures), draw.part(pictures)) / count
                self._note_memory()
                self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
            if self._echoes is not None and (echo := self._echoes.at(number, micro, batch)) is not None:
                self._hold(echo, micro, count)
        self._recent.append(total)
        self._update()

    def _slices(self, pictures: int) -> list[slice]:
        size = math.ceil(pictures / self._pieces)
        return [slice(start, start + size) for start in range(0, pictures, size)]

    def _loss(self, batch: Batch, draw: Draw) -> Tensor:
        place = self._device.place
        there = batch.to(place)
        with self._cast:
            texts = read(self._base, there, self._plan.clip_skip)
            return self._objective.loss(there, texts, draw.to(place))

    def _hold(self, echo: Batch, micro: int, count: int) -> None:
        """To what the base alone says of these pictures. Not part of the loss that is told."""
        generator = chance.generator(self._plan.seed, self.step, micro, purpose="echo")
        draw = self._objective.draw(echo.latents, generator)
        for pictures in self._slices(len(echo)):
            there, noise = echo.part(pictures).to(self._device.place), draw.part(pictures).to(self._device.place)
            with self._cast:
                with torch.no_grad(), self._network.without():
                    wanted = self._objective.said(there, read(self._base, there, self._plan.clip_skip), noise)
                texts = read(self._base, there, self._plan.clip_skip)
                errors = self._objective.errors(there, texts, noise, weighted=True, wanted=wanted)
            self._scaler.scale(errors.sum() / count).backward()  # type: ignore[no-untyped-call]

    def _update(self) -> None:
        """Gradients into steps. A step whose gradients are no numbers is left out, without waiting for a card."""
        if self._share is not None:
            self._share(self._parameters)
        self._scaler.unscale_(self._optimizer)
        longest = self._plan.clip or math.inf
        length = torch.nn.utils.clip_grad_norm_(self._parameters, longest, foreach=True)
        bad = ~torch.isfinite(length)
        self._bad = torch.where(bad, self._bad + 1, torch.zeros_like(self._bad))
        if self._scaler.is_enabled():
            self._scaler.step(self._optimizer)
            self._scaler.update()
        elif self._device.place.type == "cuda" and isinstance(self._optimizer, torch.optim.AdamW):
            optimizer: Any = self._optimizer
            optimizer.grad_scale, optimizer.found_inf = None, bad.float()  # its kernel leaves the step out by itself
            optimizer.step()
        elif not bool(bad):
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    # ---- looking

    def look(self) -> None:
        """Takes in what was computed since the last look. Raises `Diverged`."""
        if self._recent:
            self.history.losses += torch.stack(self._recent).tolist()
            self._recent = []
        if self._device.place.type == "cuda":
            self.history.peak_bytes = max(self.history.peak_bytes, torch.cuda.max_memory_allocated(self._device.place))
        if float(self._bad) >= self._patience:
            raise Diverged(self._why())

    def _why(self) -> str:
        said = (
            f"The training stopped after step {self.step}: the gradients of {int(self._bad)} steps in a row were not "
        )
        if self.step <= self._patience:
            kind = {"fp16": "fp16 overflows on this base: use precision bf16 or fp32"}.get(
                self._plan.precision, "the base itself gives NaN: it may be damaged"
            )
            return f"{said}numbers, from the beginning: {kind}."
        rates = sorted({f"{group['peak']:g}" for group in self._optimizer.param_groups})
        return f"{said}numbers. The learning rate ({' and '.join(rates)}) is too high; try a third of it."

    def _note_memory(self) -> None:
        """Between forward and backward a process is at its largest."""
        if self._device.place.type != "cuda":
            self.history.peak_bytes = max(self.history.peak_bytes, rss_bytes() or 0)

    # ---- when memory runs out

    def _thriftier(self) -> bool:
        """First everything is computed twice, then batches are worked off in halves, with the same result."""
        if not self._checkpointing and self._compute_twice():
            self.history.warn(
                f"{self._device.name} has too little memory for this training as planned; activations are computed "
                "twice instead of kept, which takes a third longer."
            )
            return True
        if self._pieces < self._plan.batch:
            self._pieces = min(self._plan.batch, 2 * self._pieces)
            self.history.warn(
                f"{self._device.name} has too little memory for {self._plan.batch} pictures at once; they are worked "
                f"off in {self._pieces} parts, which comes to the same and takes longer."
            )
            return True
        return False

    def _compute_twice(self) -> bool:
        enable = getattr(self._base.denoiser, "enable_gradient_checkpointing", None)
        if enable is None:
            return False
        enable()
        self._checkpointing = True
        return True

    def _too_little(self) -> str:
        sides = " and ".join(str(side) for side in sorted(self._plan.resolutions))
        return (
            f"{self._device.name} has too little memory to train at {sides} pixels, even with one picture at a time. "
            "Set a smaller `resolution`, or close what else uses the device."
        )

    # ---- measuring

    @contextmanager
    def published(self) -> Iterator[None]:
        """The network as its file has it: the average if there is one, all ranks of a DyLoRA."""
        with self._average.instead() if self._average is not None else nullcontext(), self._network.whole():
            yield

    @torch.no_grad()
    def measure(self) -> float | None:
        """The error of the held-out pictures at fixed noise; None: there are none.

        Noise and shares of noise are the same at every step, so that values of one training can be compared; nothing
        is weighted. Before the first step it is the base alone that is measured.
        """
        errors: list[Tensor] = []
        alone = self._network.without() if self.step == 0 else self.published()
        with alone, self._cast:
            for number, batch in enumerate(self._source.held_out()):
                there = batch.to(self._device.place)
                texts = read(self._base, there, self._plan.clip_skip)
                for place, share in enumerate(MEASURED):
                    generator = chance.generator(self._plan.seed, number, place, purpose="validation")
                    draw = self._objective.fixed(batch.latents, generator, share).to(self._device.place)
                    errors.append(self._objective.errors(there, texts, draw, weighted=False))
        if not errors:
            return None
        found = float(torch.cat(errors).double().mean())
        self.history.validation = [one for one in self.history.validation if one[0] != self.step]
        self.history.validation.append((self.step, found))
        return found

    # ---- going on later

    def state(self) -> State:
        """Everything that the next step depends on. Looks first; raises `Diverged`."""
        self.look()
        remembered, numbers = optimizer_state(self._optimizer)
        average = self._average.state() if self._average is not None else {}
        tensors = {
            **{f"network/{name}": one for name, one in self._network.state().items()},
            **{f"optimizer/{name}": one for name, one in remembered.items()},
            **{f"average/{name}": one for name, one in average.items()},
            "losses": torch.tensor(self.history.losses, dtype=torch.float64),
            "bad": self._bad,
        }
        about = {
            "optimizer": numbers,
            "scaler": self._scaler.state_dict(),
            "validation": self.history.validation,
            "seconds": self.history.seconds,
            "peak_bytes": self.history.peak_bytes,
            "warnings": self.history.warnings,
            "pieces": self._pieces,
            "checkpointing": self._checkpointing,
        }
        return State(self.step, tensors, about)

    def load_state(self, state: State) -> None:
        """Goes on from there. Raises `UserError` if it is the state of another network."""
        tensors, about = state.tensors, state.about
        self._network.load_state(_under("network/", tensors))
        load_optimizer_state(self._optimizer, _under("optimizer/", tensors), about["optimizer"])
        if self._average is not None:
            self._average.load_state(_under("average/", tensors))
        if about["scaler"]:
            self._scaler.load_state_dict(about["scaler"])
        self._bad = tensors["bad"].to(self._device.place)
        self.step = state.step
        self.history = History(
            losses=tensors["losses"].tolist(),
            validation=[(step, value) for step, value in about["validation"]],
            seconds=about["seconds"],
            peak_bytes=about["peak_bytes"],
            warnings=list(about["warnings"]),
        )
        self._pieces = about["pieces"]
        if about["checkpointing"] and not self._checkpointing:
            self._compute_twice()


def _under(prefix: str, tensors: Any) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
