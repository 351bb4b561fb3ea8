"""A small adapter file, made without torch."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any


def adapter_bytes(width: int, rank: int, metadata: dict[str, str], seed: str = "") -> bytes:
    """A safetensors file with two attention modules, filled with bytes that depend on `seed`."""
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0"
    shapes: dict[str, tuple[int, ...]] = {}
    for module, inner in (("attn2_to_k", width), ("attn2_to_v", width)):
        shapes[f"{stem}_{module}.alpha"] = ()
        shapes[f"{stem}_{module}.lora_down.weight"] = (rank, inner)
        shapes[f"{stem}_{module}.lora_up.weight"] = (64, rank)
    table: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for name, shape in shapes.items():
        size = 4
        for dimension in shape:
            size *= dimension
        table[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    letter = struct.pack("<f", 0.001 * (1 + zlib.crc32(seed.encode()) % 9973 / 100))
    return struct.pack("<Q", len(header)) + header + letter * (at // 4)
