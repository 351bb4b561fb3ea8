"""From a patch to what it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from loravault.engine.deltas.delta import Delta, Nothing
from loravault.engine.deltas.dora import decomposed
from loravault.engine.deltas.parts import Parts, Read
from loravault.engine.deltas.products import LowRank, read_hadamard, read_kronecker, read_low_rank
from loravault.engine.deltas.rotations import read_inputs, read_outputs
from loravault.engine.deltas.weighted import read_generalised, read_scaling
from loravault.engine.deltas.whole import WithBias, read_whole
from loravault.formats.normal import Patch

#: Parts that go to the bias → whether they are its new value.
_BIASES: Mapping[str, bool] = {"diff_b": False, "b_norm": False, "lora_up.bias": False, "set_bias": True}


def read_delta(patch: Patch, read: Read, *, check_numbers: bool = True) -> Delta:
    """What `patch` does, with its tensors read by `read` and kept as they are in the file.

    Raises `BrokenPatch`: a part is missing, has an impossible shape or number format, does not belong to the algorithm,
    or holds NaN. The last costs a look at every number; without `check_numbers`, `Delta.finite` tells it at any time.
    """
    parts = Parts(patch, read)
    reader = _READERS.get(patch.algorithm)
    if reader is None:
        raise parts.broken(f"is of the kind {patch.algorithm}, which cannot be applied")
    parts.alpha()  # some trainers write one where it means nothing
    delta = _with_bias(reader(parts), parts)
    if parts.unasked():
        raise parts.broken(f"holds what does not belong to {patch.algorithm}: {', '.join(parts.unasked())}")
    if check_numbers and not delta.finite():
        raise parts.broken("holds NaN or infinite numbers, which would make every picture black")
    return delta


def _with_bias(delta: Delta | None, parts: Parts) -> Delta:
    """`delta` (None: nothing for the weight), with the lengths and the bias that the patch has beside it."""
    result = decomposed(delta, parts) if delta else Nothing(parts.name)
    scale = delta.scale if isinstance(delta, LowRank) else 1.0
    for part, new in _BIASES.items():
        if part in parts:
            values = parts.tensor(part)
            result = WithBias(parts.name, result, values, scale if part == "lora_up.bias" else 1.0, new)
    if delta is None and not result.touches_bias:
        raise parts.broken("is empty: it changes neither weight nor bias")
    return result


def _rotation(parts: Parts) -> Delta:
    return read_inputs(parts) if "oft_R" in parts or "boft_R" in parts else read_outputs(parts)


_READERS: Mapping[str, Callable[[Parts], Delta | None]] = {
    "lora": read_low_rank,
    "locon": read_low_rank,
    "dylora": read_low_rank,
    "loha": read_hadamard,
    "lokr": read_kronecker,
    "ia3": read_scaling,
    "glora": read_generalised,
    "oft": _rotation,
    "boft": _rotation,
    "full": read_whole,
    "norm": read_whole,
}
