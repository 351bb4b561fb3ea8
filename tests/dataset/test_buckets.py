"""Buckets: kohya's rule number for number, and nothing of a picture lost that need not be."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.dataset.buckets import (
    FILLS,
    Item,
    Rule,
    Size,
    arrange,
    nearest,
    noted,
    own,
    place,
    resolutions_of,
    rule_for,
    sizes,
    square,
    table,
)
from loravault.formats.training import LookedAt, Survey, TrainingPicture

SIDES = st.integers(32, 6000)
SIZES = st.tuples(SIDES, SIDES)
RESOLUTIONS = st.sampled_from([32, 64, 96, 128, 200, 256, 384, 512, 600, 640, 768, 1024, 1280, 1536])

#: What sd-scripts (v0.10.1) answered: resolution, bounds, step, no_upscale, picture, bucket, scaled.
KOHYA: list[tuple[int, int, int, int, bool, Size, Size, Size]] = [
    (512, 256, 1024, 64, False, (512, 512), (512, 512), (512, 512)),
    (512, 256, 1024, 64, False, (4032, 3024), (576, 448), (597, 448)),
    (512, 256, 1024, 64, False, (3024, 4032), (448, 576), (448, 597)),
    (512, 256, 1024, 64, False, (1920, 1080), (640, 384), (683, 384)),
    (512, 256, 1024, 64, False, (853, 1280), (384, 640), (427, 640)),
    (512, 256, 1024, 64, False, (5000, 700), (1024, 256), (1829, 256)),
    (512, 256, 1024, 64, False, (300, 420), (448, 576), (448, 627)),
    (512, 256, 1024, 64, False, (1000, 1001), (512, 512), (512, 513)),
    (1024, 256, 2048, 64, False, (512, 512), (1024, 1024), (1024, 1024)),
    (1024, 256, 2048, 64, False, (4032, 3024), (1152, 896), (1195, 896)),
    (1024, 256, 2048, 64, False, (3024, 4032), (896, 1152), (896, 1195)),
    (1024, 256, 2048, 64, False, (1920, 1080), (1344, 768), (1365, 768)),
    (1024, 256, 2048, 64, False, (853, 1280), (832, 1216), (832, 1248)),
    (1024, 256, 2048, 64, False, (5000, 700), (2048, 320), (2286, 320)),
    (1024, 256, 2048, 64, False, (300, 420), (832, 1216), (869, 1216)),
    (1024, 256, 2048, 64, False, (1000, 1001), (1024, 1024), (1024, 1025)),
    (1024, 512, 2048, 32, False, (512, 512), (1024, 1024), (1024, 1024)),
    (1024, 512, 2048, 32, False, (4032, 3024), (1184, 864), (1184, 888)),
    (1024, 512, 2048, 32, False, (3024, 4032), (864, 1184), (888, 1184)),
    (1024, 512, 2048, 32, False, (1920, 1080), (1344, 768), (1365, 768)),
    (1024, 512, 2048, 32, False, (853, 1280), (832, 1248), (832, 1248)),
    (1024, 512, 2048, 32, False, (5000, 700), (2048, 512), (3657, 512)),
    (1024, 512, 2048, 32, False, (300, 420), (864, 1184), (864, 1210)),
    (1024, 512, 2048, 32, False, (1000, 1001), (1024, 1024), (1024, 1025)),
    (512, 256, 1024, 64, True, (512, 512), (512, 512), (512, 512)),
    (512, 256, 1024, 64, True, (4032, 3024), (512, 384), (512, 384)),
    (512, 256, 1024, 64, True, (3024, 4032), (384, 512), (384, 512)),
    (512, 256, 1024, 64, True, (1920, 1080), (640, 384), (683, 384)),
    (512, 256, 1024, 64, True, (853, 1280), (384, 576), (384, 576)),
    (512, 256, 1024, 64, True, (5000, 700), (1344, 192), (1371, 192)),
    (512, 256, 1024, 64, True, (300, 420), (256, 384), (300, 420)),
    (512, 256, 1024, 64, True, (1000, 1001), (512, 512), (512, 513)),
    (1024, 256, 2048, 64, True, (512, 512), (512, 512), (512, 512)),
    (1024, 256, 2048, 64, True, (4032, 3024), (1088, 832), (1109, 832)),
    (1024, 256, 2048, 64, True, (3024, 4032), (832, 1088), (832, 1109)),
    (1024, 256, 2048, 64, True, (1920, 1080), (1344, 768), (1365, 768)),
    (1024, 256, 2048, 64, True, (853, 1280), (832, 1216), (832, 1248)),
    (1024, 256, 2048, 64, True, (5000, 700), (2240, 320), (2286, 320)),
    (1024, 256, 2048, 64, True, (300, 420), (256, 384), (300, 420)),
    (1024, 256, 2048, 64, True, (1000, 1001), (960, 960), (1000, 1001)),
]


@pytest.mark.parametrize("row", KOHYA, ids=str)
def test_the_same_buckets_as_kohya(row: tuple[int, int, int, int, bool, Size, Size, Size]) -> None:
    resolution, smallest, largest, step, no_upscale, size, bucket, scaled = row
    found = (own if no_upscale else nearest)(Rule(resolution, smallest, largest, step), size)
    assert (found.bucket, found.scaled) == (bucket, scaled)


def test_the_buckets_of_512() -> None:
    """The list every kohya log prints for 512."""
    assert sizes(rule_for(512)) == (
        (256, 832), (256, 896), (256, 960), (256, 1024), (320, 704), (320, 768), (384, 640), (448, 576), (512, 512),
        (576, 448), (640, 384), (704, 320), (768, 320), (832, 256), (896, 256), (960, 256), (1024, 256),
    )  # fmt: skip


@given(RESOLUTIONS)
def test_every_bucket_keeps_area_bounds_and_step(resolution: int) -> None:
    rule = rule_for(resolution)
    found = sizes(rule)
    assert found == tuple(sorted(set(found)))
    assert any(width == height for width, height in found)
    for width, height in found:
        assert width * height <= resolution**2
        assert width % rule.step == height % rule.step == 0 == width % 16
        assert (height, width) in found
        assert rule.smallest <= min(width, height) <= max(width, height) <= rule.largest


@given(RESOLUTIONS, SIZES)
def test_a_picture_covers_its_bucket_with_its_own_shape(resolution: int, size: Size) -> None:
    """Scaled to cover, the middle taken, the ratio of its sides kept to within the rounding of one pixel."""
    rule = rule_for(resolution)
    for found in (place(rule, size), square(resolution, size)):
        (width, height), (wide, high), (left, top) = found.bucket, found.scaled, found.crop
        assert wide >= width > 0
        assert high >= height > 0
        assert 0 <= (wide - width) - 2 * left <= 1
        assert 0 <= (high - height) - 2 * top <= 1
        assert 0 <= found.loss < 1
        slack = 1 + max(size[0] / size[1], size[1] / size[0])
        assert abs(wide - high * Fraction(*size)) <= slack


@given(RESOLUTIONS, SIZES)
def test_no_other_bucket_is_nearer(resolution: int, size: Size) -> None:
    rule = rule_for(resolution)
    found = nearest(rule, size).bucket
    ratio = size[0] / size[1]
    assert found == size or all(abs(found[0] / found[1] - ratio) <= abs(w / h - ratio) for w, h in sizes(rule))


@given(RESOLUTIONS, SIZES)
def test_nothing_is_blown_up_much_that_has_a_bucket_of_its_own(resolution: int, size: Size) -> None:
    """Blown up by more than a quarter only where the picture's own size would be beyond the bounds."""
    rule = rule_for(resolution)
    found, kept = place(rule, size), own(rule, size)
    possible = min(kept.bucket) >= rule.smallest and max(kept.bucket) <= rule.largest
    assert not possible or found.scaled[0] * FILLS <= size[0]
    assert kept.scaled[0] <= size[0] + 1


def test_bounds_that_leave_no_bucket_are_refused() -> None:
    for resolution in (0, 8, 15):
        with pytest.raises(ValueError, match="no buckets"):
            rule_for(resolution)
    with pytest.raises(ValueError, match="no buckets"):
        Rule(512, 640, 1024)


# ---- a whole set


def shown(*seen: LookedAt | Size) -> tuple[list[TrainingPicture], Survey]:
    looks = [
        one if isinstance(one, LookedAt) else LookedAt(name=f"{n}.png", width=one[0], height=one[1], sha256=f"{n}")
        for n, one in enumerate(seen)
    ]
    return [TrainingPicture(path=f"/{one.name}", name=one.name) for one in looks], Survey(pictures=tuple(looks))


@given(
    st.lists(st.tuples(SIZES, st.integers(1, 5)), min_size=1, max_size=12),
    st.lists(st.sampled_from([256, 512, 768, 1024]), min_size=1, max_size=4, unique=True),
)
def test_every_picture_counts_as_its_repeats_say(given_: list[tuple[Size, int]], resolutions: list[int]) -> None:
    """However many resolutions a picture fills: times of all its items together are in proportion to its repeats."""
    pictures, survey = shown(*(size for size, _ in given_))
    pictures = [
        TrainingPicture(path=one.path, name=one.name, repeats=n) for one, (_, n) in zip(pictures, given_, strict=True)
    ]
    items = arrange(pictures, survey, resolutions)
    total = [sum(item.times for item in items if item.picture == n) for n in range(len(pictures))]
    assert {Fraction(count, picture.repeats) for count, picture in zip(total, pictures, strict=True)} == {
        Fraction(total[0], pictures[0].repeats)
    }
    assert math.gcd(*(item.times for item in items)) == 1


def test_what_cannot_be_used_is_in_no_bucket() -> None:
    pictures, survey = shown((512, 512), LookedAt(name="x", problem="it is damaged"), (700, 500))
    items = arrange(pictures, survey, (512,))
    assert [item.picture for item in items] == [0, 2]
    assert table(items) == ((512, 512, 1), (576, 448, 1))


def test_a_picture_is_trained_at_the_resolutions_that_it_fills() -> None:
    assert resolutions_of((1600, 1200), (1024, 512, 768)) == (512, 768, 1024)
    assert resolutions_of((640, 640), (512, 768, 1024)) == (512, 768)  # 640 is blown up by a fifth
    assert resolutions_of((100, 100), (512, 768)) == (512,)


def test_random_squares_come_from_the_whole_picture() -> None:
    pictures, survey = shown((1600, 1200), (300, 900))
    assert [item.placement.bucket for item in arrange(pictures, survey, (512,), crops=True)] == [(512, 512)] * 2
    assert [item.placement.scaled for item in arrange(pictures, survey, (512,), crops=True)] == [
        (683, 512), (512, 1536)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("size", "remark"),
    [
        ((4000, 500), "at 1024×256 it loses 50% of its width"),
        ((500, 4000), "at 256×1024 it loses 50% of its height"),
        ((300, 300), "it is only 300×300 and trained at 256×256"),
        ((200, 200), "it is only 200×200 and blown up for 512×512"),
        ((450, 450), None),
        ((4032, 3024), None),
    ],
)
def test_what_a_bucket_does_to_a_picture_is_told(size: Size, remark: str | None) -> None:
    pictures, survey = shown(size)
    items = arrange(pictures, survey, (512,))
    found = noted(survey, items)
    assert found.pictures[0].remarks == (() if remark is None else (remark,))
    assert noted(found, items) == found


def test_random_squares_lose_nothing_for_good() -> None:
    """A panorama is seen in parts, all of them in the end: no remark."""
    pictures, survey = shown((4000, 1000))
    items = arrange(pictures, survey, (512,), crops=True)
    assert isinstance(items[0], Item)
    assert noted(survey, items, crops=True).pictures[0].remarks == ()
