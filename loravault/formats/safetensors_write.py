"""Writing the head of a `.safetensors` file: the same tensors and metadata give the same bytes.

The library's own writer leaves the order of the metadata to chance, so that a file could not be compared with itself.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping

from loravault.formats.tensor_table import DTYPE_BITS, TensorInfo

#: What the short hash of old covers, in bytes of the whole file.
_LEGACY = (0x100000, 0x110000)


def layout(shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, TensorInfo]:
    """Name → row of the table, from name → (number format, shape); in the order in which the tensors lie in the file.

    Wide numbers first, then by name, as the format's own library lays them: each begins where its width asks for.
    """
    place, table = 0, {}
    for name in sorted(shapes, key=lambda one: (-DTYPE_BITS[shapes[one][0]], one)):
        dtype, shape = shapes[name]
        length = DTYPE_BITS[dtype] * math.prod(shape) // 8
        table[name] = TensorInfo(dtype, shape, (place, place + length))  # type: ignore[arg-type]
        place += length
    return table


def head(metadata: Mapping[str, str], table: Mapping[str, TensorInfo]) -> bytes:
    """Everything before the tensors: the length of the header, and the header, padded to a multiple of eight."""
    rows: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    rows |= {
        name: {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [info.start, info.end]}
        for name, info in table.items()
    }
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def sshs_hashes(metadata: Mapping[str, str], table: Mapping[str, TensorInfo], area: Iterable[bytes]) -> dict[str, str]:
    """`sshs_model_hash` and `sshs_legacy_hash`, as kohya writes them: of the file with nothing but its `ss_*` entries.

    `area`: the bytes of the tensors, in order. The first is AutoV3; the second is that of 64 KiB at 1 MiB.
    """
    kept = head({key: value for key, value in metadata.items() if key.startswith("ss_")}, table)
    whole, window = hashlib.sha256(), hashlib.sha256()
    place = len(kept)
    window.update(kept[_LEGACY[0] : _LEGACY[1]])
    for piece in area:
        whole.update(piece)
        first, last = max(0, _LEGACY[0] - place), _LEGACY[1] - place
        if last > first and first < len(piece):
            window.update(piece[first:last])
        place += len(piece)
    return {"sshs_model_hash": whole.hexdigest(), "sshs_legacy_hash": window.hexdigest()[:8]}


__all__ = ["head", "layout", "sshs_hashes"]
