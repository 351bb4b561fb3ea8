"""Merging adapters into a base and back: W = W0 + Σ changes, always formed anew from W0, never subtracted.

The original tensors are kept by reference; taking an adapter out puts the very same tensor back, so that a base is
bit-identical after any number of switches. Only layers whose adapters or strengths changed are touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from loravault.engine.adapters import Adapter, Change, FileKey
from loravault.engine.strengths import Amount, Blocks, State, Strength, amounts_of, states_of
from loravault.errors import UserError
from loravault.formats.normal import LayerKey, Place
from loravault.formats.tensor_table import BrokenFile

#: Whether a change is left to somebody else.
Leave = Callable[[Change], bool]


class _Step(NamedTuple):
    """One change at one strength. In each layer the steps come in the order of their numbers."""

    number: int
    owner: Adapter
    change: Change
    amount: float


#: What is done to one layer: (file, which of its changes, strength) of each step, in order.
_Recipe = list[tuple[FileKey, int, float]]


@dataclass
class _Original:
    """A layer as the base has it."""

    weight: Tensor
    #: None: it has no bias, or its bias is untouched.
    bias: Tensor | None = None
    new_bias: bool = False


class Patcher:
    """The only one who changes weights of a base."""

    def __init__(self, modules: Mapping[LayerKey, torch.nn.Module]) -> None:
        self._modules = modules
        # A module's own look-up of its weight takes longer than a small merge.
        self._parameters = {key: module._parameters for key, module in modules.items()}
        # Some encoders have one tensor under two names; it is one layer then, or it would be changed twice.
        first: dict[int, LayerKey] = {}
        self._same = {key: first.setdefault(id(module.weight), key) for key, module in modules.items()}
        self._originals: dict[LayerKey, _Original] = {}
        self._recipes: dict[LayerKey, _Recipe] = {}
        self._state: tuple[State, State, Leave | None] = ((), (), None)
        self._blocks = Blocks(modules)

    def apply(self, strengths: Sequence[Strength], leave: Leave | None = None) -> tuple[State, State]:
        """Makes these adapters, and no others, be in effect. Order does not matter; the same adapter twice adds up.

        `leave` tells the changes that somebody else applies beside the weights: they are not merged. It answers the
        same about the same change at any time. Returns what is in effect, by whomever, in the text encoders and in the
        denoiser. If anything fails the base is left pristine. Raises `UserError` if a change does not fit its layer.
        """
        amounts = amounts_of(strengths)
        state = states_of(amounts)
        if (*state, leave) == self._state:
            return state
        plan, recipes = self._plan(amounts, leave)
        try:
            for key in [key for key in self._recipes if key not in recipes]:
                self._restore(key)
            stale = [key for key, recipe in recipes.items() if self._recipes.get(key) != recipe]
            with torch.no_grad():
                self._rebuild_all(stale, plan)
            self._recipes = recipes
        except BaseException:
            self.restore()
            raise
        self._state = (*state, leave)
        return state

    def restore(self) -> None:
        """Puts every original tensor back."""
        for key in list(self._originals):
            self._restore(key)
        self._state = ((), (), None)

    @property
    def held(self) -> int:
        """Bytes of originals that are kept beside what is merged."""
        return sum(one.weight.numel() * one.weight.element_size() for one in self._originals.values())

    # ---- what is to be done

    def _plan(
        self, amounts: Sequence[Amount], leave: Leave | None
    ) -> tuple[dict[LayerKey, list[_Step]], dict[LayerKey, _Recipe]]:
        """The steps of every layer that is changed, and what they come to."""
        plan: dict[LayerKey, list[_Step]] = {}
        recipes: dict[LayerKey, _Recipe] = {}
        number = 0
        for one in amounts:
            adapter = one.adapter
            for index, change in enumerate(adapter.changes):
                amount = one.at(change.layers[0], self._blocks)
                number += 1
                if amount == 0 or (leave is not None and leave(change)):
                    continue
                step = _Step(number, adapter, change, amount)
                for layer in change.layers:
                    key = self._same[layer]
                    steps = plan.get(key)
                    if steps is None:
                        plan[key], recipes[key] = [step], [(adapter.key, index, amount)]
                    elif steps[-1] is not step:  # two places may lie in one layer
                        steps.append(step)
                        recipes[key].append((adapter.key, index, amount))
        return plan, recipes

    # ---- doing it

    def _rebuild_all(self, stale: Sequence[LayerKey], plan: Mapping[LayerKey, Sequence[_Step]]) -> None:
        """Forms these layers anew."""
        tied: dict[LayerKey, None] = {}
        for key in stale:
            if all(step.change.plain for step in plan[key]):
                self._rebuild_plain(key, plan[key])
            else:
                tied[key] = None
        for group in _groups(tied, plan, self._same):
            self._rebuild(group, plan)

    def _rebuild_plain(self, key: LayerKey, steps: Sequence[_Step]) -> None:
        """Forms one layer anew of which the weight alone changes, as a whole."""
        weight = self.weight(key)
        known = self._originals.get(key)
        whole = weight.dtype == torch.float32
        if known is None:
            known = self._originals[key] = _Original(weight.data)
            total = torch.empty_like(weight.data, dtype=torch.float32)
        else:
            self._restore_bias(known, self._modules[key])
            here = whole and weight.device == known.weight.device  # else the model was moved meanwhile
            total = weight.data if here else torch.empty_like(known.weight, dtype=torch.float32)
        (_, owner, change, amount), *more = steps
        try:
            change.delta.merge_into(total, known.weight, amount)
            for _, owner, change, amount in more:  # noqa: B007 - for the message
                change.delta.add_to(total, known.weight, amount)
        except BrokenFile as error:
            raise _unfit(owner, error) from error
        weight.data = total if whole else total.to(weight.dtype)

    def _rebuild(self, group: Sequence[LayerKey], plan: Mapping[LayerKey, Sequence[_Step]]) -> None:
        """Forms the layers of a group anew."""
        work = _Work(self, {key: self._blank(key) for key in group})
        steps = plan[group[0]] if len(group) == 1 else _merged([plan[key] for key in group])
        for step in steps:
            try:
                work.add(step)
            except BrokenFile as error:
                raise _unfit(step.owner, error) from error
        for key, total in work.totals.items():
            weight = self.weight(key)
            weight.data = total.to(weight.dtype)
        self._put_biases(group, work.biases)

    def _blank(self, key: LayerKey) -> Tensor:
        """A copy of the original weight in fp32, in the memory of the last one where that is possible."""
        weight = self.weight(key)
        known = self._originals.get(key)
        if known is None:
            known = self._originals[key] = _Original(weight.data)
        elif weight.dtype == torch.float32 and weight.device == known.weight.device:
            return weight.data.copy_(known.weight)
        return known.weight.to(torch.float32, copy=True)

    def _put_biases(self, group: Iterable[LayerKey], biases: Mapping[LayerKey, Tensor]) -> None:
        for key in group:
            known, module = self._originals[key], self._modules[key]
            if key not in biases:
                self._restore_bias(known, module)
            elif known.new_bias or module.bias is None:
                known.new_bias = True
                module.bias = torch.nn.Parameter(biases[key].to(known.weight.dtype), requires_grad=False)
            else:
                bias = module.bias
                assert isinstance(bias, torch.nn.Parameter)
                known.bias = bias.data if known.bias is None else known.bias
                bias.data = biases[key].to(known.bias.dtype)

    def _restore(self, key: LayerKey) -> None:
        known = self._originals.pop(key)
        self._recipes.pop(key, None)
        self.weight(key).data = known.weight
        self._restore_bias(known, self._modules[key])

    @staticmethod
    def _restore_bias(known: _Original, module: torch.nn.Module) -> None:
        if known.new_bias:
            module.register_parameter("bias", None)
            known.new_bias = False
        elif known.bias is not None:
            module.bias.data = known.bias
            known.bias = None

    # ---- what the base has

    def same(self, one: Place) -> LayerKey:
        """The layer of a place."""
        return self._same[one.component, one.module]

    def weight(self, key: LayerKey) -> torch.nn.Parameter:
        """The weight of a layer, as it is now."""
        weight = self._parameters[key]["weight"]
        assert weight is not None
        return weight

    def original(self, key: LayerKey) -> Tensor:
        """The weight of a layer, as the base has it."""
        known = self._originals.get(key)
        return self.weight(key).data if known is None else known.weight

    def original_bias(self, key: LayerKey) -> Tensor | None:
        """The bias of a layer, as the base has it; None if it has none."""
        known = self._originals.get(key)
        if known is not None and (known.new_bias or known.bias is not None):
            return known.bias
        bias = self._modules[key]._parameters.get("bias")
        return None if bias is None else bias.data


class _Work:
    """Layers that are being formed anew."""

    def __init__(self, patcher: Patcher, totals: dict[LayerKey, Tensor]) -> None:
        self._patcher = patcher
        #: In fp32.
        self.totals = totals
        #: In fp32; only those that change.
        self.biases: dict[LayerKey, Tensor] = {}

    def add(self, step: _Step) -> None:
        """Adds one change to those of its layers that are in work."""
        delta, places = step.change.delta, step.change.places
        if len(places) == 1 and places[0].rows is None:
            key = self._patcher.same(places[0])
            delta.add_to(self.totals[key], self._patcher.original(key), step.amount)
        else:
            self._add_pieces(step)
        if delta.touches_bias:
            self._add_bias(step)

    def _add_pieces(self, step: _Step) -> None:
        """The change of a layer that the base has in pieces, or is a piece of one that the base has."""
        delta, factors = step.change.delta, step.change.delta.factors
        if factors is not None:  # its rows can be had apart
            for _, rows, target in self._pieces(step):
                up, down = (one.to(target.device) for one in factors)
                product = up[rows] @ down.flatten(1)
                target.add_(product.reshape(target.shape), alpha=step.amount)
            return
        whole = torch.cat([_rows(self._patcher.original(self._patcher.same(one)), one) for one in step.change.places])
        change = delta.change(whole, step.amount)
        for _, rows, target in self._pieces(step):
            target.add_(change[rows])

    def _pieces(self, step: _Step) -> Iterator[tuple[Place, slice, Tensor]]:
        """(place, which rows of the file's layer, the rows of the total that they go to), of layers in work."""
        begin = 0
        for one in step.change.places:
            key = self._patcher.same(one)
            first, last = one.rows or (0, self._patcher.original(key).shape[0])
            rows, begin = slice(begin, begin + last - first), begin + last - first
            if key in self.totals:
                yield one, rows, self.totals[key][first:last]

    def _add_bias(self, step: _Step) -> None:
        places = step.change.places
        b0 = None
        if any(self._patcher.original_bias(self._patcher.same(one)) is not None for one in places):
            b0 = torch.cat([_rows(self._bias_of(self._patcher.same(one)), one) for one in places])
        added = step.change.delta.bias(step.amount, b0)
        if added is None:
            return
        for one, rows, _ in self._pieces(step):
            key = self._patcher.same(one)
            if key not in self.biases:
                self.biases[key] = self._bias_of(key).to(torch.float32, copy=True)
            total = self.biases[key]
            _rows(total, one).add_(added[rows].to(total.device))

    def _bias_of(self, key: LayerKey) -> Tensor:
        """The bias of a layer, as the base has it; nothing is zeros."""
        bias = self._patcher.original_bias(key)
        if bias is not None:
            return bias
        weight = self._patcher.original(key)
        return torch.zeros(weight.shape[0], dtype=torch.float32, device=weight.device)


def _unfit(owner: Adapter, error: BrokenFile) -> UserError:
    return UserError(f"The LoRA “{owner.name}” cannot be used: {error.message}.")


def _rows(tensor: Tensor, one: Place) -> Tensor:
    return tensor if one.rows is None else tensor[one.rows[0] : one.rows[1]]


def _groups(
    stale: Mapping[LayerKey, None], plan: Mapping[LayerKey, Sequence[_Step]], same: Mapping[LayerKey, LayerKey]
) -> Iterator[list[LayerKey]]:
    """The layers to be formed anew; together those that one change of a fused layer ties together."""
    seen: set[LayerKey] = set()
    for key in stale:
        if key in seen:
            continue
        group = [key]
        seen.add(key)
        for member in group:
            for step in plan[member]:
                if len(step.change.layers) == 1:
                    continue
                for layer in step.change.layers:
                    other = same[layer]
                    if other in stale and other not in seen:
                        seen.add(other)
                        group.append(other)
        yield group


def _merged(lists: Sequence[Sequence[_Step]]) -> list[_Step]:
    """The steps of several layers, each once, in order."""
    return [step for _, step in sorted({step.number: step for steps in lists for step in steps}.items())]


__all__ = ["Patcher", "State", "Strength"]
