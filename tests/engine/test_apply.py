"""What is merged is W0 + Σ m·(alpha/rank)·up·down and nothing else; what is taken out leaves no trace."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from loravault.engine.adapters import load_adapter
from loravault.engine.apply import Patcher, Strength
from loravault.engine.bases import Base, load_base
from loravault.engine.devices import choose_device
from loravault.errors import UserError
from loravault.formats.generation import BaseRef
from loravault.formats.normal import Place
from tests.tiny import PARTS, Part, make_adapter, use_of

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def base(tiny: BaseRef) -> Base:
    return load_base(tiny, choose_device("cpu"))


def digest(base: Base) -> str:
    """One hash over every parameter and buffer of UNet and text encoder, bit by bit."""
    sha = hashlib.sha256()
    for model in (base.pipe.unet, base.pipe.text_encoder):
        for name, tensor in sorted(model.state_dict().items()):
            sha.update(name.encode())
            sha.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def weights(base: Base) -> dict[str, torch.Tensor]:
    """kohya name → present weight, for the modules of `PARTS`."""
    prefixes = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}
    named = {prefixes[of] + path.replace(".", "_"): module for (of, path), module in base.modules.items()}
    return {name: named[name].weight.detach().clone() for name in PARTS}


def formula(part: Part, name: str, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """ΔW at strength 1, in fp64, from kohya's definition; written without the code under test."""
    up, down = tensors[f"{name}.lora_up.weight"].double(), tensors[f"{name}.lora_down.weight"].double()
    alpha = part.rank if part.alpha is None else float(tensors[f"{name}.alpha"])
    if part.mid:
        product = torch.zeros(part.shape, dtype=torch.float64)
        mid = tensors[f"{name}.lora_mid.weight"].double()
        for m, n in itertools.product(range(part.rank), range(part.rank)):
            outer = up[:, m, 0, 0, None] * down[None, n, :, 0, 0]
            product += outer[:, :, None, None] * mid[m, n]
    elif len(part.shape) == 4:
        product = torch.zeros(part.shape, dtype=torch.float64)
        for r in range(part.rank):
            product += up[:, r, 0, 0, None, None, None] * down[None, r]
    else:
        product = up @ down
    return product * alpha / part.rank


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest deviation, relative to the largest wanted value."""
    return float((found.double() - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("strength", [1.0, 0.35, -0.8, 2.5])
def test_each_kind_of_module_gets_exactly_the_formula(
    base: Base, tmp_path: Path, dtype: torch.dtype, strength: float
) -> None:
    """Linear, 1×1 and 3×3 convolution, Tucker, text encoder; alphas and ranks that differ, one alpha missing."""
    tensors = make_adapter(tmp_path / "ink.safetensors", dtype=dtype)
    patcher = Patcher(base.modules)
    before = weights(base)
    adapter = load_adapter(use_of(tmp_path / "ink.safetensors"), base)
    patcher.apply([Strength(adapter, te=strength, unet=strength)])
    after = weights(base)
    patcher.restore()
    for name, part in PARTS.items():
        wanted = before[name].double() + strength * formula(part, name, tensors)
        assert error(after[name], wanted) < 1e-5, name


def test_a_convolution_with_the_merged_weight_is_the_two_convolutions_of_the_adapter(
    base: Base, tmp_path: Path
) -> None:
    """The order of axes, checked on an image and not by another reshape."""
    name, key = "lora_unet_down_blocks_0_resnets_0_conv1", ("unet", "down_blocks.0.resnets.0.conv1")
    tensors = make_adapter(tmp_path / "ink.safetensors", {name: Part((32, 32, 3, 3), rank=4, alpha=2.0)})
    down, up = tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"]
    image = torch.randn(1, 32, 9, 9, generator=torch.Generator().manual_seed(1))
    layer, patcher = base.modules[key], Patcher(base.modules)
    with torch.no_grad():
        before = layer(image)
        patcher.apply([Strength(load_adapter(use_of(tmp_path / "ink.safetensors"), base), te=1.0, unet=1.0)])
        wanted = before + torch.conv2d(torch.conv2d(image, down, padding=1), up) * 0.5
        assert error(layer(image), wanted.double()) < 1e-5
    patcher.restore()


def test_text_encoder_and_unet_have_strengths_of_their_own(base: Base, tmp_path: Path) -> None:
    make_adapter(tmp_path / "ink.safetensors")
    adapter = load_adapter(use_of(tmp_path / "ink.safetensors"), base)
    patcher = Patcher(base.modules)
    before = weights(base)
    patcher.apply([Strength(adapter, te=0.0, unet=1.0)])
    changed = {name for name, weight in weights(base).items() if not torch.equal(weight, before[name])}
    assert changed == {name for name in PARTS if name.startswith("lora_unet")}
    patcher.apply([Strength(adapter, te=1.0, unet=0.0)])
    changed = {name for name, weight in weights(base).items() if not torch.equal(weight, before[name])}
    assert changed == {name for name in PARTS if name.startswith("lora_te")}
    patcher.restore()


def test_several_adapters_add_up_and_their_order_does_not_matter(base: Base, tmp_path: Path) -> None:
    """Bit by bit: two notes that name the same adapters in another order get the same picture."""
    strengths, deltas = [], {name: torch.zeros(part.shape, dtype=torch.float64) for name, part in PARTS.items()}
    for number, strength in enumerate((0.9, -0.4, 0.33)):
        path = tmp_path / f"a{number}.safetensors"
        tensors = make_adapter(path, seed=number)
        strengths.append(Strength(load_adapter(use_of(path), base), te=strength, unet=strength))
        for name, part in PARTS.items():
            deltas[name] += strength * formula(part, name, tensors)
    patcher = Patcher(base.modules)
    before = weights(base)
    digests = set()
    for order in itertools.permutations(strengths):
        patcher.apply(order)
        digests.add(digest(base))
        after = weights(base)
        patcher.restore()
    assert len(digests) == 1
    for name in PARTS:
        assert error(after[name], before[name].double() + deltas[name]) < 1e-5


def test_the_same_adapter_twice_is_the_sum_of_its_strengths(base: Base, tmp_path: Path) -> None:
    make_adapter(tmp_path / "ink.safetensors")
    adapter = load_adapter(use_of(tmp_path / "ink.safetensors"), base)
    patcher = Patcher(base.modules)
    patcher.apply([Strength(adapter, te=0.5, unet=0.25), Strength(adapter, te=0.25, unet=0.5)])
    twice = digest(base)
    patcher.apply([Strength(adapter, te=0.75, unet=0.75)])
    assert digest(base) == twice
    pristine_state = patcher.apply([Strength(adapter, te=1.0, unet=1.0), Strength(adapter, te=-1.0, unet=-1.0)])
    assert pristine_state == ((), ())
    patcher.restore()


def test_the_base_is_bit_identical_after_many_switches(base: Base, tmp_path: Path) -> None:
    """Never subtracted: 60 switches between 4 adapters of different shapes and strengths leave no rounding behind."""
    pristine = digest(base)
    identities = {key: module.weight.data_ptr() for key, module in base.modules.items()}
    adapters = []
    for number in range(4):
        parts = dict(list(PARTS.items())[number:])
        make_adapter(tmp_path / f"{number}.safetensors", parts, seed=number, size=10.0)
        adapters.append(load_adapter(use_of(tmp_path / f"{number}.safetensors"), base))
    patcher = Patcher(base.modules)
    seen = set()
    for turn in range(60):
        chosen = [Strength(adapters[i], te=0.1 * turn, unet=1 - 0.1 * turn) for i in range(4) if turn >> i & 1]
        patcher.apply(chosen)
        seen.add(digest(base))
    assert len(seen) > 30
    patcher.apply([])
    assert digest(base) == pristine
    assert {key: module.weight.data_ptr() for key, module in base.modules.items()} == identities


def test_a_failure_in_the_middle_leaves_the_base_pristine(base: Base, tmp_path: Path) -> None:
    """Transactional: half an adapter would be a picture nobody asked for."""
    make_adapter(tmp_path / "ink.safetensors")
    adapter = load_adapter(use_of(tmp_path / "ink.safetensors"), base)
    *good, last = adapter.changes
    bad = replace(adapter, changes=(*good, replace(last, places=(Place("unet", "conv_in"),))))
    pristine = digest(base)
    patcher = Patcher(base.modules)
    with pytest.raises(UserError, match=r"“ink” cannot be used: its module .* is made for"):
        patcher.apply([Strength(bad, te=1.0, unet=1.0)])
    assert digest(base) == pristine
    patcher.apply([Strength(adapter, te=1.0, unet=1.0)])
    assert digest(base) != pristine
    patcher.restore()


def test_the_same_adapters_again_touch_nothing(base: Base, tmp_path: Path) -> None:
    """Jobs that share their adapters pay for merging once."""
    make_adapter(tmp_path / "ink.safetensors")
    adapter = load_adapter(use_of(tmp_path / "ink.safetensors"), base)
    patcher = Patcher(base.modules)
    patcher.apply([Strength(adapter, te=1.0, unet=1.0)])
    places = {key: module.weight.data_ptr() for key, module in base.modules.items()}
    patcher.apply([Strength(adapter, te=1.0, unet=1.0)])
    assert {key: module.weight.data_ptr() for key, module in base.modules.items()} == places
    patcher.restore()
