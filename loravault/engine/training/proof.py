"""Whether a file gives back what was trained: read by the reader that everybody's files are read by, and compared."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from loravault.engine.adapters import Adapter, Change
from loravault.engine.apply import Patcher, Strength
from loravault.engine.bases import Base, ModuleKey
from loravault.engine.embeddings import inserted
from loravault.engine.training.networks import LayerAdapter, Network

#: An output in fp32 is itself known to this share of its length only.
_NOISE = 2e-5


@dataclass
class Proof:
    """How far the file is from what was trained, in shares of what the adapter does."""

    #: Of the changes of all weights together.
    weights: float
    #: Component → of what it gives for an input of the training; empty where that cannot be told apart from rounding.
    outputs: dict[str, float] = field(default_factory=dict)
    #: Layer → length of the change of its weight.
    norms: dict[ModuleKey, float] = field(default_factory=dict)
    #: Layers that the file does not change although they were trained.
    lost: tuple[ModuleKey, ...] = ()

    @property
    def worst(self) -> float:
        """The largest of all; infinite where something is no number."""
        found = (self.weights, *self.outputs.values())
        return max(found) if all(map(math.isfinite, found)) else math.inf


@torch.no_grad()
def prove(adapter: Adapter, network: Network, base: Base) -> Proof:
    """Compares the file, as it was read for `base`, with the network, layer by layer; and by what the models give.

    The second needs an input that was seen in training, and a base in fp32: merged into less, small changes are rounded
    away by nobody's fault.
    """
    with network.whole():
        proof = _by_layers(adapter, network)
        proof.lost += _lost_words(adapter, network)
        if not proof.lost and _whole(network):
            with torch.autocast(base.denoiser.device.type, enabled=False):
                proof.outputs = dict(_by_outputs(adapter, network, base))
    return proof


def _by_layers(adapter: Adapter, network: Network) -> Proof:
    wrong = right = 0.0
    norms: dict[ModuleKey, float] = {}
    for change in adapter.changes:
        wanted = {key: _live(network.adapters[key]) for key in change.layers if key in network.adapters}
        norms |= {key: float(one.norm()) for key, one in wanted.items()}
        for key, rows, found in _pieces(change, network):
            target = wanted.get(key)
            part = torch.zeros_like(found) if target is None else target[rows]
            wrong += float((found - part).double().square().sum())
            right += float(part.double().square().sum())
    lost = tuple(key for key in network.adapters if key not in norms)
    error = math.sqrt(wrong / right) if right else (0.0 if not wrong else math.inf)
    return Proof(error, norms=norms, lost=lost)


def _lost_words(adapter: Adapter, network: Network) -> tuple[ModuleKey, ...]:
    """Vectors of the trigger that the file does not give back exactly."""
    if network.pivotal is None:
        return ()
    found = {one.component: one for one in adapter.embeddings}
    return tuple(
        (one.component, one.words)
        for one in network.pivotal.learned()
        if one.component not in found
        or found[one.component].tokens != one.tokens
        or not torch.equal(found[one.component].vectors, one.vectors.detach().cpu())
    )


def _live(adapter: LayerAdapter) -> Tensor:
    return adapter.change(weight_of(adapter))


def weight_of(adapter: LayerAdapter) -> Tensor:
    """The weight of a layer in fp32; ones where it is packed: they show all there is to see of what multiplies it."""
    weight = adapter.module._parameters.get("weight")
    if adapter.layer.whole:
        whole: Tensor = weight.detach().float()
        return whole
    device = next(iter(adapter.parts.values())).device
    return torch.ones(adapter.layer.shape, device=device)


def _pieces(change: Change, network: Network) -> Iterator[tuple[ModuleKey, slice, Tensor]]:
    """(layer, which of its rows, what the file adds to them)."""
    weights = []
    for place in change.places:
        key = (place.component, place.module)
        live = network.adapters.get(key)
        if live is None:  # a part of a fused layer that was not trained; what it holds does not matter
            other = next(network.adapters[one] for one in change.layers if one in network.adapters)
            rows = place.rows or (0, place_rows(network, key))
            weights.append(torch.ones(rows[1] - rows[0], *other.layer.shape[1:], device=weight_of(other).device))
            continue
        weight = weight_of(live)
        weights.append(weight if place.rows is None else weight[place.rows[0] : place.rows[1]])
    found = change.delta.change(torch.cat(weights), 1.0)
    begin = 0
    for place, weight in zip(change.places, weights, strict=True):
        end = begin + weight.shape[0]
        first = place.rows[0] if place.rows else 0
        yield (place.component, place.module), slice(first, first + weight.shape[0]), found[begin:end]
        begin = end


def place_rows(network: Network, key: ModuleKey) -> int:
    """How many rows a layer has that is not trained itself."""
    return network.layers[key][0]


# ---- what the models give


def _whole(network: Network) -> bool:
    """Whether every trained layer is fp32."""
    return all(
        one.layer.whole and one.module._parameters["weight"].dtype == torch.float32 for one in network.adapters.values()
    )


def _by_outputs(adapter: Adapter, network: Network, base: Base) -> Iterator[tuple[str, float]]:
    for component, (args, kwargs) in network.seen.items():
        if not any(key[0] == component for key in network.adapters):
            continue
        model = getattr(base.pipe, component)
        live = _output(model, args, kwargs)
        with network.without():
            bare = _output(model, args, kwargs)
            patcher = Patcher({key: module for key, module in base.modules.items() if key[0] == component})
            only = _of(adapter, component)
            try:
                patcher.apply([Strength(only, 1.0, 1.0)])
                with inserted(base, adapter.embeddings):
                    merged = _output(model, args, kwargs)
            finally:
                patcher.restore()
        effect, wrong = float((live - bare).norm()), float((merged - live).norm())
        if not math.isfinite(wrong):
            yield component, math.inf
        elif effect > 0:
            yield component, max(0.0, wrong - _NOISE * float(bare.norm())) / effect


def _of(adapter: Adapter, component: str) -> Adapter:
    """The part of an adapter that changes one component."""
    from dataclasses import replace  # noqa: PLC0415

    changes = tuple(change for change in adapter.changes if all(one.component == component for one in change.places))
    return replace(adapter, changes=changes)


def _output(model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    given = model(*args, **kwargs)
    while not isinstance(given, Tensor):
        given = given[0]
    return given.float()
