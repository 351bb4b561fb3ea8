"""Writing a picture: whole or not at all, durable when the function returns, and with its origin inside.

Other tools find the generation data where A1111 puts it (PNG text `parameters`, else EXIF `UserComment`). Our own chunk
is JSON: PNG text `loravault`, else the EXIF `MakerNote`, which exists for private data and survives most tools.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loravault.durable import write_whole

if TYPE_CHECKING:
    from PIL.Image import Image

#: Default quality of the lossy formats.
QUALITY = 92
SUFFIXES: Mapping[str, str] = {"webp": "webp", "png": "png", "jpeg": "jpg"}
#: What the EXIF MakerNote begins with.
MAKER = b"loravault\0"
#: A JPEG segment holds 64 KiB; this much infotext (in UTF-16) leaves room for the chunk.
MAX_JPEG_INFOTEXT = 48_000

_EXIF_POINTER, _MAKER_NOTE, _USER_COMMENT = 0x8769, 0x927C, 0x9286
_LONG, _UNDEFINED = 4, 7


def save_image(image: Image, path: Path, *, image_format: str, infotext: str, chunk: Mapping[str, Any]) -> None:
    """Encodes and writes `image` to `path` (parents are made, an older file of that name is replaced).

    On return file and folder entry are on disk. Raises `OSError` if the disk is full or read-only.
    """
    write_whole(path, encode_image(image, image_format=image_format, infotext=infotext, chunk=chunk))


def encode_image(image: Image, *, image_format: str, infotext: str, chunk: Mapping[str, Any]) -> bytes:
    """The bytes of the file. `image_format` is a key of `SUFFIXES`."""
    text = json.dumps(chunk, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    buffer = io.BytesIO()
    if image_format == "png":
        from PIL.PngImagePlugin import PngInfo  # noqa: PLC0415 - each format loads its own plugin

        info = PngInfo()
        _add_text(info, "parameters", infotext)
        info.add_text("loravault", text)
        image.save(buffer, "PNG", pnginfo=info)
    elif image_format == "webp":
        image.save(buffer, "WEBP", quality=QUALITY, method=4, exif=exif_block(infotext, text))
    elif image_format == "jpeg":
        short = _cut_utf16(infotext, MAX_JPEG_INFOTEXT)
        image.save(buffer, "JPEG", quality=QUALITY, subsampling=0, exif=b"Exif\0\0" + exif_block(short, text))
    else:
        raise ValueError(f"unknown image format {image_format!r}")
    return buffer.getvalue()


def _add_text(info: Any, key: str, text: str) -> None:
    # tEXt is what the oldest readers know; it holds Latin-1 only.
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        info.add_itxt(key, text)
    else:
        info.add_text(key, text)


def _cut_utf16(text: str, limit: int) -> str:
    if len(text) * 2 <= limit and text.isascii():
        return text
    return text.encode("utf-16-be", "replace")[:limit].decode("utf-16-be", "ignore")


def exif_block(infotext: str, chunk: str) -> bytes:
    """A TIFF structure with UserComment and MakerNote, big-endian as other writers of UserComment do it."""
    maker = MAKER + chunk.encode("ascii")
    comment = b"UNICODE\0" + infotext.encode("utf-16-be", "replace")
    head = 8
    exif_at = head + 2 + 12 + 4  # one entry in the first directory
    data_at = exif_at + 2 + 2 * 12 + 4
    maker_at, comment_at = data_at, data_at + len(maker) + len(maker) % 2
    first = struct.pack(">H", 1) + _entry(_EXIF_POINTER, _LONG, 1, exif_at) + struct.pack(">L", 0)
    second = (
        struct.pack(">H", 2)
        + _entry(_MAKER_NOTE, _UNDEFINED, len(maker), maker_at)
        + _entry(_USER_COMMENT, _UNDEFINED, len(comment), comment_at)
        + struct.pack(">L", 0)
    )
    return b"MM\0*" + struct.pack(">L", head) + first + second + maker + b"\0" * (len(maker) % 2) + comment


def _entry(tag: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack(">HHLL", tag, kind, count, value)
