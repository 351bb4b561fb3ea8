"""Full differences, new values, norms, and everything that goes to the bias."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loravault.engine.deltas import BrokenPatch
from tests.engine.deltas.making import delta_of, numbers, same, scalar

pytestmark = pytest.mark.engine

strengths = st.floats(-2, 2).filter(lambda value: abs(value) > 1e-3)
shapes = st.sampled_from([(4, 3), (4, 3, 1, 1), (4, 3, 3, 3), (4, 2, 3, 3, 3), (4,)])


@given(shapes, strengths, st.sampled_from([torch.float32, torch.float16]))
def test_a_full_difference_is_added(shape: tuple[int, ...], strength: float, dtype: torch.dtype) -> None:
    diff, diff_b = numbers(*shape, dtype=dtype), numbers(4, seed=1, dtype=dtype)
    delta = delta_of("full", {"diff": diff, "diff_b": diff_b})
    assert same(delta.change(numbers(*shape, seed=2), strength), strength * diff.double())
    bias = delta.bias(strength, torch.zeros(4))
    assert bias is not None
    assert same(bias, strength * diff_b.double())


@given(strengths)
def test_a_norm_has_both_its_parts_added(strength: float) -> None:
    w_norm, b_norm = numbers(5), numbers(5, seed=1)
    delta = delta_of("norm", {"w_norm": w_norm, "b_norm": b_norm})
    bias = delta.bias(strength, numbers(5))
    assert same(delta.change(torch.ones(5), strength), strength * w_norm.double())
    assert bias is not None
    assert same(bias, strength * b_norm.double())


@given(strengths)
def test_new_values_replace_the_old_ones_at_strength_1(strength: float) -> None:
    value, new_bias = numbers(4, 3), numbers(4, seed=1)
    w0, b0 = numbers(4, 3, seed=2), numbers(4, seed=3)
    delta = delta_of("full", {"set_weight": value, "set_bias": new_bias})
    bias, from_nothing = delta.bias(strength, b0), delta.bias(strength)
    assert same(delta.change(w0, strength), strength * (value.double() - w0.double()))
    assert bias is not None
    assert from_nothing is not None
    assert same(bias, strength * (new_bias.double() - b0.double()))
    assert same(from_nothing, strength * new_bias.double())
    assert torch.allclose(w0 + delta.change(w0, 1.0), value, atol=1e-6)


def test_a_difference_of_the_bias_may_stand_alone_or_beside_any_algorithm() -> None:
    w0, b0, diff_b = numbers(4, 3), numbers(4, seed=1), numbers(4, seed=2)
    alone = delta_of("full", {"diff_b": diff_b})
    beside = delta_of(
        "lora", {"lora_up": numbers(4, 2), "lora_down": numbers(2, 3), "diff_b": diff_b, "alpha": scalar(1)}
    )
    assert not bool(alone.change(w0, 1.0).any())
    assert alone.touches_bias
    assert not alone.is_zero()
    assert beside.factors is not None
    for delta in (alone, beside):
        bias = delta.bias(0.5, b0)
        assert bias is not None
        assert torch.allclose(bias, 0.5 * diff_b)  # alpha scales the LoRA, not the difference beside it


def test_a_lora_of_the_bias_is_scaled_as_the_lora_is() -> None:
    tensors = {"lora_up": numbers(4, 2), "lora_down": numbers(2, 3), "lora_up.bias": numbers(4), "alpha": scalar(6)}
    bias = delta_of("lora", tensors).bias(0.5)
    assert bias is not None
    assert torch.allclose(bias, 0.5 * 3 * tensors["lora_up.bias"])


def test_what_changes_the_bias_says_so_and_nothing_else_does() -> None:
    lora = {"lora_up": numbers(4, 2), "lora_down": numbers(2, 3)}
    assert not delta_of("lora", lora).touches_bias
    assert delta_of("lora", lora).bias(1.0, numbers(4)) is None
    assert delta_of("lora", {**lora, "diff_b": numbers(4)}).touches_bias
    assert delta_of("ia3", {"ia3_l": numbers(4, 1)}).touches_bias


def test_a_bias_of_another_length_is_refused() -> None:
    with pytest.raises(BrokenPatch, match="4 outputs"):
        delta_of("full", {"diff_b": numbers(4)}).bias(1.0, numbers(5))


@pytest.mark.parametrize("shape", [(3, 4), (12,), (4, 3, 3, 3)])
def test_a_difference_of_another_layer_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BrokenPatch, match="made for 4×3"):
        delta_of("full", {"diff": numbers(4, 3)}).change(numbers(*shape), 1.0)
