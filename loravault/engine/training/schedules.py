"""How fast is learned at which step: a pure function, so that nothing of it has to be remembered."""

from __future__ import annotations

import math

from loravault.formats.training import Schedule


def factor(step: int, steps: int, schedule: Schedule, warmup: int) -> float:
    """Share of the learning rate at `step` (from 0) of `steps`.

    Rises evenly to 1 in `warmup` steps. Then `constant` stays there, and `cosine` falls along half a wave to 0 after
    the last step: (1 + cos(π·x))/2 with x the share of the steps after the warm-up that are made.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    made = (step - warmup) / max(1, steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, made)))
