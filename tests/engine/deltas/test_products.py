"""LoRA, LoCon, LoHa and LoKr: every factorisation gives the weight that the sum of its outer products gives."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loravault.engine.deltas import BrokenPatch
from tests.engine.deltas import slow
from tests.engine.deltas.making import delta_of, distance, numbers, same, scalar

pytestmark = pytest.mark.engine

widths = st.integers(1, 7)
ranks = st.integers(1, 5)
kernels = st.sampled_from([(), (1, 1), (3, 3), (1, 3), (3, 1, 1)])
strengths = st.floats(-2, 2).filter(lambda value: abs(value) > 1e-3)
alphas = st.none() | st.floats(0.01, 64)


def weight(out: int, into: int, kernel: tuple[int, ...]) -> Tensor:
    return numbers(out, into, *kernel, seed=9)


def with_alpha(tensors: dict[str, Tensor], alpha: float | None) -> dict[str, Tensor]:
    return tensors if alpha is None else {**tensors, "alpha": scalar(alpha)}


@settings(max_examples=60)
@given(widths, widths, ranks, kernels, alphas, strengths)
def test_lora_and_locon_are_sums_of_outer_products(  # noqa: PLR0917 - what hypothesis draws
    out: int, into: int, rank: int, kernel: tuple[int, ...], alpha: float | None, strength: float
) -> None:
    up, down = numbers(out, rank, *[1] * len(kernel), seed=1), numbers(rank, into, *kernel, seed=2)
    delta = delta_of("locon", with_alpha({"lora_up": up, "lora_down": down}, alpha))
    scale = 1.0 if alpha is None else alpha / rank
    expected = strength * slow.low_rank(up, down, None, scale).reshape(out, into, *kernel)
    assert same(delta.change(weight(out, into, kernel), strength), expected)


@settings(max_examples=40)
@given(widths, widths, ranks, st.sampled_from([(3, 3), (1, 3), (5, 1), (2, 2, 2)]), alphas)
def test_a_core_joins_every_pair_of_ranks(
    out: int, into: int, rank: int, kernel: tuple[int, ...], alpha: float | None
) -> None:
    ones = [1] * len(kernel)
    up, down = numbers(out, rank, *ones, seed=1), numbers(rank, into, *ones, seed=2)
    mid = numbers(rank, rank, *kernel, seed=3)
    delta = delta_of("locon", with_alpha({"lora_up": up, "lora_down": down, "lora_mid": mid}, alpha))
    expected = slow.low_rank(up, down, mid, 1.0 if alpha is None else alpha / rank).reshape(out, into, *kernel)
    assert same(delta.change(weight(out, into, kernel), 1.0), expected)


@given(widths, widths, ranks, st.sampled_from([(), (3, 3)]), st.booleans())
def test_the_factors_of_a_lora_hold_its_scale_and_its_core(
    out: int, into: int, rank: int, kernel: tuple[int, ...], core: bool
) -> None:
    tensors = {"lora_up": numbers(out, rank), "lora_down": numbers(rank, into, *kernel), "alpha": scalar(0.7)}
    if core:
        tensors |= {"lora_down": numbers(rank, into, 1, 1), "lora_mid": numbers(rank, rank, 3, 3)}
        kernel = (3, 3)
    delta = delta_of("lora", tensors)
    assert delta.factors is not None
    up, down = delta.factors
    assert up.shape == (out, rank)
    assert down.shape == (rank, into, *kernel)
    assert same((up @ down.flatten(1)).reshape(out, into, *kernel), delta.change(weight(out, into, kernel), 1.0))


def test_alpha_of_the_metadata_counts_where_there_is_no_tensor() -> None:
    tensors = {"lora_up": numbers(4, 2), "lora_down": numbers(2, 3)}
    plain = delta_of("lora", tensors).change(weight(4, 3, ()), 1.0)
    assert same(delta_of("lora", tensors, alpha=6.0).change(weight(4, 3, ()), 1.0), 3 * plain)
    written = {**tensors, "alpha": scalar(4.0)}
    assert same(delta_of("lora", written, alpha=6.0).change(weight(4, 3, ()), 1.0), 2 * plain)


def test_an_alpha_of_zero_means_the_rank_as_with_kohya_and_lycoris() -> None:
    tensors = {"lora_up": numbers(4, 2), "lora_down": numbers(2, 3)}
    zero = delta_of("lora", {**tensors, "alpha": scalar(0.0)})
    assert torch.equal(zero.change(weight(4, 3, ()), 1.0), delta_of("lora", tensors).change(weight(4, 3, ()), 1.0))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("core", [False, True])
def test_adding_in_place_is_adding_the_change_however_the_weight_lies_in_memory(
    layout: torch.memory_format, core: bool
) -> None:
    """A flat view of a channels-last weight is a copy: a sum written into it would be lost."""
    tensors = {"lora_up": numbers(4, 2), "lora_down": numbers(2, 3, 3, 3)}
    if core:
        tensors |= {"lora_down": numbers(2, 3, 1, 1), "lora_mid": numbers(2, 2, 3, 3)}
    delta, w0 = delta_of("locon", tensors), weight(4, 3, (3, 3)).to(memory_format=layout)
    total = w0.clone()
    delta.add_to(total, w0, -0.3)
    assert same(total - w0, delta.change(w0, -0.3), within=1e-6)


@settings(max_examples=60)
@given(widths, widths, ranks, st.sampled_from([(), (1, 1), (3, 3)]), alphas, strengths)
def test_loha_multiplies_two_products_number_by_number(  # noqa: PLR0917 - what hypothesis draws
    out: int, into: int, rank: int, kernel: tuple[int, ...], alpha: float | None, strength: float
) -> None:
    columns = into * (9 if kernel == (3, 3) else 1)
    tensors = {
        f"hada_w{n}_{side}": numbers(*(out, rank) if side == "a" else (rank, columns), seed=n)
        for n in (1, 2)
        for side in "ab"
    }
    delta = delta_of("loha", with_alpha(tensors, alpha))
    first, second = (slow.low_rank(tensors[f"hada_w{n}_a"], tensors[f"hada_w{n}_b"], None, 1.0) for n in (1, 2))
    expected = strength * (1.0 if alpha is None else alpha / rank) * first * second
    assert same(delta.change(weight(out, into, kernel), strength), expected.reshape(out, into, *kernel))
    assert delta.factors is None


@settings(max_examples=40)
@given(widths, widths, ranks, alphas)
def test_loha_with_cores_multiplies_two_tucker_products(out: int, into: int, rank: int, alpha: float | None) -> None:
    tensors = {
        f"hada_w{n}_{side}": numbers(rank, out if side == "a" else into, seed=n) for n in (1, 2) for side in "ab"
    }
    tensors |= {f"hada_t{n}": numbers(rank, rank, 3, 3, seed=n + 2) for n in (1, 2)}
    delta = delta_of("loha", with_alpha(tensors, alpha))
    products = [
        slow.low_rank(tensors[f"hada_w{n}_a"].T, tensors[f"hada_w{n}_b"], tensors[f"hada_t{n}"], 1.0) for n in (1, 2)
    ]
    expected = (1.0 if alpha is None else alpha / rank) * products[0] * products[1]
    assert same(delta.change(weight(out, into, (3, 3)), 1.0), expected.reshape(out, into, 3, 3))


def lokr(
    outs: tuple[int, int], ins: tuple[int, int], rank: int, kernel: tuple[int, ...], form: str
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """The parts of a LoKr and its two factors, whole. `form`: of each factor w(hole), h(alves) or t(ucker)."""
    tensors: dict[str, Tensor] = {}
    first = tensors["lokr_w1"] = numbers(outs[0], ins[0], seed=1)
    if form[0] == "h":
        del tensors["lokr_w1"]
        tensors |= {"lokr_w1_a": numbers(outs[0], rank, seed=2), "lokr_w1_b": numbers(rank, ins[0], seed=3)}
        first = slow.low_rank(tensors["lokr_w1_a"], tensors["lokr_w1_b"], None, 1.0)
    shape = (outs[1], ins[1], *kernel)
    if form[1] == "w":
        second = tensors["lokr_w2"] = numbers(*shape, seed=4)
    elif form[1] == "h":
        flat = ins[1] * int(torch.Size(kernel).numel())
        tensors |= {"lokr_w2_a": numbers(outs[1], rank, seed=5), "lokr_w2_b": numbers(rank, flat, seed=6)}
        second = slow.low_rank(tensors["lokr_w2_a"], tensors["lokr_w2_b"], None, 1.0).reshape(shape)
    else:
        tensors |= {"lokr_w2_a": numbers(rank, outs[1], seed=7), "lokr_w2_b": numbers(rank, ins[1], seed=8)}
        tensors["lokr_t2"] = numbers(rank, rank, *kernel, seed=9)
        second = slow.low_rank(tensors["lokr_w2_a"].T, tensors["lokr_w2_b"], tensors["lokr_t2"], 1.0).reshape(shape)
    return tensors, first, second


pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))


@settings(max_examples=80)
@given(
    pairs,
    pairs,
    ranks,
    st.sampled_from([(), (1, 1), (3, 3)]),
    st.sampled_from(["ww", "wh", "hw", "hh", "wt", "ht"]),
    alphas,
)
def test_lokr_is_a_kronecker_product_in_every_factorisation(  # noqa: PLR0917 - what hypothesis draws
    outs: tuple[int, int], ins: tuple[int, int], rank: int, kernel: tuple[int, ...], form: str, alpha: float | None
) -> None:
    """Two whole factors are not scaled, whatever alpha says."""
    kernel = (3, 3) if form[1] == "t" else kernel
    tensors, first, second = lokr(outs, ins, rank, kernel, form)
    delta = delta_of("lokr", with_alpha(tensors, alpha))
    scale = 1.0 if form == "ww" or alpha is None else alpha / rank
    shape = (outs[0] * outs[1], ins[0] * ins[1], *kernel)
    expected = scale * slow.kronecker(first, second).reshape(shape)
    assert same(delta.change(weight(*shape[:2], kernel), 0.5), 0.5 * expected)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float64]
)
def test_arithmetic_is_in_fp32_whatever_the_file_is_in(dtype: torch.dtype) -> None:
    """The rank sums up to numbers that half precision cannot hold apart."""
    up, down = numbers(6, 64, dtype=dtype), numbers(64, 5, seed=1, dtype=dtype)
    delta = delta_of("lora", {"lora_up": up, "lora_down": down})
    expected = slow.low_rank(up, down, None, 1.0)
    assert same(delta.change(weight(6, 5, ()).to(torch.bfloat16), 1.0), expected, within=1e-6)
    assert delta.bytes == (6 * 64 + 64 * 5) * up.element_size()


def test_a_linear_layer_and_a_convolution_of_one_by_one_are_the_same() -> None:
    up, down = numbers(4, 2), numbers(2, 3)
    flat = delta_of("lora", {"lora_up": up, "lora_down": down})
    deep = delta_of("lora", {"lora_up": up[..., None, None], "lora_down": down[..., None, None]})
    for delta in (flat, deep):
        assert delta.change(weight(4, 3, ()), 1.0).shape == (4, 3)
        assert distance(delta.change(weight(4, 3, (1, 1)), 1.0)[..., 0, 0], flat.change(weight(4, 3, ()), 1.0)) == 0


@pytest.mark.parametrize("shape", [(3, 4), (4, 3, 3, 3), (12,), (6, 2)])
def test_another_layer_is_refused_even_if_it_has_as_many_numbers(shape: tuple[int, ...]) -> None:
    w0 = numbers(*shape)
    for algorithm, tensors in {
        "lora": {"lora_up": numbers(4, 2), "lora_down": numbers(2, 3)},
        "lokr": {"lokr_w1": numbers(2, 1), "lokr_w2": numbers(2, 3)},
        "loha": {f"hada_w{n}_{side}": numbers(*(4, 2) if side == "a" else (2, 3)) for n in (1, 2) for side in "ab"},
    }.items():
        delta = delta_of(algorithm, tensors)
        with pytest.raises(BrokenPatch, match="made for 4×3"):
            delta.change(w0, 1.0)
        with pytest.raises(BrokenPatch, match="made for 4×3"):
            delta.add_to(w0.clone(), w0, 1.0)


@given(widths, widths, ranks, ranks, st.sampled_from([(), (1, 1), (3, 3)]), st.sampled_from(range(5)))
def test_every_product_is_the_change(  # noqa: PLR0917
    out: int, into: int, rank: int, other: int, kernel: tuple[int, ...], kind: int
) -> None:
    """What slots apply is what is merged: LoRA, LoHa, and LoKr with whole factors and halves on either side."""
    columns, ones = into * math.prod(kernel), [1] * len(kernel)
    rows = (
        ("lora", {"lora_up": (out, rank, *ones), "lora_down": (rank, into, *kernel)}),
        (
            "loha",
            {
                "hada_w1_a": (out, rank),
                "hada_w1_b": (rank, columns),
                "hada_w2_a": (out, other),
                "hada_w2_b": (other, columns),
            },
        ),
        ("lokr", {"lokr_w1": (2, 3), "lokr_w2": (out, into, *kernel)}),
        ("lokr", {"lokr_w1": (3, 2), "lokr_w2_a": (out, rank), "lokr_w2_b": (rank, columns)}),
        ("lokr", {"lokr_w1_a": (2, rank), "lokr_w1_b": (rank, 3), "lokr_w2": (out, into, *kernel)}),
    )
    algorithm, shapes = rows[kind]
    tensors = {name: numbers(*shape, seed=n) for n, (name, shape) in enumerate(shapes.items())}
    delta = delta_of(algorithm, with_alpha(tensors, 0.7))
    factor = {2: (2, 3), 3: (3, 2), 4: (2, 3)}.get(kind, (1, 1))
    w0 = weight(out * factor[0], into * factor[1], kernel)
    found = delta.product()
    assert found is not None
    up, down, scale = found
    assert up.shape[1] == down.shape[0] == delta.rank
    assert same((up @ down).reshape(w0.shape) * scale, delta.change(w0, 1.0))


def test_what_has_cores_on_both_sides_is_no_product_of_two_matrices() -> None:
    """Its rank would be that of the whole; it is merged."""
    tensors = {f"hada_w{n}_{side}": numbers(2, 4) for n in (1, 2) for side in "ab"}
    delta = delta_of("loha", {**tensors, "hada_t1": numbers(2, 2, 3, 3), "hada_t2": numbers(2, 2, 3, 3)})
    assert delta.rank is None
    assert delta.product() is None
