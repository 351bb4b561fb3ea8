"""Generators of torch that are counted: what step n draws does not depend on the steps before it.

So a run that was interrupted goes on as if it had not been, and no state of a generator belongs into a checkpoint.
"""

from __future__ import annotations

import torch

from loravault.formats.chance import Counter, number, permutation, share

__all__ = ["Counter", "generator", "number", "permutation", "share"]


def generator(seed: int, *counters: Counter, purpose: str) -> torch.Generator:
    """A generator on the CPU for one purpose in one step (or for one picture of it, …).

    Draw on the CPU and move the result: devices have generators of their own. torch's Mersenne Twister takes 32 bits of
    the 64; `number` and `share` have all of them.
    """
    return torch.Generator().manual_seed(number(seed, *counters, purpose=purpose))
