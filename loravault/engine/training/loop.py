"""The steps of a training: forward, backward, and everything that can go wrong between the two.

Step n is a pure function of the plan, the seed, n and what the steps before it have learned: pictures, captions, noise
and times are drawn by counters. So a training that goes on from a state comes to the same numbers as one that was
never interrupted, on a CPU bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from loravault.engine.bases import Base
from loravault.engine.devices import Device, free_cache, is_out_of_memory
from loravault.engine.ends import OutOfMemory
from loravault.engine.training import chance
from loravault.engine.training.average import Average
from loravault.engine.training.checkpoints import State, load_optimizer_state, optimizer_state
from loravault.engine.training.learner import Echo, Learner, Source
from loravault.engine.training.networks import Network
from loravault.engine.training.objectives import Objective
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
#: Shares of noise at which held-out pictures are measured.
MEASURED = (0.125, 0.375, 0.625, 0.875)
#: How much an earlier loss still counts in the smoothed one, for each step.
SMOOTH = 0.98


class Company(Protocol):
    """Other processes that learn the same from other pictures: `mates.Mates`."""

    @property
    def world(self) -> int:
        """Processes, ours included."""

    def begin(self, step: int, parameters: list[nn.Parameter], *, pieces: int, twice: bool, scale: float) -> None:
        """Has them compute the gradients of a step. Returns at once; raises `UserError`."""

    def gather(self, parameters: list[nn.Parameter], loss: Tensor) -> Tensor:
        """Gradients become the mean of everybody's; returns the mean loss. Raises `UserError`, `MemoryError`."""


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


class Loop(Learner):
    """One training on its way: what decides, measures and remembers."""

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
        company: Company | None = None,
    ) -> None:
        """`echoes` says what is held to the base; `company`: other processes that learn the same.

        Raises `UserError` (see `make_optimizer`).
        """
        super().__init__(
            base=base, network=network, objective=objective, source=source, plan=plan, device=device, echoes=echoes,
            world=1 if company is None else company.world,
        )  # fmt: skip
        self._company = company
        self.step = 0
        self.history = History()
        parameters = network.parameters()
        self._optimizer, said = make_optimizer(plan, parameters, device.place)
        self.history.warn(said)
        self._average = Average(self._parameters, plan.ema) if plan.ema else None
        self._scaler = torch.amp.GradScaler(device.place.type, enabled=plan.precision == "fp16")
        self._patience = PATIENCE_FP16 if plan.precision == "fp16" else PATIENCE
        self._bad = torch.zeros((), device=device.place)
        self._recent: list[Tensor] = []
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
        set_rates(self._optimizer, factor(number, plan.steps, plan.schedule, plan.warmup))
        if self._company is not None:
            scale = self._scaler.get_scale()
            self._company.begin(number, self._parameters, pieces=self._pieces, twice=self._checkpointing, scale=scale)
        total = self._learn(number, self._scaler.scale)
        if self._company is not None:
            total = self._company.gather(self._parameters, total)
        self._recent.append(total)
        self._update()

    def _update(self) -> None:
        """Gradients into steps. A step whose gradients are no numbers is left out, without waiting for a card."""
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
