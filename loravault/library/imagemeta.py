"""What a picture says about its origin, read without decoding a pixel: bounded reads of PNG, JPEG and WebP structure.

Safe for files of strangers: nothing is believed about lengths, at most `MAX_TEXT` bytes of text are held, and damage
means "nothing known".
"""

from __future__ import annotations

import json
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

#: Longest text or EXIF block that is read.
MAX_TEXT = 4 << 20
#: Chunks or segments that are looked at before a file counts as damaged.
MAX_PARTS = 4096

_PNG = b"\x89PNG\r\n\x1a\n"
_MAKER = b"loravault\0"
_EXIF_POINTER, _MAKER_NOTE, _USER_COMMENT = 0x8769, 0x927C, 0x9286


@dataclass(frozen=True)
class ImageMeta:
    """What is known about an image file."""

    #: `png`, `jpeg` or `webp`.
    format: str
    #: Pixels; 0 × 0 if the file does not tell.
    width: int
    height: int
    #: Generation data as A1111 writes it.
    infotext: str | None = None
    #: Our own chunk.
    chunk: dict[str, Any] | None = None


@dataclass
class _Found:
    size: tuple[int, int] = (0, 0)
    texts: dict[str, str] = field(default_factory=dict)
    exif: bytes = b""


def read_chunk(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Our chunk of an image (`v: 1`, job, fingerprint, …), or None if it carries none.

    Raises `OSError` if the file cannot be read: then nothing is known of it.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        return None
    try:
        with open(path, "rb") as file:
            meta = meta_of(file)
    except (ValueError, struct.error, zlib.error):
        return None
    return meta.chunk if meta else None


def is_made_here(path: str | os.PathLike[str]) -> bool:
    """Whether an image says that a job of ours made it; of one that cannot be read nothing is known."""
    try:
        return (read_chunk(path) or {}).get("job") is not None
    except OSError:
        return False


def meta_of(file: BinaryIO) -> ImageMeta | None:
    """Format, size, infotext and chunk of an open file; None if it is none of the three kinds.

    Raises what reading raises, and `ValueError`, `struct.error` or `zlib.error` for a damaged one.
    """
    head = file.read(12)
    file.seek(0)
    if head.startswith(_PNG):
        kind, found = "png", _png(file)
    elif head.startswith(b"\xff\xd8\xff"):
        kind, found = "jpeg", _jpeg(file)
    elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        kind, found = "webp", _webp(file)
    else:
        return None
    tags = exif_tags(found.exif)
    infotext = found.texts.get("parameters") or _comment(tags.get(_USER_COMMENT, b""), found.exif[:2])
    maker = tags.get(_MAKER_NOTE, b"")
    text = found.texts.get("loravault")
    if text is None and maker.startswith(_MAKER):
        text = maker[len(_MAKER) :].decode("utf-8", "replace")
    return ImageMeta(kind, *found.size, infotext=infotext or None, chunk=_object(text))


def _object(text: str | None) -> dict[str, Any] | None:
    try:
        value = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _png(file: BinaryIO) -> _Found:
    found = _Found()
    file.seek(len(_PNG))
    budget = MAX_TEXT
    for _ in range(MAX_PARTS):
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            break
        length, kind = struct.unpack(">L", head[:4])[0], head[4:]
        if kind in (b"IHDR", b"tEXt", b"iTXt", b"zTXt", b"eXIf") and length <= budget:
            budget -= length
            _png_part(found, kind, file.read(length))
            file.seek(4, os.SEEK_CUR)
        else:
            file.seek(length + 4, os.SEEK_CUR)
    return found


def _png_part(found: _Found, kind: bytes, data: bytes) -> None:
    if kind == b"IHDR":
        found.size = struct.unpack(">LL", data[:8])
    elif kind == b"eXIf":
        found.exif = data
    else:
        key, _, rest = data.partition(b"\0")
        text = _png_text(kind, rest)
        if text is not None:
            found.texts.setdefault(key.decode("latin-1"), text)


def _png_text(kind: bytes, rest: bytes) -> str | None:
    if kind == b"tEXt":
        return rest.decode("latin-1")
    if kind == b"zTXt":
        return _inflate(rest[1:]).decode("latin-1")
    compressed, rest = rest[:1] == b"\1", rest[2:]
    *_, body = rest.split(b"\0", 2) if rest.count(b"\0") >= 2 else [b""]
    return (_inflate(body) if compressed else body).decode("utf-8", "replace")


def _inflate(data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data, MAX_TEXT)


def _webp(file: BinaryIO) -> _Found:
    found = _Found()
    file.seek(12)
    for _ in range(MAX_PARTS):
        head = file.read(8)
        if len(head) < 8:
            break
        kind, length = head[:4], struct.unpack("<L", head[4:])[0]
        take = min(length, MAX_TEXT) if kind == b"EXIF" else min(length, 16)
        data = file.read(take)
        if kind == b"EXIF":
            found.exif = data.removeprefix(b"Exif\0\0")
        elif found.size == (0, 0):
            found.size = _webp_size(kind, data)
        file.seek(length - len(data) + length % 2, os.SEEK_CUR)
    return found


def _webp_size(kind: bytes, data: bytes) -> tuple[int, int]:
    if kind == b"VP8X" and len(data) >= 10:
        return 1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little")
    if kind == b"VP8 " and data[3:6] == b"\x9d\x01\x2a" and len(data) >= 10:
        width, height = struct.unpack("<HH", data[6:10])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and data[:1] == b"\x2f" and len(data) >= 5:
        bits = struct.unpack("<L", data[1:5])[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return (0, 0)


def _jpeg(file: BinaryIO) -> _Found:
    found = _Found()
    for marker, length in _segments(file):
        if marker == 0xE1 and not found.exif:
            data = file.read(length)
            found.exif = data[6:] if data.startswith(b"Exif\0\0") else b""
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">xHH", file.read(length)[:5])
            found.size = (width, height)
    return found


def _segments(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """(marker, length of the body) of each segment before the image data; the file stands at the body."""
    at = 2
    for _ in range(MAX_PARTS):
        file.seek(at)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF:
            return
        marker, length = head[1], struct.unpack(">H", head[2:])[0]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in (0xD9, 0xDA) or length < 2:
            return
        yield marker, length - 2
        at += 2 + length


def exif_tags(data: bytes) -> dict[int, bytes]:
    """The byte-valued tags of the first directory and of the EXIF directory. Wrong offsets are skipped."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return {}
    tags: dict[int, bytes] = {}
    places = [struct.unpack(order + "L", data[4:8])[0]]
    for place in places:
        for tag, kind, count, raw in _entries(data, place, order):
            value = struct.unpack(order + "L", raw)[0]
            if tag == _EXIF_POINTER and len(places) < 2:
                places.append(value)
            elif kind in (1, 2, 7):
                tags[tag] = raw[:count] if count <= 4 else data[value : value + count]
    return tags


def _entries(data: bytes, place: int, order: str) -> Iterator[tuple[int, int, int, bytes]]:
    if place + 2 > len(data):
        return
    (count,) = struct.unpack_from(order + "H", data, place)
    for index in range(count):
        at = place + 2 + 12 * index
        if at + 12 > len(data):
            return
        yield struct.unpack_from(order + "HHL4s", data, at)


def _comment(value: bytes, byte_order: bytes) -> str:
    """The text of a UserComment. Writers disagree about the byte order of UNICODE ones: the more plausible is taken."""
    code, text = value[:8], value[8:]
    if code == b"UNICODE\0":
        big, little = text.decode("utf-16-be", "replace"), text.decode("utf-16-le", "replace")
        first, second = (little, big) if byte_order == b"II" else (big, little)
        decoded = second if _plain(second) > _plain(first) else first
        return decoded.strip("\0\ufeff")
    if code in (b"ASCII\0\0\0", b"\0" * 8):
        return text.decode("utf-8", "replace").strip("\0")
    return ""


def _plain(text: str) -> int:
    return sum(char.isascii() and char != "\0" for char in text)
