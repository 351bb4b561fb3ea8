"""Merging adapters into a base and back: W = W0 + Σ m·ΔW, always formed anew from W0, never subtracted.

The original tensors are kept by reference; taking an adapter out puts the very same tensor back, so that a base is
bit-identical after any number of switches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from loravault.engine.adapters import Adapter, ModuleKey

#: What is merged: (SHA-256 of the file, strength) of everything that changes a component, sorted.
State = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Strength:
    """One adapter at its strengths."""

    adapter: Adapter
    te: float
    unet: float


class Patcher:
    """The only one who changes weights of a base."""

    def __init__(self, modules: Mapping[ModuleKey, torch.nn.Module]) -> None:
        self._modules = modules
        self._pristine: dict[ModuleKey, torch.Tensor] = {}
        self._merged: tuple[State, State] = ((), ())

    def apply(self, strengths: Sequence[Strength]) -> tuple[State, State]:
        """Makes these adapters, and no others, be in effect. Order does not matter; the same adapter twice adds up.

        Returns what is in effect in the text encoder and in the UNet. If anything fails the base is left pristine.
        """
        adapters = {one.adapter.hashes.sha256: one.adapter for one in strengths}
        wanted = (_state(strengths, "text_encoder"), _state(strengths, "unet"))
        if wanted == self._merged:
            return wanted
        self.restore()
        try:
            for component, state in zip(("text_encoder", "unet"), wanted, strict=True):
                self._merge(component, [(adapters[sha256], strength) for sha256, strength in state])
        except BaseException:
            self.restore()
            raise
        self._merged = wanted
        return wanted

    def restore(self) -> None:
        """Puts every original tensor back."""
        for key, weight in self._pristine.items():
            self._weight(key).data = weight
        self._pristine.clear()
        self._merged = ((), ())

    def _merge(self, component: str, adapters: Sequence[tuple[Adapter, float]]) -> None:
        touched = {key for adapter, _ in adapters for key in adapter.factors if key[0] == component}
        for key in sorted(touched):
            weight = self._weight(key)
            original = weight.data
            total = original.to(torch.float32, copy=True)
            for adapter, strength in adapters:
                factors = adapter.factors.get(key)
                if factors is not None:
                    total.add_(factors.delta(original), alpha=strength)
            self._pristine[key] = original
            weight.data = total.to(original.dtype)

    def _weight(self, key: ModuleKey) -> torch.nn.Parameter:
        weight = self._modules[key].weight
        assert isinstance(weight, torch.nn.Parameter)
        return weight


def _state(strengths: Sequence[Strength], component: str) -> State:
    """Summed strength per file; sorted, so that sums of floats come out the same in any order."""
    amounts: dict[str, list[float]] = {}
    for one in strengths:
        if one.adapter.touches(component):
            amount = one.te if component == "text_encoder" else one.unet
            amounts.setdefault(one.adapter.hashes.sha256, []).append(amount)
    sums = ((sha256, math.fsum(values)) for sha256, values in amounts.items())
    return tuple(sorted((sha256, total) for sha256, total in sums if total != 0))
