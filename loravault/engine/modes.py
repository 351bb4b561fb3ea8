"""Which way adapters are applied: merged into the weights, or beside them in slots. Decides from what was measured.

Merging costs once and nothing in a step; slots cost little once and something in every step. So what counts is how
many steps are drawn with one combination of adapters, how long a step takes, and how fast this device forms weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

#: How much a new measurement counts beside what was known.
NEW = 0.4
#: Seconds that another way has to save: for less the same request is not drawn with other roundings.
WORTH = 0.1
#: What a penalty can be believed to be: a step beside which something else ran is not taken for slow slots.
LEAST, GREATEST = 1.0, 4.0


class Mode(StrEnum):
    """How adapters are in effect while a picture is drawn."""

    MERGE = "merge"
    SLOTS = "slots"
    #: In slots, with other adapters for each picture of a call.
    MIXED = "mixed"


#: As `config.toml` calls them; `auto` is whichever is expected to be faster.
WISHES = ("auto", "merge", "slots")


@dataclass(frozen=True)
class Calls:
    """Calls of the denoiser that are alike."""

    #: Calls in all: steps, times how often the pictures do not fit into one call.
    steps: int
    #: Pixels of a picture, and pictures of a call.
    pixels: int
    pictures: int


@dataclass(frozen=True)
class Switch:
    """What it takes to have one combination of adapters in effect."""

    #: Bytes of weights that merging would form anew; 0: it is merged.
    formed: int
    #: Bytes that would be copied into slots; 0: they are there.
    copied: int
    #: Of `formed`, the bytes for which the original has to be kept beside it for the first time.
    held: int = 0
    #: Of `formed`, what slots would leave to merging.
    left: int = 0
    #: Seconds by which earlier pictures with this combination have taken longer because it was in slots.
    lost: float = 0.0


@dataclass(frozen=True)
class Pace:
    """How fast one base is on one device. Begins with what is usual and learns from what is measured."""

    #: Bytes of weights formed in a second, and copied into slots.
    forming: float
    copying: float
    #: Seconds of a step without anything beside the weights, for a megapixel, as long as none was measured.
    megapixel: float
    #: How much longer a step takes: mode → factor.
    penalty: Mapping[Mode, float] = field(
        default_factory=lambda: MappingProxyType({Mode.MERGE: 1.0, Mode.SLOTS: 1.2, Mode.MIXED: 1.3})
    )
    #: (mode, pixels, pictures of a call) → seconds of a step.
    steps: Mapping[tuple[Mode, int, int], float] = field(default_factory=lambda: MappingProxyType({}))

    # ---- learning

    def after_merging(self, formed: int, seconds: float) -> Pace:
        """So many bytes of weights were formed in this time."""
        if formed <= 0 or seconds <= 0:
            return self
        return replace(self, forming=1 / _between(1 / self.forming, seconds / formed))

    def after_copying(self, copied: int, seconds: float) -> Pace:
        """So many bytes were copied into slots in this time."""
        if copied <= 0 or seconds <= 0:
            return self
        return replace(self, copying=1 / _between(1 / self.copying, seconds / copied))

    def after_drawing(self, mode: Mode, calls: Calls, seconds: float) -> Pace:
        """A step of such calls took this time."""
        if seconds <= 0:
            return self
        key = mode, calls.pixels, calls.pictures
        known = self.steps.get(key)
        steps = {**self.steps, key: seconds if known is None else _between(known, seconds)}
        found = replace(self, steps=MappingProxyType(steps))
        other = steps.get((Mode.MERGE, calls.pixels, calls.pictures))
        if mode is not Mode.MERGE and other is not None:
            factor = min(max(steps[key] / other, LEAST), GREATEST)
            penalty = {**self.penalty, mode: _between(self.penalty[mode], factor)}
            found = replace(found, penalty=MappingProxyType(penalty))
        return found

    # ---- expecting

    def step(self, mode: Mode, calls: Calls) -> float:
        """Seconds that a step of such calls is expected to take."""
        for known in (mode, *Mode):
            seconds = self.steps.get((known, calls.pixels, calls.pictures))
            if seconds is not None:
                return seconds / self.penalty[known] * self.penalty[mode]
        return self._like(calls) * self.penalty[mode]

    def _like(self, calls: Calls) -> float:
        """From the calls that are nearest in size, in proportion; a call is not cheaper for being split."""
        amount = calls.pixels * calls.pictures
        if not self.steps:
            return self.megapixel * amount / 1e6
        near = min(self.steps, key=lambda key: abs(key[1] * key[2] - amount))
        return self.steps[near] / self.penalty[near[0]] * amount / (near[1] * near[2])


def _between(known: float, found: float) -> float:
    return known + (found - known) * NEW


#: Kind of device → what is usual there: measured on two cores; of cards as others publish it (`docs/adapters.md`).
USUAL: Mapping[str, Pace] = {
    "cpu": Pace(forming=1.5e9, copying=1.5e9, megapixel=20.0),
    "mps": Pace(forming=2e10, copying=1e10, megapixel=2.0),
    "cuda": Pace(forming=1e11, copying=1e10, megapixel=0.2),
}


def usual(device: str) -> Pace:
    """Where nothing was measured yet, on a device of this kind (as torch names it)."""
    return USUAL.get(device, USUAL["cpu"])


def seconds(pace: Pace, mode: Mode, switch: Switch, calls: Calls) -> float:
    """What one combination costs beyond being drawn merged: the switch, and the slower steps."""
    slower = calls.steps * (pace.step(mode, calls) - pace.step(Mode.MERGE, calls))
    if mode is Mode.MERGE:
        return switch.formed / pace.forming
    return switch.copied / pace.copying + min(switch.left, switch.formed) / pace.forming + max(slower, 0.0)


def choose(pace: Pace, switch: Switch, calls: Calls, room: int | None = None) -> Mode:
    """How one combination of adapters is applied for these calls.

    `room`: bytes of memory that are free for copies of weights; None: nobody knows. What was lost to slots before
    counts: a combination that is asked for picture by picture is merged once merging would have paid.
    """
    if room is not None and switch.held > room:
        return Mode.SLOTS
    merging = seconds(pace, Mode.MERGE, switch, calls)
    beside = seconds(pace, Mode.SLOTS, switch, calls)
    return Mode.MERGE if merging <= beside + switch.lost + WORTH else Mode.SLOTS


def pays_together(
    pace: Pace, switches: Sequence[Switch], apart: Sequence[Calls], together: Sequence[Calls], room: int | None = None
) -> bool:
    """Whether jobs with different adapters are faster in common calls than one after the other, each its best way.

    `apart`: the calls of each job alone; `together`: the common calls.
    """
    alone = 0.0
    for switch, calls in zip(switches, apart, strict=True):
        mode = choose(pace, switch, calls, room)
        alone += seconds(pace, mode, switch, calls) + calls.steps * pace.step(Mode.MERGE, calls)
    common = sum(switch.copied for switch in switches) / pace.copying
    return common + sum(calls.steps * pace.step(Mode.MIXED, calls) for calls in together) + WORTH < alone
