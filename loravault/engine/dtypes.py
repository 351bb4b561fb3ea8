"""Number formats of safetensors files as torch has them."""

from __future__ import annotations

import torch

#: Number formats that weights of an adapter may have.
FLOATS: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
#: What else single numbers are written in (`on_input`, `alpha`).
DTYPES: dict[str, torch.dtype] = {
    **FLOATS,
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
}
