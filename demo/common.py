"""What all training scripts share: device, seeds, averaging, the learning-rate curve, checkpoints, the log."""

from __future__ import annotations

import math
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
WORK = Path(os.environ.get("LORAVAULT_DEMO_WORK", ROOT / "demo" / ".work"))
BASE = ROOT / "loravault" / "data" / "demo_base"
ADAPTERS = ROOT / "loravault" / "data" / "demo_adapters"


def device() -> torch.device:
    """CUDA if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def log(line: str) -> None:
    """One line with the time, at once."""
    print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)


def one_cycle(step: int, total: int, peak: float, warm: float = 0.05, floor: float = 0.01) -> float:
    """Linear warm-up over the first `warm` of the steps, then half a cosine down to `floor` of the peak."""
    warm_steps = max(1, int(total * warm))
    if step < warm_steps:
        return peak * (step + 1) / warm_steps
    share = (step - warm_steps) / max(1, total - warm_steps)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


class Ema:
    """A running average of a module's weights, kept beside it."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.count = decay, 0
        self.shadow: dict[str, Tensor] = {k: v.detach().clone().float() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """One step; early steps average over fewer, so that the random start is forgotten."""
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        values = module.state_dict()
        names = [name for name in self.shadow if values[name].is_floating_point()]
        torch._foreach_lerp_([self.shadow[n] for n in names], [values[n].float() for n in names], 1 - decay)

    def copy_to(self, module: nn.Module) -> None:
        """Put the average into the module."""
        module.load_state_dict({k: v.to(module.state_dict()[k].dtype) for k, v in self.shadow.items()})


def save_checkpoint(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema, step: int) -> None:
    """Write everything needed to go on, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    state = {
        "module": module.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema.shadow,
        "count": ema.count, "step": step, "rng": torch.get_rng_state(),
    }  # fmt: skip
    torch.save(state, temporary)
    temporary.replace(path)


def load_checkpoint(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema) -> int:
    """Go on from a checkpoint if there is one; returns the number of steps done."""
    if not path.exists():
        return 0
    state: dict[str, Any] = torch.load(path, map_location=device(), weights_only=True)
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    ema.shadow, ema.count = state["ema"], state["count"]
    torch.set_rng_state(state["rng"].cpu())
    log(f"resumed {path.name} at step {state['step']}")
    return int(state["step"])
