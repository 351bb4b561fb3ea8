"""One module's way down: steps, an average of its weights beside it, checkpoints that an interruption survives."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from demo.common import Ema, load_checkpoint, log, one_cycle, save_checkpoint
from demo.parallel import average_gradients


@dataclass(frozen=True)
class Plan:
    """What is to be done: how often, how fast, and where it is kept."""

    #: In the log.
    name: str
    checkpoint: Path
    steps: int
    #: Highest learning rate.
    peak: float
    save_every: int


class Descent:
    """Makes the steps of one worker that are not made yet; worker 0 keeps the average, the log and the checkpoints."""

    def __init__(self, plan: Plan, module: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema) -> None:
        self._plan, self._module, self._optimizer, self._ema = plan, module, optimizer, ema
        #: How many steps were made by earlier runs.
        self.done = load_checkpoint(plan.checkpoint, module, optimizer, ema)

    def run(self, loss_at: Callable[[int], Tensor], rank: int = 0, workers: int = 1) -> None:
        """Go on to the last step. `loss_at` draws what step n (from 0) learns from and returns the loss."""
        plan, began, recent = self._plan, time.monotonic(), 0.0
        parameters = list(self._module.parameters())
        for step in range(self.done, plan.steps):
            for group in self._optimizer.param_groups:
                group["lr"] = one_cycle(step, plan.steps, plan.peak)
            loss = loss_at(step)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            average_gradients(parameters, workers)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            self._optimizer.step()
            if rank:
                continue
            self._ema.update(self._module)
            recent = loss.item() if step == self.done else 0.98 * recent + 0.02 * loss.item()
            self._tell_and_keep(step + 1, recent, time.monotonic() - began)

    def _tell_and_keep(self, made: int, loss: float, seconds: float) -> None:
        plan = self._plan
        if made % 50 == 0:
            pace = seconds / (made - self.done)
            left = (plan.steps - made) * pace / 60
            log(f"{plan.name} step {made}/{plan.steps} loss {loss:.4f} {pace:.2f} s/step, {left:.0f} min to go")
        if made % plan.save_every == 0 or made == plan.steps:
            save_checkpoint(plan.checkpoint, self._module, self._optimizer, self._ema, made)
