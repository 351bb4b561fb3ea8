"""How strongly each adapter is applied: to text encoders and denoiser apart, and block by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from loravault.engine.adapters import Adapter, FileKey
from loravault.formats.blocks import blocks_of
from loravault.formats.normal import LayerKey

#: What is in effect: each file with its strength, of everything that changes some components, sorted.
State = tuple[tuple[FileKey, Hashable], ...]


@dataclass(frozen=True)
class Strength:
    """One adapter at its strengths."""

    adapter: Adapter
    #: For every text encoder.
    te: float
    #: For the UNet or transformer.
    unet: float
    #: Block (as `formats.blocks` names them) → factor for its layers; layers of other blocks keep the strength.
    blocks: tuple[tuple[str, float], ...] = ()


class Blocks:
    """The block of every module, by component."""

    def __init__(self, layers: Iterable[LayerKey]) -> None:
        self._layers = tuple(layers)
        self._found: dict[str, Mapping[str, str]] = {}

    def __call__(self, component: str) -> Mapping[str, str]:
        """Module → block."""
        found = self._found.get(component)
        if found is None:
            modules = [module for of, module in self._layers if of == component]
            found = self._found[component] = blocks_of(component, modules)
        return found


class Amount:
    """All strengths of one file."""

    def __init__(self, uses: Sequence[Strength]) -> None:
        self.adapter = uses[0].adapter
        self.te, self.unet = math.fsum(one.te for one in uses), math.fsum(one.unet for one in uses)
        self._uses = [(one, dict(one.blocks)) for one in uses] if any(one.blocks for one in uses) else []

    @property
    def even(self) -> bool:
        """Whether every layer of the denoiser has the same strength."""
        return not self._uses

    def at(self, layer: LayerKey, blocks: Callable[[str], Mapping[str, str]]) -> float:
        """For one layer; `blocks`: component → the block of each module."""
        text = layer[0].startswith("text_encoder")
        if not self._uses:
            return self.te if text else self.unet
        block = blocks(layer[0]).get(layer[1], "")
        return math.fsum((one.te if text else one.unet) * factors.get(block, 1.0) for one, factors in self._uses)

    def mark(self, *, text: bool) -> tuple[FileKey, Hashable] | None:
        """What is in effect; None for nothing."""
        amount = self.te if text else self.unet
        if not any(component.startswith("text_encoder") == text for component in self.adapter.components):
            return None
        if self._uses:
            return self.adapter.key, tuple(sorted((one.te if text else one.unet, one.blocks) for one, _ in self._uses))
        return (self.adapter.key, amount) if amount != 0 else None


def amounts_of(strengths: Sequence[Strength]) -> list[Amount]:
    """Each file once; sorted, so that sums come out the same in any order."""
    found: dict[FileKey, list[Strength]] = {}
    for one in strengths:
        found.setdefault(one.adapter.key, []).append(one)
    return [Amount(uses) for _, uses in sorted(found.items())]


def states_of(amounts: Sequence[Amount]) -> tuple[State, State]:
    """What is in effect in the text encoders, and in the denoiser."""
    return (
        tuple(mark for one in amounts if (mark := one.mark(text=True))),
        tuple(mark for one in amounts if (mark := one.mark(text=False))),
    )
