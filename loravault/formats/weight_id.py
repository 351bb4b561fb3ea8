"""The weight id: what an adapter *is*, known from its header and 64 KiB, whatever its name, place or metadata.

The byte layout is a public format (`docs/note-format.md`, section "Weight id"); it never changes: another is `w2-`.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Mapping, Sequence

from loravault.formats.safetensors_header import Header, ReadAt
from loravault.formats.tensor_table import TensorInfo

WINDOWS = 16
WINDOW_BYTES = 4096
_PATTERN = re.compile(r"w1-[0-9a-f]{16}")


def weight_id(header: Header, read_at: ReadAt) -> str:
    """`w1-<16 hex>` of the weights.

    `read_at(offset, length)` reads exactly that many bytes of the file at an absolute offset. Reads at most 64 KiB.
    """
    digest = hashlib.blake2b(digest_size=8, person=b"loravault-w1")
    digest.update(struct.pack("<I", len(header.tensors)) + _table(header.tensors))
    digest.update(struct.pack("<Q", header.data_length))
    for offset, length in windows(header.data_length):
        digest.update(read_at(header.data_start + offset, length))
    return f"w1-{digest.hexdigest()}"


def _table(tensors: Mapping[str, TensorInfo]) -> bytes:
    """Names, number formats and shapes in the order of the names' UTF-8, which is that of their code points."""
    if len(_ROWS) > _REMEMBERED:
        _ROWS.clear()
    pieces: list[bytes] = []
    for name, info in sorted(tensors.items()):
        text = name.encode()
        pieces += (len(text).to_bytes(4, "little"), text, _ROWS[info.dtype, info.shape])
    return b"".join(pieces)


class _Rows(dict[tuple[str, tuple[int, ...]], bytes]):
    """(dtype, shape) → their bytes in the layout: a thousand tensors have a dozen of them."""

    def __missing__(self, key: tuple[str, tuple[int, ...]]) -> bytes:
        dtype, shape = key[0].encode("ascii"), key[1]
        self[key] = row = struct.pack("<B", len(dtype)) + dtype + struct.pack(f"<B{len(shape)}Q", len(shape), *shape)
        return row


_ROWS = _Rows()
_REMEMBERED = 50_000


def windows(area: int) -> list[tuple[int, int]]:
    """The `(offset, length)` of the samples in a tensor area of `area` bytes: evenly spread, first and last byte in."""
    length = min(WINDOW_BYTES, area)
    if length == 0:
        return []
    return [(index * (area - length) // (WINDOWS - 1), length) for index in range(WINDOWS)]


def is_hollow(samples: Sequence[bytes]) -> bool:
    """Whether samples (in order, of `windows`) look like those of a file whose room is reserved and not yet filled.

    A quarter of it in one piece is zero bytes. Weights can look like that, too; small files never say anything.
    """
    if len(samples) < WINDOWS or len(samples[0]) < WINDOW_BYTES:
        return False
    empty = 0
    for sample in samples:
        empty = 0 if sample.strip(b"\0") else empty + 1
        if empty >= WINDOWS // 4:
            return True
    return False


def is_weight_id(text: str) -> bool:
    """Whether a text has the form of a weight id."""
    return _PATTERN.fullmatch(text) is not None
