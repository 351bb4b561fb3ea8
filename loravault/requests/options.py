"""Options: from which of their places one is taken, and what its value may be. Everything wrong is said in words."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from loravault.formats import samplers
from loravault.requests import defaults, slips
from loravault.requests.model import MAX_SEED, OPTIONS

T = TypeVar("T")

#: Pasted parameter → option.
PASTED: Mapping[str, str] = {
    "Steps": "steps",
    "CFG scale": "cfg",
    "Seed": "seed",
    "Size": "size",
    "Clip skip": "clip_skip",
    "Sampler": "sampler",
    "VAE": "vae",
}
#: Pasted parameters that changed the picture they came with, and that are not used here.
UNUSED = (
    "Hires upscale", "Hires upscaler", "Denoising strength", "Variation seed", "Seed resize from", "Face restoration",
    "Refiner", "ENSD", "Distilled CFG Scale", "Tiling", "Token merging ratio", "TI hashes", "NGMS",
)  # fmt: skip


class NotThis(Exception):  # noqa: N818 - completes the sentence `"steps" is "many": it …`
    """A value that an option cannot have."""


@dataclass(frozen=True)
class Given:
    """An option's value with the place it is from, in words (`the properties`)."""

    value: Any
    place: str


def gather(layers: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Given]:
    """Option → its value from the last layer that gives one. Empty values (a template's) give nothing."""
    result: dict[str, Given] = {}
    for place, values in layers:
        for key, value in values.items():
            if value is not None and value not in ("", []):
                result[key] = Given(value, place)
    return result


def pasted_options(parameters: Mapping[str, str]) -> dict[str, Any]:
    """The options that pasted generation data sets."""
    result: dict[str, Any] = {option: parameters[key] for key, option in PASTED.items() if key in parameters}
    if "sampler" in result and parameters.get("Schedule type"):
        result["sampler"] = Scheduled(result["sampler"], parameters["Schedule type"])
    return result


@dataclass(frozen=True)
class Scheduled:
    """A sampler with the schedule type that A1111 writes beside it."""

    sampler: str
    schedule: str

    def __str__(self) -> str:
        return f"{self.sampler} with schedule {self.schedule}"


def read(given: Mapping[str, Given], key: str, parse: Callable[[Any], T], problems: list[str]) -> T | None:
    """The parsed value of an option; None if it is not given or not possible (then a sentence is in `problems`)."""
    entry = given.get(key)
    if entry is None:
        return None
    try:
        return parse(entry.value)
    except NotThis as reason:
        problems.append(f'In {entry.place}, "{key}" is {shown(entry.value)}: {reason}.')
        return None


def can_be(parse: Callable[[Any], object]) -> Callable[[Any], bool]:
    """Whether a value is one that this parser takes."""

    def look(value: Any) -> bool:
        try:
            parse(value)
        except NotThis:
            return False
        return True

    return look


def misspelled(properties: Mapping[str, Any]) -> list[str]:
    """Sentences about properties of a request for pictures that are nearly options. All others are the user's own."""
    sides = [properties.get(key) for key in ("width", "height")]
    both = all(_float(side) is not None for side in sides)
    size = ["The properties `width` and `height` mean nothing here; write `size: 512x768` instead."] if both else []
    return size + slips.told(properties, _LOOKS, slips.ELSEWHERE)


def unknown_options(keys: Iterable[str]) -> list[str]:
    """A sentence for each `#|` option that does not exist; grids are told apart by the caller."""
    result = []
    for key in keys:
        if key in OPTIONS:
            continue
        near = slips.ELSEWHERE.get(key) or next(iter(difflib.get_close_matches(key, OPTIONS, n=1, cutoff=0.6)), None)
        hint = f'; did you mean "{near}"?' if near else "."
        result.append(f'There is no option "{_cut(key)}"{hint} It was ignored.')
    return result


def shown(value: Any) -> str:
    """A value as it stands in a sentence."""
    if isinstance(value, bool):
        return f'"{str(value).lower()}"'
    return str(value) if isinstance(value, int) and abs(value) < 10**15 else f'"{_cut(str(value))}"'


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 40 else f"{line[:39]}…"


def number(low: float, high: float) -> Callable[[Any], float]:
    """A parser of finite numbers between two limits."""

    def parse(value: Any) -> float:
        found = _float(value)
        if found is None or not low <= found <= high:
            raise NotThis(f"it must be a number from {low:g} to {high:g}")
        return found

    return parse


def whole(low: int, high: int, what: str = "") -> Callable[[Any], int]:
    """A parser of whole numbers between two limits; `what` says why there is the upper one."""

    def parse(value: Any) -> int:
        found = _float(value)
        if found is None or found != int(found) or not low <= found <= high:
            raise NotThis(f"it must be a whole number from {low} to {high}{what}")
        return int(value) if isinstance(value, int) else int(found)

    return parse


def _float(value: Any) -> float | None:
    """A number as YAML or a person writes it; None for anything else, NaN and infinity included."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = str(value).strip() if not isinstance(value, int) or abs(value) < 10**300 else "inf"
    if not re.fullmatch(r"[-+]?(\d{1,30}(\.\d{0,30})?|\.\d{1,30})([eE][-+]?\d{1,3})?", text):
        return None
    found = float(text)
    return found if math.isfinite(found) else None


def seed(value: Any) -> int | None:
    """A seed; None (to be drawn) for -1 and `random`, as A1111 has it."""
    text = str(value).strip().lower()
    if text in ("-1", "-1.0", "random"):
        return None
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,16}(\.0)?", text) or int(text.partition(".")[0]) > MAX_SEED:
        raise NotThis(f"it must be a whole number from 0 to {MAX_SEED}, or -1 for a new one each time")
    return int(text.partition(".")[0])


def size(value: Any, step: int = defaults.SIDE_STEP) -> tuple[int, int]:
    """`512x768`, `512×768`, `512` or `[512, 768]` as (width, height), multiples of `step`."""
    parts = (
        value if isinstance(value, Sequence) and not isinstance(value, str) else re.split(r"[x×*]", str(value).lower())
    )
    numbers = [_float(part) for part in parts]
    sides = [int(found) for found in numbers if found is not None and found == int(found)]
    if len(sides) != len(numbers) or len(sides) not in (1, 2) or isinstance(value, bool):
        raise NotThis("it must be of the form 512x768 (width x height)")
    width, height = sides[0], sides[-1]
    low, high = defaults.MIN_SIDE, defaults.MAX_SIDE
    if not (low <= width <= high and low <= height <= high):
        raise NotThis(f"each side must be from {low} to {high}")
    if width * height > defaults.MAX_PIXELS:
        raise NotThis(f"that is more than {defaults.MAX_PIXELS // 10**6} million pixels")
    if width % step or height % step:
        near = "x".join(str(max(low, round(side / step) * step)) for side in (width, height))
        raise NotThis(f"both sides must be multiples of {step}; nearest: {near}")
    return width, height


def sampler(value: Any) -> str:
    """A canonical sampler."""
    name, schedule = (value.sampler, value.schedule) if isinstance(value, Scheduled) else (str(value), None)
    found = samplers.canonical(name, schedule)
    if found is None:
        near = ", ".join(samplers.nearest(f"{name} {schedule}" if schedule else name))
        raise NotThis(f"there is no such sampler here. Nearest: {near}. All: {', '.join(samplers.SAMPLERS)}")
    return found


def size_for(family: str) -> Callable[[Any], tuple[int, int]]:
    """A parser of (width, height) in the steps in which the family can draw: flow models in patches of 16 pixels."""
    return lambda value: size(value, defaults.SIDE_STEP * (2 if family in samplers.FLOW_FAMILIES else 1))


def sampler_for(family: str) -> Callable[[Any], str]:
    """A parser of a canonical sampler that the family can be drawn with."""

    def parse(value: Any) -> str:
        found = sampler(value)
        if family in samplers.FLOW_FAMILIES and found not in samplers.FLOW_SAMPLERS:
            raise NotThis(f"{family} is a flow model and cannot be drawn with it; {samplers.FLOW_SAMPLERS[0]} can")
        return found

    return parse


def choice(*allowed: str, **aliases: str) -> Callable[[Any], str]:
    """A parser of one of some words, in any case, and of other spellings for them."""

    def parse(value: Any) -> str:
        word = str(value).strip().lower()
        word = aliases.get(word, word)
        if word not in allowed:
            raise NotThis(f"it must be one of {', '.join(allowed)}")
        return word

    return parse


def text(value: Any) -> str:
    """One text; a list becomes one with commas, as tags are written."""
    if isinstance(value, Mapping):
        raise NotThis("it must be a text")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(str(item).strip() for item in value if item is not None)
    return str(value).strip()


#: Options -> whether a value could stand there; None: any text could.
_LOOKS: slips.Looks = dict.fromkeys(OPTIONS) | {
    "seed": can_be(seed),
    "count": can_be(whole(1, 999)),
    "size": can_be(size),
    "steps": can_be(whole(1, defaults.MAX_STEPS)),
    "cfg": can_be(number(0, defaults.MAX_CFG)),
    "sampler": can_be(sampler),
    "clip_skip": can_be(whole(1, 24)),
    "format": can_be(choice("webp", "png", "jpeg", "jpg")),
    "missing_loras": can_be(choice("fail", "skip")),
}
