"""Pictures with different adapters in one call, and which can be told apart in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from loravault.engine.adapters import load_adapter
from loravault.engine.apply import Strength
from loravault.engine.bases import Base, load_base
from loravault.engine.devices import choose_device
from loravault.engine.draw import decode, draw_latents
from loravault.engine.families import Encoded
from loravault.engine.prompts import PromptEncoder
from loravault.engine.samplers import make_scheduler
from loravault.engine.slots import Slots
from tests.engine.slotted import (
    file_for,
    layer_inputs,
    linear_layers,
    numbers,
    slots_of,
    spoken,
)
from tests.tiny import PARTS, make_adapter, use_of
from tests.tiny_families import MAKERS, make_family

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]


def test_pictures_that_cannot_be_told_apart_are_an_error_and_not_a_wrong_picture(
    tiny_base: Base, tmp_path: Path
) -> None:
    adapter = file_for(tiny_base, tmp_path / "a.safetensors", seed=0)
    slots = slots_of(tiny_base)
    slots.apply([[Strength(adapter, 1.0, 1.0)], []])
    layer = tiny_base.modules["unet", linear_layers(tiny_base)[0]]
    for batch in (1, 3, 6):
        with pytest.raises(RuntimeError, match="cannot be told apart"):
            spoken(layer, layer_inputs(layer, batch))
    slots.clear()


def pictures_of(base: Base, prompts: tuple[Encoded, Encoded | None], seeds: tuple[int, ...]) -> list[Any]:
    """Pixels after three steps, of one call."""
    device, drawer = choose_device("cpu"), base.drawer
    prompt, negative = (None if one is None else drawer.joined([one] * len(seeds)) for one in prompts)
    assert prompt is not None
    latents = draw_latents(
        base, device, make_scheduler("Euler", base.scheduler_config, flow=drawer.flow), seeds=seeds, size=(64, 64),
        steps=3, cfg=4.0, prompt=prompt, negative=negative, on_step=lambda _step: None,
    )  # fmt: skip
    found = [decode(base, one) for one in torch.split(latents, 1)]
    assert all(one is not None for one in found)
    return [one.astype(int) for one in found if one is not None]


@pytest.mark.filterwarnings("ignore:.*prompt_embeds_mask")
@pytest.mark.parametrize("family", sorted(MAKERS))
def test_pictures_with_different_adapters_in_one_call_are_those_of_single_calls(family: str, tmp_path: Path) -> None:
    """In every family, with the guidance of its own: each orders a batch as its `in_a_row` says."""
    base = load_base(make_family(tmp_path / family, family), choose_device("cpu"))
    drawer, slots = base.drawer, slots_of(base)
    a, b = (file_for(base, tmp_path / f"{n}.safetensors", seed=n, every=n + 1, rank=2 + n) for n in range(2))
    if drawer.in_a_row:
        assert not slots.apart([[Strength(a, 1.0, 0.8)]])
        a, b = (
            replace(one, changes=tuple(c for c in one.changes if not c.layers[0][1].startswith(drawer.in_a_row)))
            for one in (a, b)
        )
    stacks = [[Strength(a, 1.0, 0.8)], [], [Strength(a, 1.0, -0.3), Strength(b, 1.0, 1.0)]]
    assert slots.apart(stacks)
    encoder, guided = PromptEncoder(drawer, base.pipe), drawer.guided(base.pipe, 4.0)
    prompts = encoder.encode("a cat", 1, ()), encoder.encode("no", 1, (), negative=True) if guided else None
    plain = pictures_of(base, prompts, (1, 2, 3))
    slots.apply(stacks)
    together = pictures_of(base, prompts, (1, 2, 3))
    for number, one in enumerate(stacks):
        slots.apply([one])
        (alone,) = pictures_of(base, prompts, (number + 1,))
        assert abs(together[number] - alone).max() <= 1
        assert not one or abs(plain[number] - alone).max() > 3, "adapters that show"
    slots.clear()


def test_a_family_whose_order_nobody_knows_is_not_mixed(tiny_base: Base, tmp_path: Path) -> None:
    """Nor is what slots do not take, in any picture; what changes text encoders only is."""
    adapter = file_for(tiny_base, tmp_path / "a.safetensors", seed=0)
    path = tmp_path / "norm.safetensors"
    save_file({"lora_unet_conv_norm_out.w_norm": numbers(32, seed=1)}, path)
    norm = Strength(load_adapter(use_of(path), tiny_base), 1.0, 1.0)
    words = {name: part for name, part in PARTS.items() if name.startswith("lora_te")}
    make_adapter(tmp_path / "words.safetensors", words)
    text = Strength(load_adapter(use_of(tmp_path / "words.safetensors"), tiny_base), 1.0, 1.0)
    one = Strength(adapter, 1.0, 1.0)
    assert slots_of(tiny_base).apart([[one], [text], []])
    assert not slots_of(tiny_base).apart([[one], [norm]])
    assert slots_of(tiny_base).apart([[one], [replace(norm, unet=0.0)]])
    assert not Slots(tiny_base.modules, "unet").apart([[one], []])
