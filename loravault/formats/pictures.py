"""What kind of picture or video a file is, by its first bytes: endings lie (a JPEG named `.preview.png` is common)."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from loravault.formats import plain

#: Bytes of a file that `media_kind` needs.
HEAD = 64
#: Largest embedded picture, as base64 text.
MAX_EMBEDDED = 8 * 1024 * 1024
#: Brackets and commas in a list of embedded pictures.
_MOST_PARTS = 512
STILLS = frozenset({"png", "jpeg", "webp", "gif", "avif", "heic", "jxl", "bmp", "tiff"})
VIDEOS = frozenset({"mp4", "webm", "avi"})

_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"\xff\x0a", "jxl"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "jxl"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"\x1aE\xdf\xa3", "webm"),
)
_BRANDS = {b"avif": "avif", b"avis": "avif", b"heic": "heic", b"heix": "heic", b"mif1": "heic", b"msf1": "heic"}
_DATA_URL = re.compile(r"data:image/[a-zA-Z0-9.+-]{1,20}(?:;[a-zA-Z0-9=-]{1,40})*;base64,")


def media_kind(head: bytes) -> str | None:
    """One of `STILLS` or `VIDEOS`, or None if the first `HEAD` bytes are of neither."""
    for beginning, kind in _BEGINNINGS:
        if head.startswith(beginning):
            return kind
    if head[:4] == b"RIFF":
        return {b"WEBP": "webp", b"AVI ": "avi"}.get(head[8:12])
    if head[4:8] == b"ftyp":
        brands = [head[at : at + 4] for at in (8, *range(16, len(head) - 3, 4))]
        return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "mp4")
    if head[:2] == b"BM" and len(head) >= 14 and head[6:10] == b"\0\0\0\0":
        return "bmp"
    return None


def holds_picture(value: Any) -> bool:
    """Whether `embedded_picture` would find one, from its first bytes."""
    return _kind(_base64(value)) in STILLS


def is_large_picture(text: str) -> bool:
    """As `holds_picture`, of a text of any length: one that would become many objects when parsed is none."""
    return sum(map(text.count, "[{,")) <= _MOST_PARTS and holds_picture(text)


def embedded_picture(value: Any) -> bytes | None:
    """The picture in a metadata entry: a data URL, bare base64, or a JSON list of base64 whose first is the cover.

    None if it is none, is larger than `MAX_EMBEDDED`, or is no still picture by its bytes.
    """
    text = _base64(value)
    return _decoded(text) if _kind(text) in STILLS else None


def _base64(value: Any) -> str:
    """The base64 text in a metadata entry; empty if there is none, or too much."""
    if not isinstance(value, str) or len(value) > 2 * MAX_EMBEDDED:
        return ""
    if value[:1] == "[":
        value = next((item for item in plain.items(plain.json_in(value)) if isinstance(item, str) and item), "")
    match = _DATA_URL.match(value)
    text = value[match.end() :] if match else value
    return text if 16 <= len(text) <= MAX_EMBEDDED else ""


def _kind(text: str) -> str | None:
    start = "".join(text[: 4 * HEAD].split())
    return media_kind(_decoded(start[: len(start) // 4 * 4]) or b"")


def _decoded(text: str) -> bytes | None:
    try:
        compact = text if text.isascii() and text.isalnum() else "".join(text.split())
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
