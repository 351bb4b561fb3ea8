"""Blocks of a denoiser, as strengths per block name them: `BASE`, `IN00` … `M00` … `OUT11`; `D00` …, `S00` … of Flux.

The names and the vectors are those of A1111's block weights: 26 or 17 numbers for SD 1 and 2, 20 or 12 for SDXL, 57 or
61 for Flux.1. `BASE` is the text encoders. In a transformer `IN` and `OUT` are the layers before and after all blocks;
what lies in no block of a UNet (time embedding, last convolution) has no name and keeps the strength as it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from loravault.formats.normal.sgm import sgm_names

BASE = "BASE"


def _unet(inputs: Sequence[int], outputs: Sequence[int]) -> tuple[str, ...]:
    return (BASE, *(f"IN{n:02}" for n in inputs), "M00", *(f"OUT{n:02}" for n in outputs))


def _numbered(letter: str, count: int) -> tuple[str, ...]:
    return tuple(f"{letter}{n:02}" for n in range(count))


def _transformer(**counts: int) -> tuple[str, ...]:
    return (BASE, "IN", *(name for letter, count in counts.items() for name in _numbered(letter, count)), "OUT")


_SD1 = (_unet(range(12), range(12)), _unet((1, 2, 4, 5, 7, 8), range(3, 12)))
_FLUX = _transformer(D=19, S=38)
#: Family → all its blocks, in order. Of a family that comes in several sizes those of the largest.
NAMES: Mapping[str, tuple[str, ...]] = {
    "demo": _unet(range(4), range(4)),
    "sd15": _SD1[0],
    "sd2": _SD1[0],
    "sdxl": _unet(range(9), range(9)),
    "flux": _FLUX,
    "chroma": _FLUX,
    "flux2": _transformer(D=8, S=48),
    "sd3": _transformer(D=38),
    "qwen-image": _transformer(D=60),
    "z-image": _transformer(L=30),
}
#: Family → the vectors that are understood, each as the names of its places. The longest comes first.
VECTORS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "demo": (NAMES["demo"],),
    "sd15": _SD1,
    "sd2": _SD1,
    "sdxl": (NAMES["sdxl"], _unet((4, 5, 7, 8), range(6))),
    "flux": (_FLUX[2:-1],),
    "chroma": (_FLUX[2:-1],),
}
#: As A1111's block weights have all of Flux.1: both text encoders first, which share one strength here.
_FLUX_WHOLE = 61
#: What a group of blocks is called, and what their names begin with.
GROUPS: Mapping[str, str] = {
    "base": BASE, "in": "IN", "mid": "M", "out": "OUT", "double": "D", "single": "S", "layers": "L",
}  # fmt: skip
_UNET = {"input_blocks": "IN", "output_blocks": "OUT"}
_JOINT = re.compile(r"(?:(single_)?transformer_blocks|(layers))\.(\d+)\.")
_LAST = re.compile(r"(?:norm_out|proj_out|all_final_layer)\b")


def group_of(block: str) -> str:
    """`in` of `IN04`."""
    letters = block.rstrip("0123456789")
    return next(group for group, prefix in GROUPS.items() if prefix == letters)


def read_vector(family: str, values: Sequence[float]) -> dict[str, float]:
    """Block → factor. Blocks that a short vector leaves out get 0, as in A1111. Raises `ValueError`, in words."""
    vectors = VECTORS.get(family)
    if vectors is None:
        raise ValueError(f"vectors of strengths are not known for {family}")
    if family == "flux" and len(values) == _FLUX_WHOLE:
        if values[0] != values[1]:
            raise ValueError("the first two of 61 numbers (CLIP, T5) must be the same: text encoders share a strength")
        return dict(zip(_FLUX, values[1:], strict=True))
    names = next((names for names in vectors if len(names) == len(values)), None)
    if names is None:
        raise ValueError(f"{family} has {lengths(family)} strengths per block, not {len(values)}")
    left_out = dict.fromkeys(vectors[0], 0.0) if names is not vectors[0] else {}
    return left_out | dict(zip(names, values, strict=True))


def lengths(family: str) -> str:
    """How many numbers a vector of the family may have, in words: `26 or 17`; empty if there are no vectors."""
    counts = [len(names) for names in VECTORS.get(family, ())]
    if family == "flux":
        counts.insert(0, _FLUX_WHOLE)
    return " or ".join(map(str, counts))


def blocks_of(component: str, modules: Collection[str]) -> dict[str, str]:
    """Module → its block, for all modules of one component that lie in one."""
    if component.startswith("text_encoder"):
        return dict.fromkeys(modules, BASE)
    if component != "unet":
        return {module: _joint_block(module) for module in modules}
    result = {}
    for name, module in sgm_names(modules):
        kind, _, rest = name.partition(".")
        if kind in _UNET:
            result[module] = f"{_UNET[kind]}{int(rest.partition('.')[0]):02}"
        elif kind == "middle_block":
            result[module] = "M00"
    return result


def _joint_block(module: str) -> str:
    found = _JOINT.match(module)
    if found:
        letter = "S" if found[1] else "L" if found[2] else "D"
        return f"{letter}{int(found[3]):02}"
    return "OUT" if _LAST.match(module) else "IN"
