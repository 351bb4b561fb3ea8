"""Whether the parts of a patch make a change of a layer: every algorithm, every kind of layer, and one number off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.formats import keys
from loravault.formats.normal import parts
from tests.formats import derived

Shape = tuple[int, ...]

LINEAR, CONV, POINT, VOLUME = (96, 64), (96, 64, 3, 3), (96, 64, 1, 1), (96, 64, 1, 2, 2)


def _locon_tucker(shape: Shape, rank: int = 4) -> derived.Parts:
    return {"lora_down.weight": (rank, shape[1], 1, 1), "lora_up.weight": (shape[0], rank, 1, 1),
            "lora_mid.weight": (rank, rank, *shape[2:])}  # fmt: skip


def _lokr_tucker(shape: Shape, rank: int = 4) -> derived.Parts:
    return {"lokr_w1": (8, 8), "lokr_w2_a": (rank, shape[0] // 8), "lokr_w2_b": (rank, shape[1] // 8),
            "lokr_t2": (rank, rank, *shape[2:])}  # fmt: skip


def _lokr_both(shape: Shape, rank: int = 2) -> derived.Parts:
    return {"lokr_w1_a": (8, rank), "lokr_w1_b": (rank, 8), "lokr_w2_a": (shape[0] // 8, rank),
            "lokr_w2_b": (rank, shape[1] // 8), "alpha": ()}  # fmt: skip


def _lokr_kernel(shape: Shape) -> derived.Parts:
    return {"lokr_w1": (8, 8), "lokr_w2": (shape[0] // 8, shape[1] // 8, *shape[2:])}


def _flat_locon(shape: Shape, rank: int = 4) -> derived.Parts:
    return {"lora_down.weight": (rank, shape[1] * 9), "lora_up.weight": (shape[0], rank)}


def _glora_older(shape: Shape, rank: int = 4) -> derived.Parts:
    out, into = shape
    return {"a1.weight": (rank, into), "a2.weight": (into, rank), "b1.weight": (rank, into), "b2.weight": (out, rank)}


def _peft_oft(shape: Shape, size: int = 8, shared: bool = False) -> derived.Parts:
    return {"oft_R.weight": (1 if shared else shape[1] // size, size * (size - 1) // 2)}


def _peft_boft(shape: Shape) -> derived.Parts:
    return {"boft_R": (2, shape[1] // 8, 8, 8), "boft_s": (shape[0], 1)}


def _ia3_input(shape: Shape) -> derived.Parts:
    return {"weight": (1, shape[1], *([1] * len(shape[2:]))), "on_input": ()}


def _norm_diff(shape: Shape) -> derived.Parts:
    return {"w_norm": shape, "b_norm": shape}


CASES: tuple[tuple[str, Callable[[Shape], derived.Parts], Shape], ...] = (
    *((name, derived.ALGORITHMS[name], shape) for name in derived.ALGORITHMS for shape in (LINEAR, POINT, CONV)
      if name not in ("glora", "dora")),
    ("lora", derived.dora, LINEAR), ("lora", derived.dora, CONV), ("lora", derived.peft_named, VOLUME),
    ("glora", derived.glora, LINEAR), ("glora", derived.glora, CONV), ("glora", _glora_older, LINEAR),
    ("lora", _locon_tucker, CONV), ("lora", _flat_locon, CONV), ("loha", derived.loha_tucker, CONV),
    ("lokr", _lokr_tucker, CONV), ("lokr", _lokr_both, LINEAR), ("lokr", _lokr_both, POINT),
    ("lokr", _lokr_kernel, CONV), ("lokr", derived.lokr_full, LINEAR),
    ("oft", _peft_oft, LINEAR), ("boft", _peft_boft, LINEAR), ("ia3", _ia3_input, LINEAR), ("ia3", _ia3_input, CONV),
    ("norm", _norm_diff, (96,)),
)  # fmt: skip
_IDS = [f"{name} {make.__name__} {'x'.join(map(str, shape))}" for name, make, shape in CASES]


def read(raw: Mapping[str, Shape]) -> dict[str, Shape]:
    """Parts as a file has them → parts in their one spelling."""
    split = {name: keys.split_name(f"unet.layer.{name}") for name in raw}
    return {parts.spelled(key.part): raw[name] for name, key in split.items() if key is not None}


def fits(raw: Mapping[str, Shape], layer: Shape) -> bool:
    found = read(raw)
    algorithm = parts.algorithm_of(found)
    return algorithm is not None and parts.fits(algorithm, found, layer)


@pytest.mark.parametrize(("algorithm", "make", "layer"), CASES, ids=_IDS)
def test_parts_fit_the_layer_they_were_made_for(
    algorithm: str, make: Callable[[Shape], derived.Parts], layer: Shape
) -> None:
    found = read(make(layer))
    told = parts.algorithm_of(found)
    assert told is not None
    assert told.replace("locon", "lora") == algorithm
    assert all(parts.allowed(told, part) for part in found)
    assert parts.fits(told, found, layer)


def _others(layer: Shape) -> Iterator[Shape]:
    for axis, size in enumerate(layer):
        yield (*layer[:axis], size + 8, *layer[axis + 1 :])
    if len(layer) > 1 and layer[0] != layer[1]:
        yield (layer[1], layer[0], *layer[2:])


@pytest.mark.parametrize(("algorithm", "make", "layer"), CASES, ids=_IDS)
def test_parts_do_not_fit_a_layer_of_another_shape(
    algorithm: str, make: Callable[[Shape], derived.Parts], layer: Shape
) -> None:
    """Some say nothing of one side: rotations of outputs fit any input. Of factors only `on_input` tells the side."""
    blind = {
        "oft": (1, 2, 3) if make is derived.oft else (0, 2, 3),
        "boft": (1, 2, 3) if make is derived.boft else (2, 3),
        "ia3": (1, 2, 3) if make is derived.ia3 else (0, 2, 3),
    }.get(algorithm, ())
    for other in _others(layer):
        if algorithm == "ia3" and other[:2] == layer[1::-1]:
            continue
        changed = [axis for axis, size in enumerate(other) if size != layer[axis]]
        if not set(changed) <= set(blind):
            assert not fits(make(layer), other), other


@pytest.mark.parametrize(("algorithm", "make", "layer"), CASES, ids=_IDS)
def test_no_part_may_be_of_another_size(algorithm: str, make: Callable[[Shape], derived.Parts], layer: Shape) -> None:
    whole = make(layer)
    for part, shape in whole.items():
        for axis in range(len(shape)):
            wrong = (*shape[:axis], shape[axis] * 2 + 1, *shape[axis + 1 :])
            stages = part in ("boft_R", "oft_blocks") and len(shape) == 4 and axis == 0  # any number of them is right
            assert stages or not fits({**whole, part: wrong}, layer), (part, wrong)


@pytest.mark.parametrize(("algorithm", "make", "layer"), CASES, ids=_IDS)
def test_what_is_missing_is_missed(algorithm: str, make: Callable[[Shape], derived.Parts], layer: Shape) -> None:
    """What may be left out of a patch: the alpha, magnitudes, factors of a rotation, one of weight and bias."""
    optional = {"alpha", "dora_scale", "rescale", "w_norm", "b_norm", "diff", "diff_b"}
    whole = make(layer)
    for part in whole:
        if part not in optional:
            assert not fits({name: shape for name, shape in whole.items() if name != part}, layer), part


def test_a_lone_core_or_a_core_of_another_kernel_does_not_fit() -> None:
    whole = _locon_tucker(CONV)
    assert not fits({**whole, "lora_mid.weight": (4, 4, 5, 5)}, CONV)
    assert not fits({**whole, "lora_mid.weight": (5, 4, 3, 3)}, CONV)
    assert not fits({**whole, "lora_down.weight": (4, 64, 3, 3)}, CONV)  # the kernel twice


def test_one_triangle_of_pefts_oft_may_be_shared_by_all_blocks() -> None:
    assert fits(_peft_oft(LINEAR, shared=True), LINEAR)
    assert not fits({"oft_R.weight": (1, 27)}, LINEAR)  # no triangle has 27 numbers


def test_a_difference_of_the_bias_may_stand_alone() -> None:
    assert fits({"diff_b": (96,)}, LINEAR)
    assert not fits({"diff_b": (64,)}, LINEAR)


def test_a_change_of_a_norm_is_none_of_another_layer() -> None:
    assert not fits({"w_norm": LINEAR, "b_norm": (96,)}, LINEAR)
    assert not fits({"b_norm": (96,)}, LINEAR)


def test_an_alpha_is_one_number() -> None:
    assert fits({**derived.lora(LINEAR), "alpha": (1,)}, LINEAR)
    assert not fits({**derived.lora(LINEAR), "alpha": (2,)}, LINEAR)


@pytest.mark.parametrize(
    ("whole", "more"),
    [
        (derived.lokr(LINEAR), {"lokr_w1_a": (8, 2)}),
        (_lokr_kernel(CONV), {"lokr_t2": (2, 2, 3, 3)}),
        (derived.oft(LINEAR), _peft_oft(LINEAR)),
        (_peft_oft(LINEAR), {"rescale": (96, 1)}),
        (derived.boft(LINEAR), _peft_boft(LINEAR)),
        (derived.ia3(LINEAR), {"ia3_l.weight": (96, 1)}),
        (derived.full(LINEAR), {"set_weight": LINEAR}),
    ],
)
def test_parts_that_say_one_thing_twice_are_not_chosen_between(whole: derived.Parts, more: derived.Parts) -> None:
    layer = CONV if "lokr_t2" in more else LINEAR
    assert fits(whole, layer)
    assert not fits({**whole, **more}, layer)


@pytest.mark.parametrize(("shape", "right"), [((4, 6, 8, 8), False), ((2, 6, 8, 8), True), ((2, 32, 3, 3), False)])
def test_a_butterfly_needs_pairs_of_half_blocks_in_every_stage(shape: Shape, right: bool) -> None:
    assert fits({"oft_blocks": shape}, (shape[1] * shape[2], 64)) is right


@given(
    st.dictionaries(
        st.sampled_from(sorted({part for name, make, shape in CASES for part in make(shape)})),
        st.lists(st.integers(0, 100), max_size=5).map(tuple),
        min_size=1,
    ),
    st.lists(st.integers(1, 100), min_size=1, max_size=5).map(tuple),
)
def test_no_shapes_crash_the_check(raw: dict[str, Shape], layer: Shape) -> None:
    fits(raw, layer)
