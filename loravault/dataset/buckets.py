"""Buckets: which width and height each picture is trained at, so that neither shape nor head is cut away.

The rule is that of kohya's trainers, number for number: all widths in steps with the tallest height that keeps the
area, the nearest ratio of sides wins, the picture is scaled to cover and its middle is taken. A picture that is much
smaller than its bucket is not blown up: its own size, rounded down, becomes the bucket (their `bucket_no_upscale`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from loravault.formats.training import Survey, TrainingPicture

#: (width, height) in pixels.
Size = tuple[int, int]

#: Above this share of the long side that is cut away a picture is pointed out.
MUCH_CUT = 0.35
#: How small (side against side) a picture may be for a resolution or a bucket that it is blown up for.
FILLS = 0.8
_STEP = 64


@dataclass(frozen=True)
class Rule:
    """How buckets are made for one resolution; all in pixels."""

    #: Side of the square whose area no bucket exceeds.
    resolution: int
    #: Bounds of a bucket's sides.
    smallest: int
    largest: int
    #: Every side is a multiple of it.
    step: int = _STEP

    def __post_init__(self) -> None:
        if not 0 < self.step <= self.smallest <= self.resolution <= self.largest:
            raise ValueError(f"no buckets for {self}")


@dataclass(frozen=True)
class Placement:
    """How one picture becomes one of its bucket."""

    bucket: Size
    #: The picture's size after scaling: nowhere smaller than the bucket.
    scaled: Size
    #: Left and top edge of what is taken of it, in pixels of `scaled`.
    crop: Size

    @property
    def loss(self) -> float:
        """Share of the side that is cut most."""
        return 1 - min(self.bucket[0] / self.scaled[0], self.bucket[1] / self.scaled[1])


@dataclass(frozen=True)
class Item:
    """One picture at one resolution."""

    #: Its place in the spec and the survey.
    picture: int
    resolution: int
    placement: Placement
    #: How often it stands in one round; over all its resolutions this is in proportion to the picture's repeats.
    times: int


def rule_for(resolution: int) -> Rule:
    """The usual rule: sides from half to double, in steps of 64; finer below 512, where 64 would leave few shapes.

    Every family's models take multiples of 16. Raises `ValueError` below 32.
    """
    step = max(16, min(_STEP, resolution // 8 // 16 * 16))
    half = max(step, resolution // 2 // step * step)
    return Rule(resolution, smallest=half, largest=max(resolution, 2 * resolution // step * step), step=step)


@cache
def sizes(rule: Rule) -> tuple[Size, ...]:
    """Every bucket of a rule, sorted."""
    step, area = rule.step, rule.resolution**2
    square = math.isqrt(area) // step * step
    found = {(square, square)}
    for width in range(rule.smallest, rule.largest + 1, step):
        height = min(rule.largest, area // width // step * step)
        if height >= rule.smallest:
            found |= {(width, height), (height, width)}
    return tuple(sorted(found))


def nearest(rule: Rule, size: Size) -> Placement:
    """The bucket whose width through height is nearest to the picture's, whether it has to be blown up or not."""
    ratio = size[0] / size[1]
    bucket = size if size in sizes(rule) else min(sizes(rule), key=lambda one: abs(one[0] / one[1] - ratio))
    scale = bucket[1] / size[1] if ratio > bucket[0] / bucket[1] else bucket[0] / size[0]
    return _centred(bucket, (int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)))


def own(rule: Rule, size: Size) -> Placement:
    """The bucket that the picture's own size makes: at most the area, sides rounded down, never blown up.

    Sides may fall below the rule's bounds, even to 0.
    """
    scaled = size if size[0] * size[1] <= rule.resolution**2 else _shrunk(rule, size)
    return _centred((_floor(scaled[0], rule.step), _floor(scaled[1], rule.step)), scaled)


def _shrunk(rule: Rule, size: Size) -> Size:
    """At most the area; of the two ways to make one side a multiple of the step, the one that keeps the ratio."""
    ratio, step = size[0] / size[1], rule.step
    width = math.sqrt(rule.resolution**2 * ratio)
    by_width = _floor(int(width + 0.5), step)
    by_height = _floor(int(rule.resolution**2 / width + 0.5), step)
    if not by_width or not by_height:  # so long and thin that its short side is less than a step
        return int(width + 0.5), int(rule.resolution**2 / width + 0.5)
    height_then = _floor(int(by_width / ratio + 0.5), step)
    width_then = _floor(int(by_height * ratio + 0.5), step)
    errors = [abs(w / h - ratio) if h else math.inf for w, h in ((by_width, height_then), (width_then, by_height))]
    if errors[0] < errors[1]:
        return by_width, int(by_width / ratio + 0.5)
    return int(by_height * ratio + 0.5), by_height


def place(rule: Rule, size: Size) -> Placement:
    """Where a picture goes: the nearest bucket; if it is much smaller, its own, unless that is beyond the bounds."""
    found = nearest(rule, size)
    if found.scaled[0] * FILLS <= size[0]:
        return found
    kept = own(rule, size)
    return kept if min(kept.bucket) >= rule.smallest and max(kept.bucket) <= rule.largest else found


def square(resolution: int, size: Size) -> Placement:
    """For squares that are cut out at random: the short side becomes the square's; `crop` is that of the middle."""
    step = rule_for(resolution).step
    side = resolution // step * step
    scale = side / min(size)
    return _centred((side, side), (max(side, int(size[0] * scale + 0.5)), max(side, int(size[1] * scale + 0.5))))


def _floor(value: int, step: int) -> int:
    return value - value % step


def _centred(bucket: Size, scaled: Size) -> Placement:
    return Placement(bucket, scaled, ((scaled[0] - bucket[0]) // 2, (scaled[1] - bucket[1]) // 2))


# ---- a whole set


def resolutions_of(size: Size, resolutions: Sequence[int]) -> tuple[int, ...]:
    """Those resolutions that a picture fills; the smallest in any case."""
    side = math.sqrt(size[0] * size[1])
    ordered = sorted(set(resolutions))
    return tuple(one for one in ordered if one == ordered[0] or side >= FILLS * one)


def arrange(
    pictures: Sequence[TrainingPicture], survey: Survey, resolutions: Sequence[int], *, crops: bool = False
) -> tuple[Item, ...]:
    """Every usable picture at every resolution that it fills, in the order of the spec.

    However many resolutions a picture has, all its items together stand in a round as often as its repeats say against
    those of the others. `crops`: squares instead of buckets.
    """
    found: list[tuple[int, int, Placement, int, int]] = []
    for number, (picture, seen) in enumerate(zip(pictures, survey.pictures, strict=True)):
        if seen.problem is not None or picture.repeats < 1:
            continue
        size = (seen.width, seen.height)
        chosen = resolutions_of(size, resolutions)
        for resolution in chosen:
            placement = square(resolution, size) if crops else place(rule_for(resolution), size)
            found.append((number, resolution, placement, picture.repeats, len(chosen)))
    rounds = math.lcm(1, *(shared for *_, shared in found))
    times = [repeats * rounds // shared for *_, repeats, shared in found]
    common = math.gcd(0, *times) or 1
    return tuple(
        Item(number, resolution, placement, count // common)
        for (number, resolution, placement, _, _), count in zip(found, times, strict=True)
    )


def table(items: Iterable[Item]) -> tuple[tuple[int, int, int], ...]:
    """(width, height, pictures) of every bucket, the fullest first."""
    held: dict[Size, set[int]] = defaultdict(set)
    for item in items:
        held[item.placement.bucket].add(item.picture)
    return tuple(sorted(((*size, len(numbers)) for size, numbers in held.items()), key=lambda row: (-row[2], row)))


def noted(survey: Survey, items: Iterable[Item], *, crops: bool = False) -> Survey:
    """The survey with what happens to each picture in its bucket, where that should be known; twice is as once."""
    pictures = list(survey.pictures)
    for item in items:
        seen = pictures[item.picture]
        remark = _remark((seen.width, seen.height), item, crops=crops)
        if remark is not None and remark not in seen.remarks:
            pictures[item.picture] = replace(seen, remarks=(*seen.remarks, remark))
    return replace(survey, pictures=tuple(pictures))


def _remark(size: Size, item: Item, *, crops: bool) -> str | None:
    placement = item.placement
    shape = f"{placement.bucket[0]}×{placement.bucket[1]}"
    if not crops and placement.loss > MUCH_CUT:
        side = "width" if placement.crop[0] else "height"
        return f"at {shape} it loses {placement.loss:.0%} of its {side}"
    if placement.scaled[0] * FILLS > size[0]:
        return f"it is only {size[0]}×{size[1]} and blown up for {shape}"
    if max(placement.bucket) < item.resolution:
        return f"it is only {size[0]}×{size[1]} and trained at {shape}"
    return None
