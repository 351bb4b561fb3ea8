"""Reading: what is broken is told in one sentence, what is not asked for is not passed over, strength 0 is nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from loravault.engine.deltas import BrokenPatch, Delta, read_delta
from loravault.errors import UserError
from loravault.formats.normal import parts as normal_parts
from loravault.formats.tensor_table import BrokenFile
from tests.engine.deltas.making import NAME, delta_of, numbers, patch_of, scalar

pytestmark = pytest.mark.engine

LORA = {"lora_up": numbers(4, 2), "lora_down": numbers(2, 4), "alpha": scalar(1)}
LOHA = {f"hada_w{n}_{side}": numbers(*(4, 2) if side == "a" else (2, 4), seed=n) for n in (1, 2) for side in "ab"}
#: One of each kind, for a layer of 4×4.
KINDS: dict[str, tuple[str, dict[str, Tensor]]] = {
    "lora": ("lora", LORA),
    "locon": (
        "locon",
        {"lora_up": numbers(4, 2, 1, 1), "lora_down": numbers(2, 4, 1, 1), "lora_mid": numbers(2, 2, 1, 1)},
    ),
    "dora": ("lora", {**LORA, "dora_scale": 1 + numbers(4, 1).abs()}),
    "loha": ("loha", LOHA),
    "lokr": ("lokr", {"lokr_w1": numbers(2, 2), "lokr_w2": numbers(2, 2, seed=1)}),
    "ia3": ("ia3", {"weight": numbers(4), "on_input": torch.tensor(0)}),
    "peft ia3": ("ia3", {"ia3_l": numbers(4, 1)}),
    "glora": (
        "glora",
        {"a1": numbers(4, 2), "a2": numbers(2, 4), "b1": numbers(4, 2, seed=1), "b2": numbers(2, 4, seed=1)},
    ),
    "oft": ("oft", {"oft_blocks": numbers(2, 2, 2), "rescale": 1 + numbers(4, 1).abs()}),
    "peft oft": ("oft", {"oft_R": numbers(2, 1)}),
    "boft": ("boft", {"oft_blocks": numbers(2, 2, 2, 2), "rescale": 1 + numbers(4, 1).abs()}),
    "peft boft": ("boft", {"boft_R": numbers(1, 2, 2, 2), "boft_s": 1 + numbers(4, 1).abs()}),
    "full": ("full", {"diff": numbers(4, 4), "diff_b": numbers(4)}),
    "set": ("full", {"set_weight": numbers(4, 4), "set_bias": numbers(4)}),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def made(kind: str) -> Delta:
    return delta_of(*KINDS[kind])


@each_kind
def test_strength_0_is_exactly_nothing_and_others_are_not(kind: str) -> None:
    """Also for DoRA and rescaled rotations, whose references still change something at multiplier 0."""
    delta, w0 = made(kind), numbers(4, 4, seed=5, dtype=torch.bfloat16)
    nothing, something = delta.change(w0, 0.0), delta.change(w0, -0.7)
    assert nothing.dtype == something.dtype == torch.float32
    assert nothing.shape == something.shape == w0.shape
    assert not bool(nothing.any())
    assert bool(something.any())
    assert delta.bias(0.0, numbers(4)) is None
    total = w0.float()
    delta.add_to(total, w0, 0.0)
    assert torch.equal(total, w0.float())


@each_kind
def test_the_weight_that_is_asked_about_stays_as_it_is(kind: str) -> None:
    """A change that worked in place would destroy the pristine copy."""
    w0 = numbers(4, 4, seed=5)
    before = w0.clone()
    delta = made(kind)
    held = [tensor.clone() for tensor in delta.tensors]
    for strength in (1.0, -0.5):
        delta.change(w0, strength)
        delta.add_to(w0.clone(), w0, strength)
        delta.bias(strength, numbers(4))
    assert torch.equal(w0, before)
    assert all(torch.equal(now, then) for now, then in zip(delta.tensors, held, strict=True))


@each_kind
def test_adding_to_a_sum_is_adding_the_change(kind: str) -> None:
    delta, w0, total = made(kind), numbers(4, 4, seed=5), numbers(4, 4, seed=6)
    expected = total + delta.change(w0, 0.8)
    delta.add_to(total, w0, 0.8)
    assert torch.allclose(total, expected, atol=1e-5)


@each_kind
def test_arithmetic_is_where_the_weight_is(kind: str) -> None:
    """A part that stayed behind on the CPU could not be joined with a weight that has no numbers at all."""
    w0, b0 = torch.empty(4, 4, device="meta", dtype=torch.float16), torch.empty(4, device="meta")
    delta, total = made(kind), torch.empty(4, 4, device="meta")
    delta.add_to(total, w0, 0.5)
    bias = delta.bias(0.5, b0)
    assert delta.change(w0, 0.5).device.type == "meta"
    assert delta.change(w0, 0.0).device.type == "meta"
    assert bias is None or bias.device.type == "meta"


@each_kind
def test_memory_is_that_of_the_tensors_in_the_file(kind: str) -> None:
    tensors = KINDS[kind][1]
    counted = [tensor for part, tensor in tensors.items() if part not in ("alpha", "on_input")]
    assert made(kind).bytes == sum(tensor.numel() * tensor.element_size() for tensor in counted)


@each_kind
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_nan_in_any_part_is_refused_or_told(kind: str, poison: float) -> None:
    algorithm, tensors = KINDS[kind]
    for part, tensor in tensors.items():
        if part == "on_input":
            continue
        bad = tensor.clone()
        bad.view(-1)[-1] = poison
        patch, read = patch_of(algorithm, {**tensors, part: bad})
        with pytest.raises(BrokenPatch, match=f"“{NAME}” h"):
            read_delta(patch, read)
        if part != "alpha":
            assert not read_delta(patch, read, check_numbers=False).finite()
    assert made(kind).finite()


@each_kind
def test_every_part_that_is_missing_is_missed(kind: str) -> None:
    """Except those that may be: the scales, the lengths, the factors of outputs, one of weight and bias."""
    algorithm, tensors = KINDS[kind]
    may = {"alpha", "dora_scale", "rescale", "lora_mid", "diff", "diff_b", "set_weight", "set_bias"}
    for part in tensors.keys() - may:
        patch, read = patch_of(algorithm, {name: tensor for name, tensor in tensors.items() if name != part})
        with pytest.raises(BrokenPatch, match="is missing"):
            read_delta(patch, read)


def test_broken_patches_are_told_where_broken_files_are() -> None:
    """The sentence fits after “The LoRA “x” cannot be used: ”, as that of a broken file does."""
    with pytest.raises(BrokenFile) as caught:
        delta_of("lora", {"lora_up": numbers(4, 2)})
    assert isinstance(caught.value, UserError)
    assert caught.value.message == f"its module “{NAME}” is incomplete: lora_down is missing"


@pytest.mark.parametrize(
    ("algorithm", "tensors", "words"),
    [
        ("lora", {"lora_up": numbers(4, 2), "lora_down": numbers(3, 4)}, "different rank: 4×2 and 3×4"),
        ("lora", {"lora_up": numbers(4, 2, 3, 3), "lora_down": numbers(2, 4)}, "different rank"),
        ("lora", {"lora_up": numbers(4), "lora_down": numbers(2, 4)}, "no matrix"),
        ("lora", {"lora_up": numbers(4, 0), "lora_down": numbers(0, 4)}, "no matrix"),
        ("lora", {**LORA, "alpha": numbers(2)}, "alpha that is not one number"),
        ("locon", {**LORA, "lora_mid": numbers(2, 3, 3, 3)}, "core that does not fit"),
        ("lora", {**LORA, "hada_w1_a": numbers(4, 2)}, "does not belong to lora: hada_w1_a"),
        ("loha", {**LOHA, "hada_t1": numbers(2, 2, 3, 3)}, "hada_t2 is missing"),
        ("loha", {**LOHA, "hada_w2_a": numbers(5, 2)}, "different shape"),
        ("loha", {**LOHA, "hada_w2_a": numbers(4, 3)}, "different rank"),
        ("loha", {**LOHA, "hada_t1": numbers(3, 2, 3, 3), "hada_t2": numbers(3, 2, 3, 3)}, "core that does not fit"),
        ("lokr", {"lokr_w1": numbers(2, 2)}, "lokr_w2 is missing"),
        ("lokr", {"lokr_w1": numbers(2, 2), "lokr_w2": numbers(2, 2), "lokr_w2_a": numbers(2, 1)}, "does not belong"),
        ("full", {"alpha": scalar(1)}, "is empty"),
        ("embedding", {"emb": numbers(4, 4)}, "of the kind embedding"),
        ("lora", {**LORA, "lora_up": torch.ones(4, 2, dtype=torch.int8)}, "no arithmetic: I8"),
    ],
)
def test_parts_that_contradict_each_other_are_told(algorithm: str, tensors: dict[str, Tensor], words: str) -> None:
    with pytest.raises(BrokenPatch, match=words):
        delta_of(algorithm, tensors)


@each_kind
def test_zero_is_known_as_zero(kind: str) -> None:
    """What is new values or lengths may change a layer whatever they are."""
    algorithm, tensors = KINDS[kind]
    neutral = {"ia3_l": 1.0, "rescale": 1.0, "boft_s": 1.0}
    zeros = {
        part: tensor if part in ("alpha", "on_input") else torch.full_like(tensor, neutral.get(part, 0.0))
        for part, tensor in tensors.items()
    }
    assert not made(kind).is_zero()
    assert delta_of(algorithm, zeros).is_zero() == (kind not in ("dora", "set"))


def test_half_of_a_product_that_is_zero_makes_it_zero() -> None:
    """Trainers begin so: up is zero, down is not."""
    assert delta_of("lora", {**LORA, "lora_up": torch.zeros(4, 2)}).is_zero()
    assert delta_of("loha", {**LOHA, "hada_w2_a": torch.zeros(4, 2)}).is_zero()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float16])
def test_questions_about_numbers_are_answered_in_every_precision(dtype: torch.dtype) -> None:
    tensors = {part: tensor.to(dtype) for part, tensor in LORA.items()}
    delta = delta_of("lora", tensors)
    assert delta.finite()
    assert not delta.is_zero()
    assert delta_of("lora", {**tensors, "lora_up": torch.zeros(4, 2).to(dtype)}).is_zero()


def test_large_numbers_whose_sum_overflows_are_no_damage() -> None:
    huge = torch.full((4, 4), 3e38)
    assert delta_of("full", {"diff": huge}).finite()


@each_kind
def test_what_the_normaliser_lets_through_can_be_read(kind: str) -> None:
    """Both rooms agree on the parts of every algorithm and on what fits a layer of 4×4."""
    algorithm, tensors = KINDS[kind]
    shapes = {part: tuple(tensor.shape) for part, tensor in tensors.items()}
    assert all(normal_parts.allowed(algorithm, part) for part in tensors)
    assert normal_parts.fits(algorithm, shapes, (4, 4))
    assert made(kind).change(numbers(4, 4), 1.0).shape == (4, 4)
