"""Adapters beside the weights: a layer's output plus up · (down · input), for all adapters of a picture at once.

Each layer has one slot, whatever the number of adapters: their factors stand side by side in it, strengths and all. A
switch copies numbers into slots that are there already; the weights of the base are not touched. A batch may have a
stack of adapters for each of its pictures. A layer without adapters runs as if there had never been any.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from loravault.engine.adapters import Adapter, Change
from loravault.engine.slot_layers import MOST, SIZES, Active, Slot, make_slot, possible
from loravault.engine.strengths import Amount, Blocks, Strength, amounts_of
from loravault.errors import UserError
from loravault.formats.normal import LayerKey, Place

#: Ways that are kept from adapters to slots: what stands where, without the numbers.
KEPT = 16


class _Piece(NamedTuple):
    """One change, of one layer."""

    owner: Adapter
    change: Change
    #: Which of the amounts of a `_Way` it is applied at.
    amount: int


#: The pieces of each layer, in order.
_Stack = dict[LayerKey, list[_Piece]]


@dataclass
class _Way:
    """What is copied where. All in a few calls: for small layers a call costs more than its numbers."""

    goals: list[Tensor] = field(default_factory=list)
    sources: list[Tensor] = field(default_factory=list)
    #: What is multiplied behind the copy: (goal, source, scale, which amount).
    scaled: list[tuple[Tensor, Tensor, float, int]] = field(default_factory=list)
    blanks: list[Tensor] = field(default_factory=list)
    #: What each slot uses, and where its one piece is added as it is: (scale, which amount).
    views: list[tuple[Slot, Active, tuple[float, int] | None]] = field(default_factory=list)
    keys: frozenset[LayerKey] = frozenset()
    #: Whether every source is a tensor of an adapter: then keeping the way keeps no memory.
    free: bool = True

    def copy(self, amounts: Sequence[float]) -> None:
        """Fills the slots."""
        if self.blanks:
            torch._foreach_zero_(self.blanks)
        if self.goals:
            torch._foreach_copy_(self.goals, self.sources)
        if self.scaled and self.scaled[0][0].dtype == torch.float32:
            goals = [goal for goal, *_ in self.scaled]
            torch._foreach_copy_(goals, [source for _, source, *_ in self.scaled])
            torch._foreach_mul_(goals, [scale * amounts[amount] for *_, scale, amount in self.scaled])
            return
        for goal, source, scale, amount in self.scaled:  # multiplied in fp32, so that it is rounded once
            goal.copy_(source.to(goal.device, torch.float32) * (scale * amounts[amount]))

    def use(self, amounts: Sequence[float]) -> None:
        """Makes the layers use what is in their slots."""
        for slot, active, lone in self.views:
            slot.active = active
            slot.alpha = 1.0 if lone is None else lone[0] * amounts[lone[1]]


class Slots:
    """What is applied beside the weights of one denoiser.

    Not for models that are compiled: it changes how layers are called.
    """

    def __init__(
        self,
        modules: Mapping[LayerKey, torch.nn.Module],
        component: str,
        place: torch.device | None = None,
        in_a_row: tuple[str, ...] | None = None,
    ) -> None:
        """`modules`: those of the base; `place`: where the denoiser works (None: where its weights are); `in_a_row`:
        as `Family` says it.
        """
        own = {key: module for key, module in modules.items() if key[0] == component}
        times: dict[int, int] = {}
        for module in own.values():
            times[id(module.weight)] = times.get(id(module.weight), 0) + 1
        self._layers = {key: one for key, one in own.items() if possible(one) and times[id(one.weight)] == 1}
        self._component = component
        self._place = place
        self._in_a_row = in_a_row
        self._blocks = Blocks(own)
        self._slots: dict[LayerKey, Slot] = {}
        self._used: frozenset[LayerKey] = frozenset()
        #: What was copied last: at another strength it need not be again, where each slot holds one piece.
        self._filled: _Way | None = None
        self._ways: OrderedDict[Hashable, tuple[tuple[weakref.ref[Adapter], ...], _Way]] = OrderedDict()

    @property
    def bytes(self) -> int:
        """Memory that the slots take, used or not."""
        return sum(one.bytes for one in self._slots.values())

    # ---- what can be done

    def takes(self, change: Change) -> bool:
        """Whether a change can be applied here: a product of small matrices for linear layers or convolutions."""
        rank = change.delta.rank
        return (
            rank is not None
            and rank <= MOST
            and not change.delta.touches_bias
            and all(layer in self._layers for layer in change.layers)
        )

    def fits(self, strengths: Sequence[Strength]) -> bool:
        """Whether no layer gets more than there can be room for."""
        stack = self._stack(amounts_of(strengths), [])
        return all(_rank(pieces) <= MOST for pieces in stack.values())

    def apart(self, pictures: Sequence[Sequence[Strength]]) -> bool:
        """Whether each picture of one call can have its own adapters: slots take all that any of them changes."""
        return self._in_a_row is not None and all(self._alone(one) for one in pictures)

    def _alone(self, strengths: Sequence[Strength]) -> bool:
        """Whether slots take all that these change in the denoiser, in layers that see pictures apart."""
        rows = self._in_a_row or ()
        return self.fits(strengths) and all(
            self.takes(change) and not any(layer[1].startswith(rows) for layer in change.layers)
            for one in amounts_of(strengths)
            for change in one.adapter.changes
            if change.layers[0][0] == self._component and one.at(change.layers[0], self._blocks) != 0
        )

    # ---- doing it

    def apply(self, pictures: Sequence[Sequence[Strength]]) -> None:
        """Makes these adapters, and no others, be in effect: one stack for all pictures of a call, or one for each.

        With several, the first dimension of every layer's input must be the pictures, once or twice one after the
        other. Changes that `takes` refuses are passed over. If anything fails no adapter is in effect. Raises
        `UserError` if a change does not fit its layer.
        """
        stacks = [[one for one in amounts_of(picture) if not one.even or one.unet != 0] for picture in pictures]
        try:
            with torch.no_grad():
                way, amounts = self._way(stacks)
                if way is not self._filled or way.scaled:
                    self._filled = None
                    way.copy(amounts)
                    self._filled = way
                way.use(amounts)
        except BaseException:
            self.clear()
            raise
        if way.keys is not self._used:
            self._attach(way.keys)

    def clear(self) -> None:
        """No adapter is in effect, and no layer costs more than it did. The room is kept."""
        self._attach(frozenset())

    def forget(self) -> None:
        """As `clear`, and gives the room back."""
        self.clear()
        self._slots.clear()
        self._ways.clear()
        self._filled = None

    def _attach(self, keys: frozenset[LayerKey]) -> None:
        for key in self._used - keys:
            self._slots[key].detach()
        for key in keys - self._used:
            self._slots[key].attach()
        self._used = keys

    # ---- the way from adapters to slots

    def _way(self, stacks: Sequence[Sequence[Amount]]) -> tuple[_Way, list[float]]:
        """What is copied where, and the amounts that go with it."""
        self._forget_dead()
        even = all(one.even for stack in stacks for one in stack)
        mark = tuple(tuple(id(one.adapter) for one in stack) for stack in stacks)
        if even and mark in self._ways:
            self._ways.move_to_end(mark)
            return self._ways[mark][1], [one.unet for stack in stacks for one in stack]
        amounts: list[float] = []
        way = self._new_way([self._stack(stack, amounts) for stack in stacks])
        if even and way.free:
            owners = {id(one.adapter): weakref.ref(one.adapter) for stack in stacks for one in stack}
            self._ways[mark] = (tuple(owners.values()), way)
            if len(self._ways) > KEPT:
                self._ways.popitem(last=False)
        return way, amounts

    def _forget_dead(self) -> None:
        """Adapters that nobody else keeps are not kept here, and another may have come to their place in memory."""
        for mark in [mark for mark, (owners, _) in self._ways.items() if any(one() is None for one in owners)]:
            del self._ways[mark]

    def _stack(self, uses: Sequence[Amount], amounts: list[float]) -> _Stack:
        """The pieces of each layer for one picture; their amounts are added to `amounts`."""
        stack: _Stack = {}
        for one in uses:
            if one.even:
                amounts.append(one.unet)
            for change in one.adapter.changes:
                if not self.takes(change):
                    continue
                if not one.even:
                    amounts.append(one.at(change.layers[0], self._blocks))
                if amounts[-1] == 0:
                    continue
                piece = _Piece(one.adapter, change, len(amounts) - 1)
                for layer in dict.fromkeys(change.layers):  # two places may lie in one layer
                    stack.setdefault(layer, []).append(piece)
        return stack

    def _new_way(self, stacks: Sequence[_Stack]) -> _Way:
        way, products = _Way(), _Products()
        keys = dict.fromkeys(key for stack in stacks for key in stack)
        ranks = {key: max(_rank(stack.get(key, ())) for stack in stacks) for key in keys}
        for key, rank in ranks.items():
            slot = self._slots.get(key)
            if slot is None:
                slot = self._slots[key] = make_slot(self._layers[key], self._place)
            if slot.grow(len(stacks), rank):
                self._ways.clear()  # they lead to what was there before
        for key, rank in ranks.items():
            slot = self._slots[key]
            pieces: list[Sequence[_Piece]] = [stack.get(key, ()) for stack in stacks]
            lone = len(stacks) == 1 and len(pieces[0]) == 1
            for picture, own in enumerate(pieces):
                begin = 0
                for piece in own:
                    end = begin + (piece.change.delta.rank or 0)
                    room = slot.room(picture, begin, end)
                    self._lead(way, key, piece, products.of(piece.change), room, lone=lone)
                    begin = end
                if begin < rank:  # also below: NaN of old memory times zero is NaN
                    way.blanks += slot.room(picture, begin, rank)
            first = pieces[0][0] if lone else None
            alpha = (products.of(first.change)[2], first.amount) if first is not None else None
            way.views.append((slot, slot.view(len(stacks), rank), alpha))
        way.keys = frozenset(keys)
        way.free = products.free
        return way

    def _lead(
        self,
        way: _Way,
        key: LayerKey,
        piece: _Piece,
        product: tuple[Tensor, Tensor, float],
        room: tuple[Tensor, Tensor],
        *,
        lone: bool,
    ) -> None:
        """Adds to `way` what one change does to one layer."""
        up, down, scale = product
        places = piece.change.places
        if room[1].shape != down.shape or _rows(places, self._outputs) != up.shape[0]:
            raise self._unfit(piece, key, product)
        way.goals.append(room[1])
        way.sources.append(down)
        if len(places) > 1 or places[0].rows is not None:
            way.blanks.append(room[0])  # rows that the change does not reach
        for place, rows in _pieces(places, self._outputs):
            if (place.component, place.module) != key:
                continue
            goal = room[0] if place.rows is None else room[0][place.rows[0] : place.rows[1]]
            source = up if place.rows is None and len(places) == 1 else up[rows]
            if lone:
                way.goals.append(goal)
                way.sources.append(source)
            else:
                way.scaled.append((goal, source, scale, piece.amount))

    def _outputs(self, key: LayerKey) -> int:
        return self._slots[key].outputs

    def _unfit(self, piece: _Piece, key: LayerKey, product: tuple[Tensor, Tensor, float]) -> UserError:
        made_for = f"{product[0].shape[0]}×{product[1].shape[1]}"
        weight = self._layers[key].weight
        assert isinstance(weight, Tensor)
        error = piece.change.delta.misfit(weight, made_for)
        return UserError(f"The LoRA “{piece.owner.name}” cannot be used: {error.message}.")


class _Products:
    """The factors of changes, each formed once."""

    def __init__(self) -> None:
        self._formed: dict[int, tuple[Tensor, Tensor, float]] = {}
        #: Whether all are tensors of the adapters themselves, or parts of them.
        self.free = True

    def of(self, change: Change) -> tuple[Tensor, Tensor, float]:
        """(up, down, scale)."""
        found = self._formed.get(id(change))
        if found is None:
            found = change.delta.product()
            assert found is not None
            self._formed[id(change)] = found
            own = change.delta.tensors
            self.free = self.free and all(any(_is_of(part, whole) for whole in own) for part in found[:2])
        return found


def _is_of(part: Tensor, whole: Tensor) -> bool:
    return part is whole or part.data_ptr() == whole.data_ptr()


def _rank(pieces: Sequence[_Piece]) -> int:
    return sum(piece.change.delta.rank or 0 for piece in pieces)


def _pieces(places: Sequence[Place], outputs: Callable[[LayerKey], int]) -> Iterator[tuple[Place, slice]]:
    """Each place with the rows of the file's layer that go to it."""
    begin = 0
    for one in places:
        first, last = one.rows or (0, outputs((one.component, one.module)))
        rows, begin = slice(begin, begin + last - first), begin + last - first
        yield one, rows


def _rows(places: Sequence[Place], outputs: Callable[[LayerKey], int]) -> int:
    """Rows of the file's layer that its places have in all."""
    return sum(rows.stop - rows.start for _, rows in _pieces(places, outputs))


__all__ = ["MOST", "SIZES", "Slots"]
