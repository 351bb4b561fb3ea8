"""The samples of a training as one picture: a row for the base alone and one for each checkpoint, a column a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from loravault.charts.canvas import INK, cut_to, font, save, text_width

#: Longest side of one sample in pixels: at most, and at least (small ones are made larger, for dense screens).
CELL, LEAST = 320, 256
MOST_ROWS = 6
_GAP, _LETTERS = 12, 22


@dataclass(frozen=True)
class Row:
    """One line of the strip."""

    label: str
    #: Column → file; a sample that is lacking leaves its place empty.
    pictures: dict[int, Path]


def draw_strip(rows: Sequence[Row], titles: Sequence[str], path: Path) -> bool:
    """Draw them into a WebP file; `titles`: what the columns show. False if there is no picture to show."""
    shown = _spread([row for row in rows if row.pictures])
    sizes = [_size(file) for row in shown for file in row.pictures.values()]
    if not sizes:
        return False
    width, height = max(size[0] for size in sizes), max(size[1] for size in sizes)
    longest = max(width, height)
    scale = min(CELL, max(LEAST, longest)) / longest
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    margin = max(text_width(probe, row.label, _LETTERS) for row in shown) + 2 * _GAP
    top = _LETTERS + 2 * _GAP
    columns = max(max(row.pictures) for row in shown) + 1
    image = Image.new("RGBA", (margin + columns * (width + _GAP), top + len(shown) * (height + _GAP)), (*INK[:3], 0))
    draw = ImageDraw.Draw(image)
    for column, title in enumerate(titles[:columns]):
        text = cut_to(draw, title, _LETTERS, width)
        draw.text((margin + column * (width + _GAP), _GAP), text, fill=INK, font=font(_LETTERS))
    for number, row in enumerate(shown):
        y = top + number * (height + _GAP)
        draw.text((_GAP, y + (height - _LETTERS) // 2), row.label, fill=INK, font=font(_LETTERS))
        for column, file in row.pictures.items():
            _place(image, file, (margin + column * (width + _GAP), y), (width, height))
    save(image, path, quality=90, method=4)
    return True


def _spread(rows: Sequence[Row]) -> list[Row]:
    """At most `MOST_ROWS`: the first (the base), the last, and others evenly between."""
    if len(rows) <= MOST_ROWS:
        return list(rows)
    return [rows[round(n * (len(rows) - 1) / (MOST_ROWS - 1))] for n in range(MOST_ROWS)]


def _size(file: Path) -> tuple[int, int]:
    with Image.open(file) as image:
        return image.size


def _place(image: Image.Image, file: Path, at: tuple[int, int], size: tuple[int, int]) -> None:
    with Image.open(file) as sample:
        small = ImageOps.contain(sample.convert("RGB"), size, Image.Resampling.LANCZOS)
    image.paste(small, (at[0] + (size[0] - small.width) // 2, at[1] + (size[1] - small.height) // 2))
