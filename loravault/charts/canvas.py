"""What all charts share: colours that can be read on white and on black, letters, and saving that is whole or nothing.

Charts have no background of their own: a note may be light or dark. Every colour has a contrast of at least 3 to both.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from loravault.durable import write_whole

Colour = tuple[int, int, int, int]

INK: Colour = (127, 134, 144, 255)
FAINT: Colour = (127, 134, 144, 70)
BLUE: Colour = (59, 130, 246, 255)
ORANGE: Colour = (230, 100, 10, 255)
#: Everything is drawn so many times larger and then made small: Pillow's lines have no smooth edges.
OVERSAMPLED = 2


@lru_cache(maxsize=16)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The letters that come with Pillow, in pixels."""
    return ImageFont.load_default(size)


def text_width(draw: ImageDraw.ImageDraw, text: str, size: int) -> int:
    """Pixels."""
    return round(draw.textlength(text, font=font(size)))


def cut_to(draw: ImageDraw.ImageDraw, text: str, size: int, width: int) -> str:
    """As much of a text as fits, with an ellipsis if something was cut."""
    if text_width(draw, text, size) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if text_width(draw, f"{text[:middle].rstrip()}…", size) <= width:
            low = middle
        else:
            high = middle - 1
    return f"{text[:low].rstrip()}…" if low else ""


def save(image: Image.Image, path: Path, **options: object) -> None:
    """Write an image durably: the file is there whole, or not at all."""
    buffer = io.BytesIO()
    image.save(buffer, format={".png": "PNG", ".webp": "WEBP"}[path.suffix], **options)
    write_whole(path, buffer.getvalue())
