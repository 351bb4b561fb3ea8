"""The parts of one patch: their one spelling, and whether their shapes make a change of a layer of this shape.

Spelled as kohya and LyCORIS write them, without `.weight`: `lora_down`, `lora_up`, `lora_mid`, `alpha`, `dora_scale`,
`hada_w1_a`, `lokr_w2_b`, `oft_blocks`, `diff`, `diff_b`, `w_norm`, … Of PEFT, `lora_A` is `lora_down`, `lora_B` is
`lora_up`, `lora_magnitude_vector` is `dora_scale`; `oft_R`, `boft_R`, `boft_s` and `ia3_l` keep their names, as what
they hold is not what LyCORIS keeps. Not LyCORIS either: `lora_up.bias` (PEFT's `lora_B.bias`) is added to the bias and
scaled as the patch is; `set_weight`, `set_bias` are the new values of a layer (ComfyUI; norms in control adapters).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from loravault.formats import keys
from loravault.formats.normal.patches import Shape

Shapes = Mapping[str, Shape]

_SPELLING: Mapping[str, str] = {
    "lora_A": "lora_down",
    "lora.down": "lora_down",
    "lora_B": "lora_up",
    "lora.up": "lora_up",
    "lora_B.bias": "lora_up.bias",
    "lora_magnitude_vector": "dora_scale",
}
#: Parts that any algorithm may have beside its own, and parts that each of them may have.
_BESIDE = frozenset({"alpha", "dora_scale", "diff_b"})
_OWN: Mapping[str, frozenset[str]] = {
    "lora": frozenset({"lora_down", "lora_up", "lora_up.bias"}),
    "locon": frozenset({"lora_down", "lora_up", "lora_mid", "lora_up.bias"}),
    "loha": frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"}),
    "lokr": frozenset({"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"}),
    "glora": frozenset({"a1", "a2", "b1", "b2"}),
    "ia3": frozenset({"weight", "on_input", "ia3_l"}),
    "oft": frozenset({"oft_blocks", "oft_diag", "oft_R", "rescale"}),
    "boft": frozenset({"oft_blocks", "rescale", "boft_R", "boft_s"}),
    "full": frozenset({"diff", "set_weight", "set_bias"}),
    "norm": frozenset({"w_norm", "b_norm"}),
}
#: Of a plain copy of a norm: how it stands in a control adapter → what it is.
_COPIES: Mapping[str, str] = {"scale": "set_weight", "weight": "set_weight", "bias": "set_bias"}


def spelled(part: str) -> str:
    """The one spelling of a part that `keys.split_name` gave."""
    return _SPELLING.get(part, part)


def meant_shape(name: str, shape: Shape) -> Shape:
    """The shape of a tensor of this name without what it does not mean.

    PEFT's magnitudes are always those of the outputs, though of a convolution it writes them (1, out, 1, 1).
    """
    return (math.prod(shape),) if "lora_magnitude_vector" in name else shape


def is_adapter(parts: Shapes) -> bool:
    """Whether some part says that this is a change of a layer, and not a layer."""
    return bool(parts.keys() - keys.PLAIN_PARTS - {"alpha"})


def algorithm_of(parts: Shapes) -> str | None:
    """A key of the algorithms of `patches.Patch`; None if the parts are those of none, or halves of one."""
    return keys.network_of(parts)


def copied_norm(parts: Shapes, layer: Shape) -> dict[str, str] | None:
    """Part → new name, where a norm layer (`layer`: its shape) is in the file itself; None for anything else."""
    if len(layer) != 1 or not parts.keys() <= _COPIES.keys() or len({_COPIES[part] for part in parts}) != len(parts):
        return None
    return {part: _COPIES[part] for part in parts}


def allowed(algorithm: str, part: str) -> bool:
    """Whether a patch of this algorithm may have this part; another is left unused."""
    return part in _BESIDE or part in _OWN[algorithm]


def fits(algorithm: str, parts: Shapes, layer: Shape) -> bool:
    """Whether parts of these shapes are complete and change a layer whose weight has the shape `layer`."""
    if any(parts.keys() >= pair for pair in _EITHER_OR.get(algorithm, ())):
        return False
    return _READERS[algorithm](parts, layer) and all(
        check(shape, layer) for part, shape in parts.items() if (check := _EXTRAS.get(part)) is not None
    )


#: Algorithm → pairs of parts that say the same thing in two ways, so that it is not known which of them is meant.
_EITHER_OR: Mapping[str, tuple[frozenset[str], ...]] = {
    algorithm: tuple(frozenset(pair.split()) for pair in pairs)
    for algorithm, pairs in {
        "lokr": ("lokr_w1 lokr_w1_a", "lokr_w1 lokr_w1_b", "lokr_w2 lokr_w2_a", "lokr_w2 lokr_w2_b", "lokr_w2 lokr_t2"),
        "oft": ("oft_blocks oft_diag", "oft_blocks oft_R", "oft_diag oft_R", "oft_R rescale"),
        "boft": ("oft_blocks boft_R", "oft_blocks boft_s", "boft_R rescale"),
        "ia3": ("weight ia3_l", "on_input ia3_l"),
        "full": ("diff set_weight", "set_weight dora_scale"),
        "norm": ("w_norm dora_scale", "b_norm dora_scale"),
    }.items()
}


def _columns(layer: Shape) -> int:
    """Inputs times the area of the kernel: the width of a weight that is laid flat."""
    return math.prod(layer[1:])


def _squeezed(kernel: Shape) -> Shape:
    """A 1×1 convolution and a linear layer are the same thing."""
    return () if set(kernel) <= {1} else kernel


def _makes(out: int, into: int, kernel: Shape, layer: Shape) -> bool:
    """Whether a change of `out` rows and `into` inputs is one of this layer, its kernel apart or laid flat."""
    if len(layer) < 2 or out != layer[0]:
        return False
    if into == layer[1] and _squeezed(kernel) == _squeezed(layer[2:]):
        return True
    return not _squeezed(kernel) and into == _columns(layer)


def _product(left: Shape | None, right: Shape | None) -> tuple[int, int] | None:
    """Rows and columns of left · right, both laid flat; None if they cannot be multiplied."""
    if not left or not right or min(len(left), len(right)) < 2 or left[1] != right[0] or left[1] < 1:
        return None
    return (left[0], right[1]) if _squeezed(left[2:]) == () and _squeezed(right[2:]) == () else None


def _lora(parts: Shapes, layer: Shape) -> bool:
    up, down, mid = parts.get("lora_up"), parts.get("lora_down"), parts.get("lora_mid")
    if up is None or down is None or len(down) < 2 or _squeezed(up[2:]) != ():
        return False
    product = _product(up, down[:2])
    if product is None:
        return False
    kernel = down[2:]
    if mid is not None:
        if len(mid) < 3 or mid[:2] != (down[0], down[0]) or _squeezed(kernel) != ():
            return False
        kernel = mid[2:]
    return _makes(*product, kernel, layer)


def _loha(parts: Shapes, layer: Shape) -> bool:
    cores = [parts.get("hada_t1"), parts.get("hada_t2")]
    a, b = ([parts.get(f"hada_w{number}_{side}") for number in (1, 2)] for side in "ab")
    if cores == [None, None]:
        products = [_product(left, right) for left, right in zip(a, b, strict=True)]
        return all(product is not None and _makes(*product, (), layer) for product in products)
    return all(_tucker(core, out, into, layer) for core, out, into in zip(cores, a, b, strict=True))


def _tucker(core: Shape | None, out: Shape | None, into: Shape | None, layer: Shape) -> bool:
    """LoHa's Tucker form: the core is (rank, rank, kernel), both factors begin with the rank."""
    if core is None or out is None or into is None or len(core) < 3 or min(len(out), len(into)) < 2:
        return False
    return core[:2] == (into[0], out[0]) and _makes(out[1], into[1], core[2:], layer)


def _lokr(parts: Shapes, layer: Shape) -> bool:
    first = _factor(parts, "lokr_w1")
    second = _factor(parts, "lokr_w2")
    if first is None or second is None or _squeezed(first[2:]) != ():
        return False
    return _makes(first[0] * second[0], first[1] * second[1], second[2:], layer)


def _factor(parts: Shapes, name: str) -> Shape | None:
    """The shape of one factor of a Kronecker product: whole, a product a·b, or with a Tucker core."""
    whole = parts.get(name)
    if whole is not None:
        return whole if len(whole) >= 2 else None
    a, b, core = parts.get(f"{name}_a"), parts.get(f"{name}_b"), parts.get(name.replace("w2", "t2"))
    if core is None:
        return _product(a, b)
    if a is None or b is None or min(len(a), len(b)) < 2 or len(core) < 3 or core[:2] != (a[0], b[0]):
        return None
    return (a[1], b[1], *core[2:])


def _glora(parts: Shapes, layer: Shape) -> bool:
    """LyCORIS' order, or the older one in which the two matrices of each pair have changed names."""
    return any(_glora_as(parts, layer, *order) for order in (("a1", "a2", "b1", "b2"), ("a2", "a1", "b2", "b1")))


def _glora_as(parts: Shapes, layer: Shape, *order: str) -> bool:
    shapes = [parts.get(part) for part in order]
    if any(shape is None or len(shape) < 2 for shape in shapes) or len(layer) < 2:
        return False
    a_up, a_down, b_up, b_down = ((shape[0], math.prod(shape[1:])) for shape in shapes if shape is not None)
    wide = {layer[1], _columns(layer)}
    return (
        a_up[1] == a_down[0] >= 1
        and a_up[0] == a_down[1]
        and a_up[0] in wide
        and b_up[1] == b_down[0] >= 1
        and b_up[0] == layer[0]
        and b_down[1] == _columns(layer)
    )


def _oft(parts: Shapes, layer: Shape) -> bool:
    blocks = parts.get("oft_blocks") or parts.get("oft_diag")
    if blocks is not None:
        return len(blocks) == 3 and len(layer) > 1 and blocks[1] == blocks[2] and blocks[0] * blocks[1] == layer[0]
    triangles = parts.get("oft_R")
    if triangles is None or len(triangles) != 2 or len(layer) < 2:
        return False
    size = (1 + math.isqrt(1 + 8 * triangles[1])) // 2
    whole = size * (size - 1) // 2 == triangles[1] and size > 0 and _columns(layer) % size == 0
    return whole and triangles[0] in (1, _columns(layer) // size)  # one triangle is shared by all blocks


def _boft(parts: Shapes, layer: Shape) -> bool:
    """Blocks of the outputs, or PEFT's of the inputs: (stages, blocks, size, size)."""
    blocks, turns = parts.get("oft_blocks"), parts.get("boft_R")
    if blocks is not None:
        return _butterfly(blocks) and len(layer) > 1 and blocks[1] * blocks[2] == layer[0]
    if turns is None or "boft_s" not in parts or len(layer) < 2 or len(turns) != 4:
        return False
    single = turns[0] == 1 and turns[2] == turns[3]
    return (single or _butterfly(turns)) and turns[1] * turns[2] in (layer[1], _columns(layer))


def _butterfly(blocks: Shape) -> bool:
    """Each stage takes pairs of half blocks, twice as far apart as in the one before."""
    if len(blocks) != 4 or blocks[2] != blocks[3] or blocks[2] % 2 or not 1 <= blocks[0] <= 64:
        return False
    return not blocks[1] % (1 << (blocks[0] - 1))


def _ia3(parts: Shapes, layer: Shape) -> bool:
    factors = parts.get("weight") if "on_input" in parts else parts.get("ia3_l")
    return factors is not None and len(layer) > 1 and math.prod(factors) in layer[:2]


def _full(parts: Shapes, layer: Shape) -> bool:
    """The shape of the layer itself; a difference of the bias may stand alone."""
    whole = parts.get("diff", parts.get("set_weight"))
    if whole is None:
        return "dora_scale" not in parts and ("diff_b" in parts or "set_bias" in parts)
    return whole == layer or (len(whole) > 1 and whole[:2] == layer[:2] and not _squeezed(whole[2:] + layer[2:]))


def _norm(parts: Shapes, layer: Shape) -> bool:
    return len(layer) == 1 and parts.get("w_norm", layer) == layer and bool(parts.keys() & {"w_norm", "b_norm"})


_READERS: Mapping[str, Callable[[Shapes, Shape], bool]] = {
    "lora": _lora,
    "locon": _lora,
    "loha": _loha,
    "lokr": _lokr,
    "glora": _glora,
    "ia3": _ia3,
    "oft": _oft,
    "boft": _boft,
    "full": _full,
    "norm": _norm,
}


def _one(shape: Shape, _layer: Shape) -> bool:
    return math.prod(shape) == 1


def _each_row(shape: Shape, layer: Shape) -> bool:
    return math.prod(shape) == layer[0]


def _lengths(shape: Shape, layer: Shape) -> bool:
    """Magnitudes of the outputs, (out,) or (out, 1, …), or of the inputs, (1, in, …)."""
    if len(layer) < 2 or not shape:
        return False
    count = math.prod(shape)
    return (shape[0] == layer[0] == count) or (shape[:2] == (1, layer[1]) and count == layer[1])


#: Part → whether one of this shape is right for a layer.
_EXTRAS: Mapping[str, Callable[[Shape, Shape], bool]] = {
    "alpha": _one,
    "on_input": _one,
    "dora_scale": _lengths,
    "diff_b": _each_row,
    "set_bias": _each_row,
    "lora_up.bias": _each_row,
    "b_norm": _each_row,
    "rescale": _each_row,
    "boft_s": _each_row,
}
