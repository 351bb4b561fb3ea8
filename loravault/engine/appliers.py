"""Who applies adapters to a base: merged or beside the weights, whichever is expected to be faster for what comes.

Text encoders are always merged: a prompt is read once and remembered. What slots cannot take is merged, also where the
rest goes into slots.
"""

from __future__ import annotations

import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from loravault.engine import modes
from loravault.engine.adapters import Adapter, Change
from loravault.engine.apply import Patcher
from loravault.engine.bases import Base
from loravault.engine.devices import Device, free_cache, is_out_of_memory, wait_for
from loravault.engine.modes import WISHES, Calls, Mode, Pace, Switch, choose, usual
from loravault.engine.slots import Slots
from loravault.engine.strengths import State, Strength, amounts_of, states_of
from loravault.errors import UserError

#: The adapters of one picture with their strengths.
Stack = Sequence[Strength]
#: Combinations for which it is remembered what they lost to slots.
REMEMBERED = 64
#: Bytes that slots keep when pictures are no more drawn with different adapters.
SPARE = 1 << 30


@dataclass(frozen=True)
class _Size:
    """What one adapter changes in the denoiser, in bytes."""

    #: Of the weights that it changes, and of those among them that slots leave to merging.
    weights: int
    left: int
    #: Of its factors, as slots have them.
    factors: int


class Applier:
    """The adapters of one base. The only one that changes its weights, or how its layers are called.

    `for_text` is called before each prompt is read, `for_pictures` before each call of the denoiser, `drawn` behind it.
    While models are offloaded, `for_pictures` must be called once with the same adapters before they are attached.
    """

    def __init__(self, base: Base, device: Device, *, wish: str = "auto", beside: bool = True) -> None:
        """`wish`: one of `modes.WISHES`; `beside`: False where layers cannot be called otherwise (compiled)."""
        if wish not in WISHES:
            raise UserError(f"`adapters` cannot be {wish!r}; use {', '.join(WISHES)}.")
        drawer = base.drawer
        self._base, self._device, self._wish = base, device, wish
        text = {key: one for key, one in base.modules.items() if key[0] != drawer.denoiser}
        own = {key: one for key, one in base.modules.items() if key[0] == drawer.denoiser}
        self._text, self._denoiser = Patcher(text), Patcher(own)
        self._slots = Slots(own, drawer.denoiser, device.place, drawer.in_a_row)
        self._beside = beside
        self._frozen = any(_is_frozen(one) for one in own.values())
        #: Whether weights wait in ordinary memory: there they are changed.
        self._waiting = any(_place(one) != device.place.type for one in own.values())
        self._pace = usual(device.place.type)
        if self._waiting:
            self._pace = replace(self._pace, forming=usual("cpu").forming)
        self._mode = Mode.MERGE
        #: What of the denoiser is merged, and what is in slots, picture by picture.
        self._merged: State = ()
        self._inside: tuple[State, ...] = ()
        self._lost: OrderedDict[State, float] = OrderedDict()
        self._sizes: weakref.WeakKeyDictionary[Adapter, _Size] = weakref.WeakKeyDictionary()

    @property
    def mode(self) -> Mode:
        """How the adapters of the last call were applied."""
        return self._mode

    @property
    def pace(self) -> Pace:
        """What was learned of this device."""
        return self._pace

    @property
    def patchers(self) -> tuple[Patcher, Patcher]:
        """Those of the text encoders and of the denoiser."""
        return self._text, self._denoiser

    @property
    def bytes(self) -> int:
        """Memory that the slots take."""
        return self._slots.bytes

    # ---- doing it

    def for_text(self, stack: Stack) -> State:
        """Makes the text encoders read with these; returns what is in effect there, for who remembers prompts.

        Raises `UserError` if a change does not fit its layer: then nothing is in effect.
        """
        in_text, _ = self._text.apply(stack, _of_denoiser)
        return in_text

    @staticmethod
    def text_state(stack: Stack) -> State:
        """What `for_text` would return, without doing it."""
        return states_of(amounts_of(stack))[0]

    def for_pictures(self, stacks: Sequence[Stack], calls: Calls) -> None:
        """Makes the next call of the denoiser draw with these, one for each picture, in the order of the pictures.

        `calls`: what is still to be drawn with them. Raises `UserError` as `for_text`, and if the stacks differ and
        cannot be `mixed`, `ValueError`.
        """
        if all(list(stack) == list(stacks[0]) for stack in stacks):
            before, self._mode = self._mode, self._choice(stacks[0], calls)
            if before is Mode.MIXED and self._slots.bytes > SPARE:
                self._slots.forget()
                self._inside = ()
            self._put_or_beside(stacks[0])
            return
        if not self.mixable(stacks):
            raise ValueError("pictures of one call have different LoRAs, which cannot be applied apart")
        self._mode = Mode.MIXED
        self._put(stacks)

    def drawn(self, calls: Calls, step_s: float, stacks: Sequence[Stack]) -> None:
        """A step of the calls that were drawn, of this kind, took so long; 0: nobody knows."""
        self._pace = self._pace.after_drawing(self._mode, calls, step_s)
        step_s = step_s or self._pace.step(self._mode, calls)  # 0: it could not be measured
        if self._mode is Mode.SLOTS:
            mark = _in_denoiser(stacks[0])
            slower = step_s - step_s / self._pace.penalty[Mode.SLOTS]
            self._lost[mark] = self._lost.pop(mark, 0.0) + slower * calls.steps
            if len(self._lost) > REMEMBERED:
                self._lost.popitem(last=False)

    def forget(self) -> None:
        """Puts the base back as it was."""
        self._slots.forget()
        self._text.restore()
        self._denoiser.restore()
        self._merged, self._inside = (), ()

    # ---- what can be done, and what is faster

    def mixable(self, stacks: Sequence[Stack]) -> bool:
        """Whether pictures with these can be drawn in one call."""
        return self._beside and self._wish != "merge" and self._slots.apart(stacks)

    def pays_together(self, stacks: Sequence[Stack], apart: Sequence[Calls], together: Sequence[Calls]) -> bool:
        """Whether jobs with these adapters are faster in common calls; `apart` and `together` as `modes` has them."""
        if not self.mixable(stacks):
            return False
        switches = [self._switch(stack) for stack in stacks]
        return self._wish == "slots" or modes.pays_together(self._pace, switches, apart, together, self._room())

    def in_words(self, stack: Stack) -> str | None:
        """Why `adapters = slots` has no effect, in a sentence; None if it has, or was not asked for."""
        if self._wish != "slots" or not any(one.unet for one in stack):
            return None
        if not self._beside:
            return "`adapters = slots` had no effect: the layers of a compiled base cannot be called otherwise."
        if not self._slots.fits(stack):
            return "`adapters = slots` had no effect: the ranks of these LoRAs are too high together."
        return None

    def _choice(self, stack: Stack, calls: Calls) -> Mode:
        if self._frozen:
            self._refuse_merging(stack)
            return Mode.SLOTS
        if self._wish == "merge" or not self._able(stack):
            return Mode.MERGE
        if self._wish == "slots":
            return Mode.SLOTS
        switch = self._switch(stack)
        return choose(self._pace, switch, calls, self._room() if switch.held else None)

    def _able(self, stack: Stack) -> bool:
        """Whether slots can take something of it, and nothing is too much for them."""
        something = any(one.unet and self._size(one.adapter).factors for one in stack)
        return self._beside and something and self._slots.fits(stack)

    def _refuse_merging(self, stack: Stack) -> None:
        if not self._slots.fits(stack):
            raise UserError(
                f"These LoRAs cannot be used together with the base “{self._base.name}”, whose weights are kept in "
                "few bits: their ranks are too high together. Take fewer."
            )
        for one in stack:
            left = [change for change in one.adapter.changes if not _of_text(change) and not self._slots.takes(change)]
            if left and one.unet:
                raise UserError(
                    f"The LoRA “{one.adapter.name}” cannot be used with the base “{self._base.name}”, whose weights "
                    f"are kept in few bits: {len(left)} of its modules (first: {left[0].delta.name}) need whole ones."
                )

    def _switch(self, stack: Stack) -> Switch:
        """What it takes to have these in effect, from what is now."""
        wanted = _in_denoiser(stack)
        sizes = [self._size(one.adapter) for one in amounts_of(stack)]
        formed = sum(size.weights for size in sizes)
        if set(self._merged) <= set(wanted):  # what is merged already stays as it is
            known = {mark for mark, _ in self._merged}
            formed = sum(self._size(one.adapter).weights for one in amounts_of(stack) if one.adapter.key not in known)
        return Switch(
            formed=0 if self._merged == wanted else formed,
            copied=0 if self._inside == (wanted,) else sum(size.factors for size in sizes),
            left=sum(size.left for size in sizes),
            held=max(0, formed - self._denoiser.held),
            lost=self._lost.get(wanted, 0.0),
        )

    def _size(self, adapter: Adapter) -> _Size:
        found = self._sizes.get(adapter)
        if found is None:
            weights = left = factors = 0
            for change in adapter.changes:
                if _of_text(change):
                    continue
                own = [self._denoiser.weight(self._denoiser.same(place)) for place in change.places]
                count = sum(one.numel() * one.element_size() for one in own)
                weights += count
                if self._slots.takes(change):
                    rank = change.delta.rank or 0
                    factors += sum(rank * (w.shape[0] + w[0].numel()) * w.element_size() for w in own)
                else:
                    left += count
            found = self._sizes[adapter] = _Size(weights, left, factors)
        return found

    def _room(self) -> int | None:
        if self._device.place.type != "cuda" or self._waiting:
            return None
        free, _ = torch.cuda.mem_get_info(self._device.place)
        return int(free * 0.8)

    def _put_or_beside(self, stack: Stack) -> None:
        """Has it in effect; in slots if there is too little memory to merge it."""
        try:
            self._put([stack])
            return
        except Exception as error:
            able = self._mode is Mode.MERGE and self._wish == "auto" and self._able(stack)
            if not able or not is_out_of_memory(error):
                raise
        free_cache(self._device)  # not in the handler: there the error keeps what could be freed
        self._mode = Mode.SLOTS
        self._put([stack])

    def _put(self, stacks: Sequence[Stack]) -> None:
        """Has them in effect, and learns how long that takes."""
        marks = tuple(_in_denoiser(stack) for stack in stacks)
        if self._mode is Mode.MERGE:
            self._slots.clear()
            self._inside = ()
            formed = self._switch(stacks[0]).formed
            took = self._timed(lambda: self._merge(stacks[0], _of_text))
            self._merged = marks[0]
            self._pace = self._pace.after_merging(formed, took)
            return
        self._merge(stacks[0] if self._mode is Mode.SLOTS else (), self._leave)
        if self._inside == marks:
            return
        self._inside = ()
        took = self._timed(lambda: self._slots.apply(stacks))
        self._inside = marks
        copied = sum(self._size(one.adapter).factors for stack in stacks for one in amounts_of(stack))
        self._pace = self._pace.after_copying(copied, took)

    def _merge(self, stack: Stack, leave: Callable[[Change], bool]) -> None:
        self._merged = ()
        try:
            self._denoiser.apply(stack, leave)
        except BaseException:
            self._slots.clear()
            self._inside = ()
            raise

    def _leave(self, change: Change) -> bool:
        return _of_text(change) or self._slots.takes(change)

    def _timed(self, action: Callable[[], Any]) -> float:
        began = time.perf_counter()
        action()
        wait_for(self._device)
        return time.perf_counter() - began


def _of_text(change: Change) -> bool:
    return change.layers[0][0].startswith("text_encoder")


def _of_denoiser(change: Change) -> bool:
    return not _of_text(change)


def _in_denoiser(stack: Stack) -> State:
    return states_of(amounts_of(stack))[1]


def _place(module: torch.nn.Module) -> str:
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight.device.type


def _is_frozen(module: torch.nn.Module) -> bool:
    """Whether a weight is kept in fewer bits than can be added to."""
    weight = module.weight
    return isinstance(weight, torch.Tensor) and not weight.dtype.is_floating_point
