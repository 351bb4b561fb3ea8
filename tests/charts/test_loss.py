"""The plot of a training's losses."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from PIL import Image

from loravault.charts import canvas
from loravault.charts.loss import HEIGHT, WIDTH, draw_losses, smoothed, ticks


def losses(count: int = 800) -> list[tuple[int, float]]:
    chance = random.Random(1)
    return [(n, 0.12 + 0.1 * math.exp(-n / 200) + chance.gauss(0, 0.03)) for n in range(1, count + 1)]


def colours(path: Path) -> set[tuple[int, ...]]:
    with Image.open(path) as image:
        assert image.size == (WIDTH, HEIGHT)
        return {pixel[:3] for _, pixel in image.getcolors(1 << 20) or [] if pixel[3] > 200}


def test_raw_smoothed_and_validation_are_all_there(tmp_path: Path) -> None:
    assert draw_losses(losses(), [(0, 0.25), (400, 0.2), (800, 0.21)], [200, 400, 600, 800], tmp_path / "a/loss.png")
    assert {canvas.BLUE[:3], canvas.ORANGE[:3], canvas.INK[:3]} <= colours(tmp_path / "a/loss.png")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["loss.png"]
    assert draw_losses(losses(), [], [], tmp_path / "b.png")
    assert canvas.ORANGE[:3] not in colours(tmp_path / "b.png")


def test_it_has_no_ground_of_its_own(tmp_path: Path) -> None:
    draw_losses(losses(), [], [], tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        assert image.getpixel((2, 2))[3] == 0  # type: ignore[index]


@pytest.mark.parametrize("ground", [(255, 255, 255), (30, 30, 30)])
@pytest.mark.parametrize("colour", [canvas.INK, canvas.BLUE, canvas.ORANGE])
def test_every_colour_can_be_read_on_light_and_on_dark(colour: tuple[int, ...], ground: tuple[int, ...]) -> None:
    """WCAG asks for a contrast of 3 of graphics and large letters."""

    def luminance(rgb: tuple[int, ...]) -> float:
        linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb[:3]]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(colour), luminance(ground)), reverse=True)
    assert (high + 0.05) / (low + 0.05) >= 3


@pytest.mark.parametrize(
    "points",
    [
        [(1, 0.1), (2, 0.1)],
        [(1, 0.0), (2, 0.0)],
        [(1, 1e-9), (2, 1e9)],
        [(n, 5.0) for n in range(20_000)],
        [(1, -1.0), (9, 2.0)],
    ],
)
def test_any_losses_can_be_drawn(points: list[tuple[int, float]], tmp_path: Path) -> None:
    assert draw_losses(points, points[:1], [points[-1][0]], tmp_path / "x.png")


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    assert not draw_losses([], [], [], tmp_path / "x.png")
    assert not draw_losses([(1, math.nan), (2, math.inf), (3, 0.1)], [], [], tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


def test_smoothing_keeps_a_level_and_forgets_noise() -> None:
    assert all(loss == pytest.approx(0.5) for _, loss in smoothed([(n, 0.5) for n in range(100)]))
    soft = [loss for _, loss in smoothed([(n, n % 2) for n in range(1000)])]
    assert max(soft[100:]) - min(soft[100:]) < 0.1


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 800, 7) == [0, 200, 400, 600, 800]
    assert ticks(0.02, 0.19) == [0.05, 0.1, 0.15]
    for low, high in ((0, 1e-6), (3, 3.1), (-2, 5)):
        found = ticks(low, high)
        assert 2 <= len(found) <= 7
        assert all(low <= tick <= high for tick in found)
