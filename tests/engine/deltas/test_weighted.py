"""IA3 and GLoRA multiply the weight that is there: in every layout, on the axis that is meant."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loravault.engine.deltas import BrokenPatch
from tests.engine.deltas.making import delta_of, numbers, same, scalar

pytestmark = pytest.mark.engine

widths = st.integers(1, 7)
strengths = st.floats(-2, 2).filter(lambda value: abs(value) > 1e-3)
kernels = st.sampled_from([(), (1, 1), (3, 3)])


@settings(max_examples=60)
@given(widths, widths, kernels, st.booleans(), strengths)
def test_ia3_multiplies_each_output_or_each_input(
    out: int, into: int, kernel: tuple[int, ...], on_input: bool, strength: float
) -> None:
    count = into if on_input else out
    factors = numbers(1, count, *[1] * len(kernel)) if kernel else numbers(count)
    delta = delta_of("ia3", {"weight": factors, "on_input": torch.tensor(int(on_input))})
    w0, expected = numbers(out, into, *kernel, seed=1), torch.zeros(out, into, *kernel).double()
    for row in range(out):
        for column in range(into):
            factor = float(factors.flatten()[column if on_input else row])
            expected[row, column] = w0[row, column].double() * factor * strength
    assert same(delta.change(w0, strength), expected)
    assert not delta.touches_bias
    assert delta.bias(strength, numbers(out)) is None


@pytest.mark.parametrize("on_input", [False, True])
@pytest.mark.parametrize("kernel", [(), (3, 3)])
def test_pefts_ia3_keeps_factors_around_one_and_scales_what_the_layer_gives(
    on_input: bool, kernel: tuple[int, ...]
) -> None:
    out, into = 4, 6
    count = into if on_input else out
    values = 1 + numbers(count, size=0.1)
    written = values.view(1, count, 1, 1) if kernel else values.view((1, count) if on_input else (count, 1))
    delta = delta_of("ia3", {"ia3_l": written})
    w0, b0 = numbers(out, into, *kernel, seed=1), numbers(out, seed=2)
    x = numbers(2, into, *[5] * len(kernel), seed=3)
    layer = torch.nn.functional.conv2d if kernel else torch.nn.functional.linear
    shape = (1, -1, *[1] * len(kernel))
    expected = layer(x * values.view(shape), w0, b0) if on_input else layer(x, w0, b0) * values.view(shape)
    bias = delta.bias(1.0, b0)
    assert (bias is None) == on_input
    given_out = layer(x, w0 + delta.change(w0, 1.0), b0 if bias is None else b0 + bias)
    assert torch.allclose(given_out, expected, atol=1e-5)


def test_pefts_ia3_of_a_square_linear_layer_is_told_by_where_its_one_stands() -> None:
    w0, values = numbers(3, 3), torch.tensor([2.0, 3.0, 4.0])
    rows = delta_of("ia3", {"ia3_l": values.view(3, 1)}).change(w0, 1.0)
    columns = delta_of("ia3", {"ia3_l": values.view(1, 3)}).change(w0, 1.0)
    assert torch.allclose(rows, w0 * (values - 1).view(3, 1))
    assert torch.allclose(columns, w0 * (values - 1))


def test_ia3_for_another_width_is_refused() -> None:
    delta = delta_of("ia3", {"weight": numbers(4), "on_input": torch.tensor(1)})
    with pytest.raises(BrokenPatch, match="4 inputs"):
        delta.change(numbers(4, 5), 1.0)


@settings(max_examples=60)
@given(widths, widths, st.integers(1, 4), kernels, st.booleans(), st.floats(0.1, 9), strengths)
def test_glora_adds_a_product_of_the_weight_and_a_product_of_its_own(  # noqa: PLR0917 - what hypothesis draws
    out: int, into: int, rank: int, kernel: tuple[int, ...], old: bool, alpha: float, strength: float
) -> None:
    """The older order has the names of each pair exchanged. It is told apart as long as the rank is below the width."""
    if out == into:
        rank = min(rank, max(1, into - 1))
    ones = [1] * len(kernel)
    a_up, a_down = numbers(into, rank, *ones, seed=1), numbers(rank, into, *ones, seed=2)
    b_up, b_down = numbers(out, rank, *ones, seed=3), numbers(rank, into, *kernel, seed=4)
    if old and into == 1 == rank:  # numbers, not matrices: the names of a pair make no difference to their product
        old = False
    names = ("a2", "a1", "b2", "b1") if old else ("a1", "a2", "b1", "b2")
    tensors = dict(zip(names, (a_up, a_down, b_up, b_down), strict=True))
    delta = delta_of("glora", {**tensors, "alpha": scalar(alpha)})
    w0 = numbers(out, into, *kernel, seed=5)
    product = a_up.double().flatten(1) @ a_down.double().flatten(1)
    turned = torch.zeros_like(w0, dtype=torch.float64)
    for column in range(into):
        for inner in range(into):
            turned[:, column] += w0[:, inner].double() * product[inner, column]
    own = (b_up.double().flatten(1) @ b_down.double().flatten(1)).reshape(w0.shape)
    assert same(delta.change(w0, strength), strength * alpha / rank * (turned + own))


def test_glora_on_the_whole_flat_weight_of_a_convolution() -> None:
    """An A as wide as inputs times kernel multiplies the weight as it lies flat."""
    w0 = numbers(4, 2, 3, 3)
    a_up, a_down, b_up, b_down = numbers(18, 2), numbers(2, 18), numbers(4, 2), numbers(2, 18, seed=1)
    delta = delta_of("glora", {"a1": a_up, "a2": a_down, "b1": b_up, "b2": b_down})
    expected = w0.double().flatten(1) @ a_up.double() @ a_down.double() + b_up.double() @ b_down.double()
    assert same(delta.change(w0, 1.0), expected.reshape(w0.shape))


def test_glora_that_cannot_be_multiplied_or_does_not_fit_is_refused() -> None:
    with pytest.raises(BrokenPatch, match="cannot be multiplied"):
        delta_of("glora", {"a1": numbers(4, 2), "a2": numbers(3, 4), "b1": numbers(5, 2), "b2": numbers(2, 4)})
    delta = delta_of("glora", {"a1": numbers(4, 2), "a2": numbers(2, 4), "b1": numbers(5, 2), "b2": numbers(2, 4)})
    with pytest.raises(BrokenPatch, match="made for 5×4"):
        delta.change(numbers(4, 5), 1.0)
