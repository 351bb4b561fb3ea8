"""The weight id: what an adapter *is*, known from its header and 64 KiB, whatever its name, place or metadata.

The byte layout is a public format (`docs/note-format.md`, section "Weight id"); it never changes: another is `w2-`.
"""

from __future__ import annotations

import hashlib
import re
import struct

from loravault.formats.safetensors_header import Header, ReadAt

WINDOWS = 16
WINDOW_BYTES = 4096
_PATTERN = re.compile(r"w1-[0-9a-f]{16}")


def weight_id(header: Header, read_at: ReadAt) -> str:
    """`w1-<16 hex>` of the weights.

    `read_at(offset, length)` reads exactly that many bytes of the file at an absolute offset. Reads at most 64 KiB.
    """
    digest = hashlib.blake2b(digest_size=8, person=b"loravault-w1")
    digest.update(struct.pack("<I", len(header.tensors)))
    rows = sorted((name.encode("utf-8"), info) for name, info in header.tensors.items())
    for name, info in rows:
        dtype = info.dtype.encode("ascii")
        digest.update(struct.pack("<I", len(name)) + name)
        digest.update(struct.pack("<B", len(dtype)) + dtype)
        digest.update(struct.pack(f"<B{len(info.shape)}Q", len(info.shape), *info.shape))
    digest.update(struct.pack("<Q", header.data_length))
    for offset, length in windows(header.data_length):
        digest.update(read_at(header.data_start + offset, length))
    return f"w1-{digest.hexdigest()}"


def windows(area: int) -> list[tuple[int, int]]:
    """The `(offset, length)` of the samples in a tensor area of `area` bytes: evenly spread, first and last byte in."""
    length = min(WINDOW_BYTES, area)
    if length == 0:
        return []
    return [(index * (area - length) // (WINDOWS - 1), length) for index in range(WINDOWS)]


def is_weight_id(text: str) -> bool:
    """Whether a text has the form of a weight id."""
    return _PATTERN.fullmatch(text) is not None
