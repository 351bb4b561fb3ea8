"""OFT and BOFT: what is turned, by how much, and what strength does to it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loravault.engine.deltas import BrokenPatch
from tests.engine.deltas import slow
from tests.engine.deltas.making import delta_of, distance, numbers, same, scalar

pytestmark = pytest.mark.engine

strengths = st.floats(-2, 2).filter(lambda value: abs(value) > 1e-2)
kernels = st.sampled_from([(), (1, 1), (3, 3)])
sizes = st.integers(2, 5)
limits = st.sampled_from([None, 0.0, 1e-3, 100.0])


def with_extras(tensors: dict[str, Tensor], alpha: float | None, rescale: Tensor | None) -> dict[str, Tensor]:
    more = {} if alpha is None else {"alpha": scalar(alpha)}
    return {**tensors, **more, **({} if rescale is None else {"rescale": rescale})}


def factors(out: int, kernel: tuple[int, ...], wanted: bool) -> Tensor | None:
    return 1 + numbers(out, 1, *[1] * len(kernel), seed=7, size=0.1) if wanted else None


@settings(max_examples=60)
@given(sizes, st.integers(1, 4), st.integers(1, 6), kernels, limits, st.booleans(), strengths)
def test_oft_turns_the_outputs_block_by_block(  # noqa: PLR0917 - what hypothesis draws
    size: int, count: int, into: int, kernel: tuple[int, ...], alpha: float | None, rescaled: bool, strength: float
) -> None:
    """`alpha` times the outputs limits the norm of Q; strength turns less far, and leaves the factors alone."""
    blocks, w0 = numbers(count, size, size), numbers(count * size, into, *kernel, seed=1)
    rescale = factors(count * size, kernel, rescaled)
    delta = delta_of("oft", with_extras({"oft_blocks": blocks}, alpha, rescale))
    expected = slow.oft(w0, blocks, strength, (alpha or 0) * count * size, rescale) - w0.double()
    assert same(delta.change(w0, strength), expected.reshape(w0.shape), within=2e-5)


@settings(max_examples=60)
@given(
    st.sampled_from([2, 4, 6]),
    st.sampled_from([(1, 1), (2, 2), (3, 4), (2, 6)]),
    kernels,
    limits,
    st.booleans(),
    strengths,
)
def test_boft_turns_the_outputs_in_a_butterfly(  # noqa: PLR0917 - what hypothesis draws
    size: int, stages: tuple[int, int], kernel: tuple[int, ...], alpha: float | None, rescaled: bool, strength: float
) -> None:
    """Every stage follows the strength, so that half of it is not half of the change."""
    count, width = stages[1], stages[1] * size
    blocks, w0 = numbers(stages[0], count, size, size, size=0.5), numbers(width, 3, *kernel, seed=1)
    rescale = factors(width, kernel, rescaled)
    delta = delta_of("boft", with_extras({"oft_blocks": blocks}, alpha, rescale))
    expected = slow.boft(w0, blocks, strength, (alpha or 0) * width, rescale).reshape(w0.shape) - w0.double()
    assert same(delta.change(w0, strength), expected, within=2e-5)


@settings(max_examples=40)
@given(st.integers(2, 5), st.integers(1, 4), kernels, st.booleans(), strengths)
def test_pefts_oft_turns_the_inputs_with_five_terms_of_neumann(
    size: int, count: int, kernel: tuple[int, ...], shared: bool, strength: float
) -> None:
    area = 9 if kernel == (3, 3) else 1
    triangles = numbers(1 if shared else count * area, size * (size - 1) // 2, size=0.2)
    w0 = numbers(4, count * size, *kernel, seed=1)
    delta = delta_of("oft", {"oft_R": triangles})
    expected = strength * (slow.peft_oft(w0, triangles, size).reshape(w0.shape) - w0.double())
    assert same(delta.change(w0, strength), expected)


@settings(max_examples=40)
@given(
    st.sampled_from([(1, 1, 3), (1, 5, 3), (1, 2, 4), (2, 2, 2), (2, 4, 4), (3, 4, 2), (3, 8, 2)]),
    st.booleans(),
    strengths,
)
def test_pefts_boft_turns_the_inputs_and_scales_the_outputs(
    stages: tuple[int, int, int], conv: bool, strength: float
) -> None:
    """A convolution's factors lie the other way round in the file. Half the strength is half the change."""
    count, width, size = stages[1], stages[1] * stages[2], stages[2]
    blocks, kernel = numbers(stages[0], count, size, size, size=0.5), (1, 1) if conv else ()
    boft_s = 1 + numbers(5, 1, size=0.1)
    w0 = numbers(5, width, *kernel, seed=1)
    delta = delta_of("boft", {"boft_R": blocks, "boft_s": boft_s.T.contiguous() if conv else boft_s})
    expected = strength * (slow.peft_boft(w0, blocks, boft_s).reshape(w0.shape) - w0.double())
    assert same(delta.change(w0, strength), expected, within=2e-5)


def test_blocks_that_are_rotations_already_are_taken_as_they_are() -> None:
    """LyCORIS before 3 saved R, with the factors of the outputs multiplied into it, as `oft_diag`."""
    rotations = torch.stack([slow.cayley(one) for one in slow.skew(numbers(2, 3, 3), 0)]).float() * 1.1
    w0 = numbers(6, 4, seed=1)
    expected = torch.cat([rotations[block].double().T @ w0[3 * block : 3 * block + 3].double() for block in (0, 1)])
    assert same(delta_of("oft", {"oft_diag": rotations}).change(w0, 1.0), expected - w0.double())


def test_a_rotation_keeps_the_length_of_every_input_column() -> None:
    w0 = numbers(12, 5)
    turned = w0 + delta_of("oft", {"oft_blocks": numbers(3, 4, 4, seed=2)}).change(w0, 1.0)
    assert torch.allclose(turned.norm(dim=0), w0.norm(dim=0), rtol=1e-5)
    assert distance(turned, w0) > 0.1


def test_a_small_turn_keeps_its_digits() -> None:
    """R − I is computed, not R: of 1 + 1e-6 half precision of the change would be lost."""
    blocks, w0 = numbers(3, 4, 4, size=1e-6), numbers(12, 5, seed=1)
    exact = slow.oft(w0, blocks, 1.0, 0, None) - w0.double()
    assert distance(delta_of("oft", {"oft_blocks": blocks}).change(w0, 1.0), exact) < 1e-6


def test_symmetric_blocks_turn_nothing() -> None:
    symmetric = numbers(2, 3, 3) + numbers(2, 3, 3).transpose(1, 2)
    assert delta_of("oft", {"oft_blocks": symmetric}).is_zero()
    assert not delta_of("oft", {"oft_blocks": symmetric, "rescale": torch.full((6, 1), 1.5)}).is_zero()
    assert not delta_of("oft", {"oft_blocks": numbers(2, 3, 3)}).is_zero()
    assert delta_of("boft", {"boft_R": torch.zeros(1, 2, 4, 4), "boft_s": torch.ones(5, 1)}).is_zero()


@pytest.mark.parametrize(
    ("algorithm", "tensors", "words"),
    [
        ("oft", {"oft_blocks": numbers(2, 3, 4)}, "no square blocks"),
        ("boft", {"oft_blocks": numbers(2, 3, 4, 4)}, "no butterfly"),
        ("boft", {"oft_blocks": numbers(1, 2, 3, 3)}, "no butterfly"),
        ("boft", {"boft_R": numbers(2, 3, 4, 4), "boft_s": numbers(4, 1)}, "no butterfly"),
        ("boft", {"boft_R": numbers(1, 3, 4, 4)}, "boft_s is missing"),
        ("oft", {"oft_R": numbers(2, 5)}, "no triangles"),
    ],
)
def test_blocks_that_cannot_turn_are_refused(algorithm: str, tensors: dict[str, Tensor], words: str) -> None:
    with pytest.raises(BrokenPatch, match=words):
        delta_of(algorithm, tensors)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"oft_blocks": numbers(2, 3, 3)}, "6 outputs"),
        ({"oft_blocks": numbers(1, 3, 3)}, "3 outputs"),
        ({"oft_blocks": numbers(2, 4, 4), "rescale": torch.ones(3, 1)}, "3 outputs"),
        ({"oft_R": numbers(2, 3)}, "6 inputs"),
        ({"oft_R": numbers(1, 10)}, "5 inputs"),
    ],
)
def test_rotations_for_another_layer_are_refused(tensors: dict[str, Tensor], words: str) -> None:
    """One block of outputs is not for all outputs; one triangle of PEFT's is for all inputs, if they can be cut so."""
    with pytest.raises(BrokenPatch, match=words):
        delta_of("oft", tensors).change(numbers(8, 12), 1.0)
