"""Blocks of a denoiser, as strengths per block name them: `BASE`, `IN00` … `M00` … `OUT11`; `D00` …, `S00` … of Flux.

The names and the short vectors are those of A1111's block weights: 26 or 17 numbers for SD 1 and 2, 20 or 12 for SDXL,
57 for Flux.1. `BASE` is the text encoders. What lies in no block (time embedding, first and last layers of a
transformer) has no name and keeps the strength as it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from loravault.formats.normal.sgm import sgm_names

BASE = "BASE"


def _unet(inputs: Sequence[int], outputs: Sequence[int]) -> tuple[str, ...]:
    return (BASE, *(f"IN{n:02}" for n in inputs), "M00", *(f"OUT{n:02}" for n in outputs))


_SD1 = (_unet(range(12), range(12)), _unet((1, 2, 4, 5, 7, 8), range(3, 12)))
#: Family → the vectors that are understood, each as the names of its places.
VECTORS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "sd15": _SD1,
    "sd2": _SD1,
    "sdxl": (_unet(range(9), range(9)), _unet((4, 5, 7, 8), range(6))),
    "flux": ((*(f"D{n:02}" for n in range(19)), *(f"S{n:02}" for n in range(38))),),
}
_UNET = {"input_blocks": "IN", "output_blocks": "OUT"}
_JOINT = re.compile(r"(single_)?transformer_blocks\.(\d+)\.")


def read_vector(family: str, values: Sequence[float]) -> dict[str, float]:
    """Block → factor. Blocks that a short vector leaves out get 0, as in A1111. Raises `ValueError`, in words."""
    vectors = VECTORS.get(family)
    if vectors is None:
        raise ValueError(f"strengths per block are not known for {family}")
    names = next((names for names in vectors if len(names) == len(values)), None)
    if names is None:
        lengths = " or ".join(str(len(names)) for names in vectors)
        raise ValueError(f"{family} has {lengths} strengths per block, not {len(values)}")
    return dict.fromkeys(vectors[0], 0.0) | dict(zip(names, values, strict=True))


def blocks_of(component: str, modules: Collection[str]) -> dict[str, str]:
    """Module → its block, for all modules of one component that lie in one."""
    if component.startswith("text_encoder"):
        return dict.fromkeys(modules, BASE)
    if component != "unet":
        matches = ((module, _JOINT.match(module)) for module in modules)
        return {module: f"{'S' if found[1] else 'D'}{int(found[2]):02}" for module, found in matches if found}
    result = {}
    for name, module in sgm_names(modules):
        kind, _, rest = name.partition(".")
        if kind in _UNET:
            result[module] = f"{_UNET[kind]}{int(rest.partition('.')[0]):02}"
        elif kind == "middle_block":
            result[module] = "M00"
    return result
