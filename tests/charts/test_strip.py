"""The samples of a training as one picture."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from loravault.charts.strip import CELL, MOST_ROWS, Row, draw_strip


def picture(folder: Path, name: str, colour: str, size: tuple[int, int] = (128, 96)) -> Path:
    Image.new("RGB", size, colour).save(folder / f"{name}.webp", lossless=True)
    return folder / f"{name}.webp"


def test_a_row_for_the_base_and_for_each_checkpoint(tmp_path: Path) -> None:
    red, blue = picture(tmp_path, "a", "red"), picture(tmp_path, "b", "blue")
    rows = [Row("base", {0: red, 1: blue}), Row("step 100", {0: blue}), Row("step 200", {1: red})]
    assert draw_strip(rows, ["a very long prompt " * 9, "b"], tmp_path / "strip.webp")
    with Image.open(tmp_path / "strip.webp") as image:
        seen = image.convert("RGBA")
        assert seen.getpixel((1, 1))[3] == 0  # type: ignore[index]
        left, top = seen.width - 2 * (256 + 12), seen.height - 3 * (192 + 12)
        middle = [[seen.getpixel((left + 128 + 268 * x, top + 96 + 204 * y)) for x in (0, 1)] for y in (0, 1, 2)]
    named = [["red" if p[0] > 200 else "blue" if p[2] > 200 else "-" for p in row] for row in middle]  # type: ignore[index]
    assert named == [["red", "blue"], ["blue", "-"], ["-", "red"]]


def test_large_samples_are_made_small_and_many_rows_are_spread(tmp_path: Path) -> None:
    big = picture(tmp_path, "big", "green", (2048, 1024))
    rows = [Row(f"step {n}", {0: big}) for n in range(20)]
    assert draw_strip(rows, [], tmp_path / "strip.webp")
    with Image.open(tmp_path / "strip.webp") as image:
        assert image.width < CELL + 200
        assert image.height < MOST_ROWS * (CELL // 2 + 12) + 60


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    assert not draw_strip([Row("base", {})], ["x"], tmp_path / "strip.webp")
    assert not draw_strip([], [], tmp_path / "strip.webp")
