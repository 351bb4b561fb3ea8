"""Safetensors files written byte by byte, good ones and bad ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SIZES = {"F16": 2, "F32": 4, "BF16": 2, "U8": 1}


def table(shapes: Mapping[str, tuple[int, ...]], dtype: str = "F16") -> tuple[dict[str, Any], int]:
    """The tensor table of tensors laid out one after the other, and the bytes they need."""
    entries: dict[str, Any] = {}
    position = 0
    for name, shape in shapes.items():
        size = SIZES[dtype]
        for dimension in shape:
            size *= dimension
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    return entries, position


def blob(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def adapter(
    shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str] | None = None, fill: int = 1, dtype: str = "F16"
) -> bytes:
    """A whole file with every data byte set to `fill`."""
    entries, size = table(shapes, dtype)
    if metadata is not None:
        entries = {"__metadata__": dict(metadata), **entries}
    return blob(json.dumps(entries).encode(), bytes([fill]) * size)


def lora(width: int = 160, rank: int = 4, module: str = "attn2_to_k", out: int = 96) -> dict[str, tuple[int, ...]]:
    """The shapes of one kohya LoRA module in a UNet."""
    name = f"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_{module}"
    return {f"{name}.alpha": (), f"{name}.lora_down.weight": (rank, width), f"{name}.lora_up.weight": (out, rank)}


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
