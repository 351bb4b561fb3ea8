"""A running average of what is learned: smoother than the last step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Of some parameters, fp32 on their device: average ← average + (1-d)·(parameter - average).

    d grows to `decay` as min(decay, (1+n)/(10+n)) with the steps n, so that the random beginning is soon forgotten.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self._parameters, self._decay = list(parameters), decay
        self._kept = [one.detach().clone() for one in self._parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After step `step`, counted from 1."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._kept, [one.detach() for one in self._parameters], 1 - decay)

    @contextmanager
    @torch.no_grad()
    def instead(self) -> Iterator[None]:
        """The parameters are their averages for as long as this lasts, and then exactly what they were."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for one, kept in zip(self._parameters, self._kept, strict=True):
            one.data, kept.data = kept.data, one.data

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {str(number): one.detach() for number, one in enumerate(self._kept)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """As it was."""
        for number, one in enumerate(self._kept):
            one.copy_(state[str(number)])
