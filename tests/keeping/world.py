"""Pictures for tests of what is kept."""

from __future__ import annotations

import io
import random

from PIL import Image


def picture(colour: str, size: tuple[int, int] = (200, 150)) -> bytes:
    """A PNG of one colour with some grains in it."""
    image = Image.new("RGB", size, colour)
    grains = random.Random(colour + str(size))
    for _ in range(60):
        image.putpixel((grains.randrange(size[0]), grains.randrange(size[1])), (255, 255, 255))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
