"""Room for the factors of adapters beside one layer, and how the layer is called while they are in effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

#: Ranks that slots have room for: few, so that the next adapter seldom needs a larger one.
SIZES = (4, 8, 16, 32, 64, 128, 256)
#: A stack of a greater rank is merged: the product beside the weight would cost as much as the weight.
MOST = SIZES[-1]


class Active(NamedTuple):
    """What a call of the layer uses."""

    pictures: int
    #: One picture: shaped as the layer's weight is. Several: (pictures, rank, outputs) and (pictures, inputs, rank).
    up: Tensor
    down: Tensor


class Slot:
    """Room beside one layer: `up` is (pictures, outputs, rank), `down` (pictures, rank, inputs)."""

    def __init__(self, layer: Any, place: torch.device | None) -> None:
        """`place`: where the layer works; None: where its weight is."""
        self.layer = layer
        weight = layer.weight
        self._place = place or weight.device
        # A weight that is kept in whole numbers (quantised) says nothing about the precision of its inputs.
        self._precision = weight.dtype if weight.dtype.is_floating_point else torch.get_default_dtype()
        self.outputs, self.inputs = _sizes(layer)
        self._up = torch.empty((0, self.outputs, 0), dtype=self._precision)
        self._down = torch.empty((0, 0, self.inputs), dtype=self._precision)
        self.active = Active(1, self._up, self._down)
        #: For one picture: how many times the product is added.
        self.alpha = 1.0
        self._views: dict[tuple[int, ...], Any] = {}
        self._call = self._forward()

    @property
    def bytes(self) -> int:
        """Memory it takes."""
        return (self._up.numel() + self._down.numel()) * self._up.element_size()

    def grow(self, pictures: int, rank: int) -> bool:
        """Makes room for so many pictures and this rank; whether there was none before. Then what was in it is lost."""
        held, room = self._up.shape[0], self._up.shape[2]
        if held >= pictures and room >= rank:
            return False
        held, room = max(held, pictures), next(size for size in SIZES if size >= max(rank, room))
        self._up = torch.empty((held, self.outputs, room), dtype=self._precision, device=self._place)
        self._down = torch.empty((held, room, self.inputs), dtype=self._precision, device=self._place)
        self._views.clear()
        return True

    def view(self, pictures: int, rank: int) -> Active:
        """What a call uses if so many pictures have stacks of at most this rank."""
        found: Active | None = self._views.get((pictures, rank))
        if found is None:
            found = self._views[pictures, rank] = self._new_view(pictures, rank)
        return found

    def _new_view(self, pictures: int, rank: int) -> Active:
        if pictures == 1:
            return Active(1, self._shaped_up(self._up[0, :, :rank]), self._shaped_down(self._down[0, :rank]))
        up, down = self._up[:pictures, :, :rank], self._down[:pictures, :rank]
        return Active(pictures, up.transpose(1, 2), down.transpose(1, 2))

    def room(self, picture: int, begin: int, end: int) -> tuple[Tensor, Tensor]:
        """(up, down) of one picture for the ranks from `begin` to `end`."""
        found: tuple[Tensor, Tensor] | None = self._views.get((picture, begin, end))
        if found is None:
            found = self._up[picture, :, begin:end], self._down[picture, begin:end]
            self._views[picture, begin, end] = found
        return found

    def attach(self) -> None:
        """From now on the layer is called with what is in the slot."""
        self.layer.__dict__["forward"] = self._call

    def detach(self) -> None:
        """The layer is called as it always was."""
        self.layer.__dict__.pop("forward", None)

    def _shaped_up(self, up: Tensor) -> Tensor:
        return up.t()

    def _shaped_down(self, down: Tensor) -> Tensor:
        return down

    def _forward(self) -> Callable[[Tensor], Tensor]:
        raise NotImplementedError


def possible(module: torch.nn.Module) -> bool:
    """Whether a layer can have a slot."""
    if isinstance(module, torch.nn.Conv2d):
        return module.groups == 1
    return isinstance(module, torch.nn.Linear)


def make_slot(layer: torch.nn.Module, place: torch.device | None) -> Slot:
    """The slot of a layer for which one is `possible`."""
    return _Linear(layer, place) if isinstance(layer, torch.nn.Linear) else _Convolution(layer, place)


def _sizes(layer: Any) -> tuple[int, int]:
    """Outputs, and inputs with all the kernel; a quantised weight has another shape than its layer."""
    if isinstance(layer, torch.nn.Linear):
        return layer.out_features, layer.in_features
    return layer.out_channels, int(layer.weight[0].numel())


def _turns(first: int, pictures: int) -> int:
    """How often the pictures follow each other in a batch of `first`."""
    turns, rest = divmod(first, pictures)
    if rest or turns not in (1, 2):
        raise RuntimeError(f"{pictures} pictures cannot be told apart in a batch of {first}")
    return turns


class _Linear(Slot):
    """Beside a linear layer."""

    def _forward(self) -> Callable[[Tensor], Tensor]:
        layer, usual, outputs = self.layer, type(self.layer).forward, self.outputs

        def forward(value: Tensor) -> Tensor:
            out: Tensor = usual(layer, value)
            pictures, up, down = self.active
            if pictures == 1:
                inner = functional.linear(value, down)
                if out.is_contiguous():
                    out.view(-1, outputs).addmm_(inner.view(-1, inner.shape[-1]), up, alpha=self.alpha)
                    return out
                return out.add(inner @ up, alpha=self.alpha)
            if (turns := _turns(value.shape[0], pictures)) > 1:
                up, down = up.repeat(turns, 1, 1), down.repeat(turns, 1, 1)
            rows = value.reshape(value.shape[0], -1, value.shape[-1])
            return torch.baddbmm(out.reshape(*rows.shape[:2], outputs), torch.bmm(rows, down), up).view(out.shape)

        return forward


class _Convolution(Slot):
    """Beside a convolution: its kernel is in `down`, `up` is one of 1×1."""

    def _shaped_up(self, up: Tensor) -> Tensor:
        return up[:, :, None, None]

    def _shaped_down(self, down: Tensor) -> Tensor:
        return down.view(down.shape[0], *self.layer.weight.shape[1:])

    def _forward(self) -> Callable[[Tensor], Tensor]:
        layer, usual, kernel = self.layer, type(self.layer).forward, tuple(self.layer.weight.shape[1:])

        def forward(value: Tensor) -> Tensor:
            out: Tensor = usual(layer, value)
            pictures, up, down = self.active
            if pictures == 1:
                return out.add_(functional.conv2d(layer._conv_forward(value, down, None), up), alpha=self.alpha)
            turns, rank = _turns(value.shape[0], pictures), up.shape[1]
            apart = value.view(turns, pictures, *value.shape[1:]).unbind(1)
            kernels = down.transpose(1, 2).unbind(0)
            inner = [
                layer._conv_forward(one, own.reshape(rank, *kernel), None)
                for one, own in zip(apart, kernels, strict=True)
            ]
            added = up.transpose(1, 2) @ torch.stack(inner, 1).reshape(turns, pictures, rank, -1)
            return out.add_(added.reshape(out.shape))

        return forward
