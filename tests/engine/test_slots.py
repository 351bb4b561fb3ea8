"""Adapters beside the weights: the same output as merged, nothing of the base written, nothing left behind."""

from __future__ import annotations

import gc
import random
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from loravault.engine.adapters import load_adapter
from loravault.engine.apply import Patcher, Strength
from loravault.engine.bases import Base, load_base
from loravault.engine.devices import choose_device
from loravault.engine.slots import MOST, Slots
from loravault.errors import UserError
from loravault.formats.normal import LayerKey, Place
from tests.engine.slotted import (
    all_outputs,
    file_for,
    held,
    numbers,
    off,
    same,
    slots_of,
)
from tests.tiny import PARTS, Part, make_adapter, use_of
from tests.tiny_families import make_family

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]

LIMIT = 1e-5

BLOCK = "transformer_blocks.0"


@pytest.fixture(scope="module", params=["sd15", "sdxl", "flux", "z-image"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(make_family(tmp_path_factory.mktemp(request.param) / "base", request.param), choose_device("cpu"))


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """Its files keep layers in one that the base has apart."""
    return load_base(make_family(tmp_path_factory.mktemp("flux") / "flux", "flux"), choose_device("cpu"))


def test_every_layer_says_what_it_says_when_adapters_are_merged(base: Base, tmp_path: Path) -> None:
    """Two adapters that overlap, at strengths of all signs, for each kind of layer that four families have."""
    a, b = (file_for(base, tmp_path / f"{n}.safetensors", seed=n, every=n + 1, rank=3 + n) for n in range(2))
    patcher, slots, before = Patcher(base.modules), slots_of(base), held(base)
    plain = all_outputs(base)
    for strengths in (
        [Strength(a, 1.0, 0.8)],
        [Strength(a, 1.0, 0.8), Strength(b, 1.0, -0.5)],
        [Strength(b, 0.0, 1.3), Strength(a, 1.0, 0.1), Strength(a, 1.0, 0.4)],
    ):
        patcher.apply(strengths)
        wanted = all_outputs(base)
        patcher.restore()
        slots.apply([strengths])
        found = all_outputs(base)
        assert same(held(base), before), "no weight is written"
        slots.clear()
        assert max(off(found[name], wanted[name]) for name in wanted) <= LIMIT
        assert sum(off(found[name], plain[name]) > 0.01 for name in wanted) > len(wanted) / 2, "it does something"
    assert same(list(all_outputs(base).values()), list(plain.values()))


def test_each_picture_of_a_batch_has_its_own_adapters(base: Base, tmp_path: Path) -> None:
    """Also twice one after the other, as guidance has it; also none; whatever the ranks beside it."""
    a, b = (file_for(base, tmp_path / f"{n}.safetensors", seed=n, every=n + 1, rank=2 + 3 * n) for n in range(2))
    pictures = [[Strength(a, 1.0, 0.8)], [], [Strength(a, 1.0, -0.3), Strength(b, 1.0, 1.0)]]
    slots = slots_of(base)
    single = []
    for one in pictures:
        slots.apply([one])
        single.append(all_outputs(base, 6))
    slots.apply(pictures)
    found = all_outputs(base, 6)
    slots.clear()
    for name, output in found.items():
        wanted = torch.stack([single[row % 3][name][row] for row in range(6)])
        assert off(output, wanted) <= LIMIT, name


def test_a_layer_without_adapters_is_called_as_it_always_was(tiny_base: Base, tmp_path: Path) -> None:
    """No wrapper stays: neither after another adapter, nor after none."""
    a = file_for(tiny_base, tmp_path / "a.safetensors", seed=0, every=2)
    b = file_for(tiny_base, tmp_path / "b.safetensors", seed=1, every=2)
    slots = slots_of(tiny_base)

    def wrapped() -> set[LayerKey]:
        return {key for key, one in tiny_base.modules.items() if "forward" in one.__dict__}

    kinds = {key: type(one) for key, one in tiny_base.modules.items()}
    slots.apply([[Strength(a, 1.0, 1.0)]])
    first = wrapped()
    slots.apply([[Strength(b, 1.0, 1.0)]])
    assert first
    assert wrapped()
    assert not first & wrapped()
    slots.apply([[Strength(b, 1.0, 0.0)]])
    assert not wrapped()
    slots.apply([[Strength(b, 1.0, 1.0)]])
    slots.apply([[]])
    assert not wrapped()
    assert {key: type(one) for key, one in tiny_base.modules.items()} == kinds
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in tiny_base.modules.values())


def test_a_thousand_switches_leave_the_very_same_base(flux: Base, tmp_path: Path) -> None:
    """Bit by bit, at the same places, with room that stops growing."""
    adapters = [
        file_for(flux, tmp_path / f"{n}.safetensors", seed=n, every=1 + n % 3, rank=1 + 2 * n) for n in range(4)
    ]
    slots, chance = slots_of(flux), random.Random(7)
    before, plain = held(flux), all_outputs(flux)
    places = {key: module.weight.data_ptr() for key, module in flux.modules.items()}  # type: ignore[operator]
    sizes = []
    for turn in range(1000):
        pictures = [
            [Strength(one, 1.0, chance.choice((1.0, -0.5))) for one in chance.sample(adapters, chance.randint(0, 3))]
            for _ in range(chance.choice((1, 1, 3)))
        ]
        slots.apply(pictures)
        if turn in (500, 999):
            sizes.append(slots.bytes)
    assert sizes[0] == sizes[1] > 0
    slots.clear()
    assert same(held(flux), before)
    assert {key: module.weight.data_ptr() for key, module in flux.modules.items()} == places  # type: ignore[operator]
    assert same(list(all_outputs(flux).values()), list(plain.values()))
    slots.forget()
    assert slots.bytes == 0


def test_what_was_in_a_slot_before_does_not_show(flux: Base, tmp_path: Path) -> None:
    """A small stack after a large one, one picture after many: bit by bit as in fresh slots."""
    small = file_for(flux, tmp_path / "small.safetensors", seed=0, rank=2)
    large = file_for(flux, tmp_path / "large.safetensors", seed=1, rank=20)
    used = slots_of(flux)
    for before in ([[Strength(large, 1.0, 9.0)]], [[Strength(large, 1.0, 9.0)], [Strength(small, 1.0, 1.0)], []]):
        for wanted in ([[Strength(small, 1.0, 0.7)]], [[Strength(small, 1.0, 0.7)], []]):
            used.apply(before)
            used.apply(wanted)
            found = all_outputs(flux)
            used.clear()
            fresh = slots_of(flux)
            fresh.apply(wanted)
            expected = all_outputs(flux)
            fresh.clear()
            assert same(list(found.values()), list(expected.values()))


def test_fused_layers_swapped_halves_and_blocks_are_as_merged(flux: Base, tmp_path: Path) -> None:
    """One change of the file goes to rows of several layers, or to two places of one."""
    fused, swapped = "lora_unet_double_blocks_0_img_attn_qkv", "lora_unet_final_layer_adaLN_modulation_1"

    def lora(name: str, out: int, into: int, seed: int) -> dict[str, Tensor]:
        return {
            f"{name}.lora_down.weight": numbers(2, into, seed=seed),
            f"{name}.lora_up.weight": numbers(out, 2, seed=seed + 1),
        }

    save_file(lora(fused, 96, 32, 1) | lora(swapped, 64, 32, 3), tmp_path / "fused.safetensors")
    save_file(lora(f"transformer.{BLOCK}.attn.to_q", 32, 32, 5), tmp_path / "apart.safetensors")
    one, other = (load_adapter(use_of(tmp_path / f"{n}.safetensors"), flux) for n in ("fused", "apart"))
    assert {len(change.places) for change in one.changes} == {2, 3}
    patcher, slots = Patcher(flux.modules), slots_of(flux)
    for strengths in (
        [Strength(one, 1.0, 0.8), Strength(other, 1.0, 0.5)],
        [
            Strength(one, 1.0, 0.8, (("D00", 0.25),)),
            Strength(one, 1.0, 0.5),
            Strength(other, 1.0, 1.0, (("D00", 0.0),)),
        ],
    ):
        patcher.apply(strengths)
        wanted = all_outputs(flux)
        patcher.restore()
        slots.apply([strengths])
        found = all_outputs(flux)
        slots.clear()
        assert max(off(found[name], wanted[name]) for name in wanted) <= LIMIT


@pytest.mark.parametrize(
    ("tensors", "taken"),
    [
        ({"lora_down.weight": (2, 32), "lora_up.weight": (32, 2)}, True),
        ({"hada_w1_a": (32, 2), "hada_w1_b": (2, 32), "hada_w2_a": (32, 3), "hada_w2_b": (3, 32)}, True),
        ({"hada_w1_a": (32, 20), "hada_w1_b": (20, 32), "hada_w2_a": (32, 20), "hada_w2_b": (20, 32)}, False),
        ({"lokr_w1": (4, 4), "lokr_w2_a": (8, 2), "lokr_w2_b": (2, 8)}, True),
        ({"lokr_w1_a": (4, 1), "lokr_w1_b": (1, 4), "lokr_w2": (8, 8)}, True),
        ({"lokr_w1": (2, 4), "lokr_w2": (16, 8)}, True),
        ({"diff": (32, 32)}, False),
        ({"diff_b": (32,)}, False),
        ({"lora_down.weight": (2, 32), "lora_up.weight": (32, 2), "dora_scale": (32, 1)}, False),
        ({"oft_blocks": (2, 16, 16)}, False),
    ],
)
def test_what_is_a_product_goes_into_slots_and_the_rest_is_merged(
    tiny_base: Base, tmp_path: Path, tensors: dict[str, tuple[int, ...]], taken: bool
) -> None:
    """Together they are what is merged alone; a slot beside a merged weight, too."""
    module = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    name, file = f"lora_unet_{module.replace('.', '_')}", tmp_path / "kind.safetensors"
    save_file({f"{name}.{part}": numbers(*shape, seed=n) for n, (part, shape) in enumerate(tensors.items())}, file)
    kind = load_adapter(use_of(file), tiny_base)
    beside = file_for(tiny_base, tmp_path / "beside.safetensors", seed=0)
    patcher, slots = Patcher(tiny_base.modules), slots_of(tiny_base)
    assert [slots.takes(change) for change in kind.changes] == [taken]
    strengths = [Strength(kind, 1.0, 0.8), Strength(beside, 1.0, 0.5)]
    weight = tiny_base.modules["unet", module].weight.detach().clone()  # type: ignore[operator,union-attr]
    state = patcher.apply(strengths)
    wanted = all_outputs(tiny_base)
    layer = tiny_base.modules["unet", module]
    assert patcher.apply(strengths, slots.takes) == state, "the same is in effect, so prompts need not be read again"
    slots.apply([strengths])
    found = all_outputs(tiny_base)
    assert not taken or torch.equal(layer.weight, weight), "it is not merged, too"  # type: ignore[arg-type]
    slots.clear()
    patcher.restore()
    assert max(off(found[name], wanted[name]) for name in wanted) <= LIMIT
    assert off(found[module], all_outputs(tiny_base)[module]) > 0.01


def test_text_encoders_are_left_to_merging(tiny_base: Base, tmp_path: Path) -> None:
    make_adapter(tmp_path / "ink.safetensors")
    adapter = load_adapter(use_of(tmp_path / "ink.safetensors"), tiny_base)
    slots = slots_of(tiny_base)
    kinds = {change.layers[0][0]: slots.takes(change) for change in adapter.changes}
    assert kinds == {"unet": True, "text_encoder": False}
    slots.apply([[Strength(adapter, 1.0, 1.0)]])
    assert {key[0] for key, one in tiny_base.modules.items() if "forward" in one.__dict__} == {"unet"}
    slots.clear()


def test_a_stack_that_is_too_high_is_told_before_it_is_tried(tiny_base: Base, tmp_path: Path) -> None:
    part = {"lora_unet_mid_block_attentions_0_proj_in": Part((64, 64, 1, 1), rank=MOST // 2)}
    adapters = []
    for number in range(3):
        make_adapter(tmp_path / f"{number}.safetensors", part, seed=number)
        adapters.append(load_adapter(use_of(tmp_path / f"{number}.safetensors"), tiny_base))
    slots = slots_of(tiny_base)
    assert slots.fits([Strength(one, 1.0, 1.0) for one in adapters[:2]])
    assert not slots.fits([Strength(one, 1.0, 1.0) for one in adapters])


def test_a_failure_leaves_no_adapter_in_effect(tiny_base: Base, tmp_path: Path) -> None:
    make_adapter(tmp_path / "ink.safetensors")
    adapter = load_adapter(use_of(tmp_path / "ink.safetensors"), tiny_base)
    first, *rest = adapter.changes
    bad = replace(adapter, changes=(*rest, replace(first, places=(Place("unet", "conv_in"),))))
    plain, slots = all_outputs(tiny_base), slots_of(tiny_base)
    slots.apply([[Strength(adapter, 1.0, 1.0)]])
    with pytest.raises(UserError, match=r"“ink” cannot be used: its module .* is made for"):
        slots.apply([[Strength(bad, 1.0, 1.0)]])
    assert same(list(all_outputs(tiny_base).values()), list(plain.values()))


def test_half_precision_is_rounded_once(tiny_base: Base, tmp_path: Path) -> None:
    """A strength that is multiplied in half precision would be rounded again."""
    adapters = []
    for number in range(2):
        make_adapter(tmp_path / f"{number}.safetensors", PARTS, dtype=torch.float16, seed=number)
        adapters.append(load_adapter(use_of(tmp_path / f"{number}.safetensors"), tiny_base))
    key = ("unet", "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0")
    slots = Slots({key: torch.nn.Linear(64, 64, dtype=torch.bfloat16)}, "unet", in_a_row=())
    changes = [next(one for one in adapter.changes if one.layers == (key,)) for adapter in adapters]
    one, other = (
        Strength(replace(adapter, changes=(change,)), 1.0, 0.3)
        for adapter, change in zip(adapters, changes, strict=True)
    )
    slots.apply([[one, other]])
    wanted = []
    for change in changes:
        assert change.delta.factors is not None
        wanted.append((change.delta.factors[0] * 0.3).to(torch.bfloat16))
    found = slots._slots[key].active.up.t().split([part.shape[1] for part in wanted], 1)
    by_file = sorted(zip((one.adapter.key, other.adapter.key), wanted, strict=True), key=lambda pair: pair[0])
    assert all(torch.equal(part, expected) for part, (_, expected) in zip(found, by_file, strict=True))
    slots.clear()


def test_adapters_that_nobody_keeps_are_not_kept_here(tiny_base: Base, tmp_path: Path) -> None:
    """What stands where is remembered; the numbers are the shelf's."""
    slots = slots_of(tiny_base)
    kept = weakref.ref(adapter := file_for(tiny_base, tmp_path / "a.safetensors", seed=0))
    tensor = weakref.ref(adapter.changes[0].delta.tensors[0])
    slots.apply([[Strength(adapter, 1.0, 1.0)]])
    del adapter
    slots.apply([[]])
    gc.collect()
    assert kept() is None
    assert tensor() is None
