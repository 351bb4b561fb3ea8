"""What a picture says of itself, for tests that look at what was made."""

from __future__ import annotations

import os
import stat
import struct
import zlib

from loravault.library.imagemeta import ImageMeta, meta_of


def read_meta(path: str | os.PathLike[str]) -> ImageMeta | None:
    """Format, size, infotext and chunk; None if this is no readable PNG, JPEG or WebP file."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb") as file:
            return meta_of(file)
    except (OSError, ValueError, struct.error, zlib.error):
        return None
