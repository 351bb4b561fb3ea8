"""DoRA: the merged weight gets the lengths of the file, along the axis that their shape means."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loravault.engine.deltas import BrokenPatch
from tests.engine.deltas import slow
from tests.engine.deltas.making import delta_of, numbers, same, scalar

pytestmark = pytest.mark.engine

widths = st.integers(2, 6)
kernels = st.sampled_from([(), (1, 1), (3, 3)])
INNER = ("lora", "loha", "lokr")


def inner(algorithm: str, out: int, into: int, kernel: tuple[int, ...]) -> dict[str, Tensor]:
    columns = into * int(torch.Size(kernel).numel())
    if algorithm == "lora":
        tensors = {"lora_up": numbers(out, 2, seed=1), "lora_down": numbers(2, into, *kernel, seed=2)}
    elif algorithm == "loha":
        tensors = {
            f"hada_w{n}_{side}": numbers(*(out, 2) if side == "a" else (2, columns), seed=n)
            for n in (1, 2)
            for side in "ab"
        }
    else:
        tensors = {
            "lokr_w1": numbers(1, 1, seed=1),
            "lokr_w2_a": numbers(out, 2, seed=2),
            "lokr_w2_b": numbers(2, columns),
        }
    return {**tensors, "alpha": scalar(1.3)}


def lengths(out: int, into: int, kernel: tuple[int, ...], on_output: bool) -> Tensor:
    shape = (out, 1) if on_output else (1, into)
    return 0.5 + numbers(*shape, *[1] * len(kernel), seed=5).abs()


@settings(max_examples=60)
@given(st.sampled_from(INNER), widths, widths, kernels, st.booleans(), st.floats(-2, 2).filter(lambda m: abs(m) > 1e-2))
def test_dora_on_any_product_gives_the_merged_weight_the_lengths_of_the_file(  # noqa: PLR0917 - what hypothesis draws
    algorithm: str, out: int, into: int, kernel: tuple[int, ...], on_output: bool, strength: float
) -> None:
    """(out, 1, …) are lengths of outputs, (1, in, …) of inputs. Strength is the share of the way from W to W′."""
    tensors, magnitude = inner(algorithm, out, into, kernel), lengths(out, into, kernel, on_output)
    w0 = numbers(out, into, *kernel, seed=8)
    merged = w0.double() + delta_of(algorithm, tensors).change(w0, 1.0).double()
    expected = strength * (slow.dora(merged, magnitude, on_output=on_output) - w0.double())
    delta = delta_of(algorithm, {**tensors, "dora_scale": magnitude})
    assert same(delta.change(w0, strength), expected, within=2e-5)
    assert not delta.is_zero()
    assert delta.factors is None


@pytest.mark.parametrize(("kernel", "shape"), [((), (4,)), ((3, 3), (1, 4, 1, 1)), ((3, 3), (4, 1, 1, 1))])
def test_pefts_magnitudes_are_always_of_outputs(kernel: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """PEFT writes those of a convolution as LyCORIS writes lengths of inputs; in square layers only the name tells."""
    tensors = inner("lora", 4, 4, kernel)
    magnitude, w0 = 0.5 + numbers(*shape).abs(), numbers(4, 4, *kernel, seed=8)
    merged = w0.double() + delta_of("lora", tensors).change(w0, 1.0).double()
    delta = delta_of("lora", {**tensors, "dora_scale": magnitude}, peft=True)
    assert same(delta.change(w0, 1.0), slow.dora(merged, magnitude, on_output=True) - w0.double())
    if len(shape) > 1 and shape[0] == 1:
        inputs = delta_of("lora", {**tensors, "dora_scale": magnitude})
        assert same(inputs.change(w0, 1.0), slow.dora(merged, magnitude, on_output=False) - w0.double())


def test_pefts_magnitudes_are_never_taken_for_inputs() -> None:
    """As many as there are inputs, in the shape of lengths of inputs: still a file for another layer."""
    tensors = {**inner("lora", 4, 3, ()), "dora_scale": numbers(1, 3)}
    assert delta_of("lora", tensors).change(numbers(4, 3), 1.0).shape == (4, 3)
    with pytest.raises(BrokenPatch, match="lengths of the shape"):
        delta_of("lora", tensors, peft=True).change(numbers(4, 3), 1.0)


def test_lengths_that_are_those_of_the_merged_weight_change_nothing_more() -> None:
    tensors, w0 = inner("lora", 4, 3, ()), numbers(4, 3, seed=8)
    plain = delta_of("lora", tensors).change(w0, 1.0)
    magnitude = (w0 + plain).norm(dim=1, keepdim=True)
    assert same(delta_of("lora", {**tensors, "dora_scale": magnitude}).change(w0, 1.0), plain)


def test_a_row_of_zeros_has_no_direction_and_becomes_no_nan() -> None:
    tensors = {"lora_up": torch.zeros(3, 1), "lora_down": numbers(1, 2), "dora_scale": torch.ones(3, 1)}
    w0 = numbers(3, 2)
    w0[1] = 0
    change = delta_of("lora", tensors).change(w0, 1.0)
    assert bool(change.isfinite().all())
    assert bool((change[1] == 0).all())


@pytest.mark.parametrize("shape", [(5, 1), (1, 5), (2, 2), (3, 1, 2)])
def test_lengths_for_another_layer_are_refused(shape: tuple[int, ...]) -> None:
    delta = delta_of("lora", {**inner("lora", 4, 3, ()), "dora_scale": numbers(*shape)})
    with pytest.raises(BrokenPatch, match="lengths of the shape"):
        delta.change(numbers(4, 3), 1.0)


def test_the_bias_of_a_decomposed_lora_is_scaled_as_the_lora_is() -> None:
    """The lengths around the LoRA once hid its scale from the bias beside it."""
    tensors = {**inner("lora", 4, 3, ()), "lora_up.bias": numbers(4), "dora_scale": torch.ones(4, 1)}
    bias = delta_of("lora", tensors).bias(2.0, torch.zeros(4))
    assert bias is not None
    assert torch.allclose(bias, 2.0 * 1.3 / 2 * tensors["lora_up.bias"])
