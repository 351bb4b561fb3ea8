"""Who applies adapters: the same pictures whichever way is taken, and the way that costs less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from loravault.engine.adapters import Adapter, load_adapter
from loravault.engine.appliers import Applier
from loravault.engine.bases import Base, load_base
from loravault.engine.devices import choose_device
from loravault.engine.modes import Calls, Mode, Pace
from loravault.engine.strengths import Strength
from loravault.errors import UserError
from loravault.formats.generation import BaseRef
from tests.engine.slotted import all_outputs, file_for, held, numbers, off, same
from tests.tiny import PARTS, Part, make_adapter, use_of

pytestmark = pytest.mark.engine

FEW, MANY = Calls(4, 64 * 64, 1), Calls(4000, 64 * 64, 1)
#: Merging is dear and slots are slow, so that both are chosen sometimes.
PACE = Pace(forming=1e5, copying=1e9, megapixel=20.0)


@pytest.fixture
def base(tiny: BaseRef) -> Base:
    return load_base(tiny, choose_device("cpu"))


def applier(base: Base, wish: str = "auto", pace: Pace = PACE, **more: Any) -> Applier:
    one = Applier(base, choose_device("cpu"), wish=wish, **more)
    one._pace = pace
    return one


def mixed_file(base: Base, path: Path) -> Adapter:
    """Text encoder, a norm, and layers for slots."""
    make_adapter(path, PARTS, extra={"lora_unet_conv_norm_out.w_norm": numbers(32, seed=1)})
    return load_adapter(use_of(path), base)


def words(base: Base) -> list[Tensor]:
    return [one.detach().clone() for one in base.pipe.text_encoder.state_dict().values()]


def test_few_steps_go_into_slots_and_many_are_merged_with_the_same_output(base: Base, tmp_path: Path) -> None:
    """Also of an adapter that slots can take only in part; and back to none, bit by bit."""
    adapter, plain, weights, text = (
        mixed_file(base, tmp_path / "ink.safetensors"),
        all_outputs(base),
        held(base),
        words(base),
    )
    stack, found = [Strength(adapter, 0.7, 0.8)], {}
    for wish in ("merge", "slots", "auto"):
        one = applier(base, wish)
        for calls in (FEW, MANY, FEW):
            one.for_text(stack)
            one.for_pictures([stack], calls)
            found[wish, calls.steps, one.mode] = (all_outputs(base), words(base))
        one.for_text([])
        one.for_pictures([[]], FEW)
        assert same(held(base), weights)
        assert same(words(base), text)
        assert same(list(all_outputs(base).values()), list(plain.values()))
        one.forget()
    assert set(found) == {
        ("merge", 4, Mode.MERGE), ("merge", 4000, Mode.MERGE), ("slots", 4, Mode.SLOTS), ("slots", 4000, Mode.SLOTS),
        ("auto", 4, Mode.SLOTS), ("auto", 4000, Mode.MERGE), ("auto", 4, Mode.MERGE),
    }, "what is merged stays merged"  # fmt: skip
    wanted, in_text = found["merge", 4, Mode.MERGE]
    for outputs, read in found.values():
        assert same(read, in_text)
        assert max(off(outputs[name], wanted[name]) for name in wanted) <= 1e-5


def test_a_combination_asked_for_again_and_again_is_merged_in_the_end(base: Base, tmp_path: Path) -> None:
    stack = [Strength(file_for(base, tmp_path / "a.safetensors", seed=0), 1.0, 1.0)]
    one = applier(base)
    ways = []
    for _ in range(200):
        one.for_pictures([stack], FEW)
        ways.append(one.mode)
        one.drawn(FEW, 5.0, [stack])
    assert ways[0] is Mode.SLOTS
    assert ways[-1] is Mode.MERGE
    assert ways == sorted(ways, reverse=True), "once"
    one.forget()


def test_what_was_measured_changes_the_choice(base: Base, tmp_path: Path) -> None:
    """Merging turns out to be quick."""
    stacks = [[Strength(file_for(base, tmp_path / f"{n}.safetensors", seed=n), 1.0, 1.0)] for n in range(2)]
    one = applier(base)
    one.for_pictures([stacks[0]], FEW)
    assert one.mode is Mode.SLOTS
    for turn in range(30):
        one.for_pictures([stacks[turn % 2]], MANY)
        assert one.mode is Mode.MERGE
    assert one.pace.forming > PACE.forming
    one.for_pictures([stacks[0]], FEW)
    assert one.mode is Mode.MERGE
    one.forget()


def test_pictures_with_different_adapters_are_mixed_only_where_they_can_be(base: Base, tmp_path: Path) -> None:
    a = [Strength(file_for(base, tmp_path / "a.safetensors", seed=0), 1.0, 1.0)]
    norm = [Strength(mixed_file(base, tmp_path / "norm.safetensors"), 1.0, 1.0)]
    one = applier(base)
    assert one.mixable([a, []])
    assert not one.mixable([a, norm])
    assert not applier(base, "merge").mixable([a, []])
    assert not applier(base, beside=False).mixable([a, []])
    one.for_pictures([a, []], FEW)
    assert one.mode is Mode.MIXED
    with pytest.raises(ValueError, match="cannot be applied apart"):
        one.for_pictures([a, norm], FEW)
    one.for_pictures([norm, norm], FEW)
    assert one.mode is Mode.SLOTS
    one.forget()


def test_after_pictures_apart_one_stack_is_as_if_it_had_been_alone(base: Base, tmp_path: Path) -> None:
    a, b = ([Strength(file_for(base, tmp_path / f"{n}.safetensors", seed=n), 1.0, 1.0)] for n in range(2))
    one, fresh = applier(base, "slots"), applier(base, "slots")
    fresh.for_pictures([a], FEW)
    wanted = all_outputs(base)
    fresh.forget()
    for before in ([a, b], [b, a, []], [b]):
        one.for_pictures(before, FEW)
        one.for_pictures([a], FEW)
        found = all_outputs(base)
        one.for_pictures([[]], FEW)
        assert same(list(found.values()), list(wanted.values()))
    one.forget()


def test_a_wish_that_cannot_be_met_is_told(base: Base, tmp_path: Path) -> None:
    part = {"lora_unet_mid_block_attentions_0_proj_in": Part((64, 64, 1, 1), rank=200)}
    stack = []
    for number in range(2):
        make_adapter(tmp_path / f"{number}.safetensors", part, seed=number)
        stack.append(Strength(load_adapter(use_of(tmp_path / f"{number}.safetensors"), base), 1.0, 1.0))
    one = applier(base, "slots")
    assert one.in_words(stack[:1]) is None
    assert "too high together" in str(one.in_words(stack))
    one.for_pictures([stack], FEW)
    assert one.mode is Mode.MERGE
    one.forget()
    compiled = applier(base, "slots", beside=False)
    assert "compiled" in str(compiled.in_words(stack))
    assert compiled.in_words([]) is None
    assert applier(base).in_words(stack) is None
    with pytest.raises(UserError, match="`adapters` cannot be 'both'"):
        applier(base, "both")


def test_room_for_many_pictures_is_given_back_when_there_are_no_more(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = [Strength(file_for(base, tmp_path / "a.safetensors", seed=0), 1.0, 1.0)]
    one = applier(base, "slots")
    one.for_pictures([a], FEW)
    small = one.bytes
    one.for_pictures([a, [], a, a], FEW)
    assert one.bytes == 4 * small
    one.for_pictures([a, []], FEW)
    assert one.bytes == 4 * small
    monkeypatch.setattr("loravault.engine.appliers.SPARE", small)
    one.for_pictures([a], FEW)
    assert one.bytes == small
    one.forget()


def test_what_could_not_be_measured_is_still_lost(base: Base, tmp_path: Path) -> None:
    """Pictures of one step: their time is only guessed, but slots cost it every time."""
    stack = [Strength(file_for(base, tmp_path / "a.safetensors", seed=0), 1.0, 1.0)]
    one = applier(base, pace=replace(PACE, megapixel=1e3))
    ways = []
    for _ in range(200):
        one.for_pictures([stack], FEW)
        ways.append(one.mode)
        one.drawn(FEW, 0.0, [stack])
    assert (ways[0], ways[-1]) == (Mode.SLOTS, Mode.MERGE)
    one.forget()


class FewBits(torch.nn.Linear):
    """A layer whose weights are kept in eight bits, as quantisers make them."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None)
        self.step = float(layer.weight.detach().abs().max()) / 127
        self.weight = torch.nn.Parameter((layer.weight / self.step).round().to(torch.int8), requires_grad=False)
        self.bias = layer.bias

    def forward(self, value: Tensor) -> Tensor:
        return torch.nn.functional.linear(value, self.weight.float() * self.step, self.bias)


def test_a_base_in_few_bits_takes_what_can_be_applied_beside_it_and_refuses_the_rest(
    base: Base, tmp_path: Path
) -> None:
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"
    whole = base.modules["unet", name]
    assert isinstance(whole, torch.nn.Linear)
    layer = FewBits(whole)
    few = replace(base, modules={**base.modules, ("unet", name): layer})
    save_file(
        {f"unet.{name}.lora_A.weight": numbers(3, 64, seed=1), f"unet.{name}.lora_B.weight": numbers(64, 3, seed=2)},
        tmp_path / "a.safetensors",
    )
    stack = [Strength(load_adapter(use_of(tmp_path / "a.safetensors"), few), 1.0, 0.5)]
    value = numbers(2, 64, seed=3)
    plain, before = layer(value), layer.weight.clone()
    for wish in ("auto", "merge"):
        one = applier(few, wish)
        one.for_pictures([stack], MANY)
        change = stack[0].adapter.changes[0].delta.change(torch.zeros(64, 64), 0.5)
        assert torch.allclose(layer(value), plain + value @ change.t(), atol=1e-5)
        one.forget()
        assert torch.equal(layer(value), plain)
    assert torch.equal(layer.weight, before)
    save_file({f"lora_unet_{name.replace('.', '_')}.diff": numbers(64, 64, seed=1)}, tmp_path / "full.safetensors")
    full = [Strength(load_adapter(use_of(tmp_path / "full.safetensors"), few), 1.0, 0.5)]
    with pytest.raises(UserError, match="kept in few bits: 1 of its modules"):
        applier(few).for_pictures([full], MANY)
    assert torch.equal(layer.weight, before)
