"""Generators that are counted."""

from __future__ import annotations

import pytest
import torch

from loravault.engine.training.chance import generator

pytestmark = pytest.mark.engine


def test_the_same_counters_draw_the_same_and_others_do_not() -> None:
    def drawn(*counters: int, seed: int = 1, purpose: str = "noise") -> torch.Tensor:
        return torch.randn(4, generator=generator(seed, *counters, purpose=purpose))

    assert torch.equal(drawn(3), drawn(3))
    others = [drawn(4), drawn(3, 0), drawn(3, seed=2), drawn(3, purpose="timesteps")]
    assert not any(torch.equal(drawn(3), other) for other in others)


def test_the_whole_range_of_seeds_is_taken() -> None:
    """torch refuses what it cannot hold: 2000 of our numbers, half of them above 2**63, all serve."""
    assert len({generator(0, n, purpose="x").initial_seed() for n in range(2000)}) == 2000
