"""Switching: only what changed is formed anew, and it comes out as if everything had been."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from loravault.engine.adapters import Adapter, load_adapter, names_of
from loravault.engine.apply import Patcher, Strength
from loravault.engine.bases import Base, load_base
from loravault.engine.devices import choose_device
from loravault.formats.generation import BaseRef
from loravault.formats.normal import LayerKey
from tests.tiny import use_of
from tests.tiny_families import make_family

pytestmark = pytest.mark.engine

BLOCK = "transformer_blocks.0"
Q, K, V = (("transformer", f"{BLOCK}.attn.to_{name}") for name in "qkv")
FUSED = "lora_unet_double_blocks_0_img_attn_qkv"
APART = f"transformer.{BLOCK}"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """Of Flux, whose files keep layers in one that the base has apart."""
    return load_base(make_family(tmp_path_factory.mktemp("flux") / "flux", "flux"), choose_device("cpu"))


@pytest.fixture(scope="module")
def adapters(base: Base, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Adapter]:
    """Name → an adapter; between them every way in which changes of one layer can meet."""
    random = torch.Generator().manual_seed(5)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random) * 0.3

    def lora(name: str, out: int, into: int, rank: int = 2) -> dict[str, Tensor]:
        return {f"{name}.lora_down.weight": numbers(rank, into), f"{name}.lora_up.weight": numbers(out, rank)}

    swapped = "lora_unet_final_layer_adaLN_modulation_1"
    files = {
        "fused": lora(FUSED, 96, 32),
        "fused dora": {**lora(FUSED, 96, 32), f"{FUSED}.dora_scale": numbers(96, 1).abs() + 0.5},
        "fused oft": {f"{FUSED}.oft_blocks": numbers(3, 32, 32)},
        "apart": lora(f"{APART}.attn.to_q", 32, 32) | lora(f"{APART}.ff.net.2", 32, 128),
        "biases": {f"{FUSED}.diff_b": numbers(96)},
        "swapped": lora(swapped, 64, 32),
        "scaled": {f"{APART}.attn.to_v.ia3_l": numbers(32, 1) + 1},
        "words": lora("lora_te1_text_model_encoder_layers_0_mlp_fc1", 64, 32)
        | lora("lora_te3_encoder_block_0_layer_0_SelfAttention_q", 32, 48),
    }
    folder, names, result = tmp_path_factory.mktemp("adapters"), names_of(base), {}
    for name, tensors in files.items():
        path = folder / f"{name}.safetensors"
        save_file(tensors, path)
        result[name] = load_adapter(use_of(path), base, names)
        assert result[name].unused == ()
    return result


@pytest.fixture
def patcher(base: Base) -> Iterator[Patcher]:
    one = Patcher(base.modules)
    yield one
    one.restore()


def held(base: Base) -> list[Tensor | None]:
    """Copies of all weights and biases."""
    found = [one._parameters.get(name) for one in base.modules.values() for name in ("weight", "bias")]
    return [None if one is None else one.detach().clone() for one in found]


def same(one: Sequence[Tensor | None], other: Sequence[Tensor | None]) -> bool:
    """Bit by bit."""
    pairs = list(zip(one, other, strict=True))
    return all(a is b is None or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


def used(adapters: dict[str, Adapter], **weights: float) -> list[Strength]:
    return [Strength(adapters[name.replace("_", " ")], te=weight, unet=weight) for name, weight in weights.items()]


def test_whatever_was_merged_before_the_result_is_the_same(
    base: Base, adapters: dict[str, Adapter], patcher: Patcher
) -> None:
    """200 switches between any of eight adapters at any strengths; each compared, bit by bit, with a fresh merge."""
    pristine, chance = held(base), random.Random(3)
    for _ in range(200):
        chosen = chance.sample(sorted(adapters), chance.randint(0, 4))
        wanted = [
            Strength(adapters[name], chance.choice((0.5, 1.0)), chance.choice((0.0, 0.5, -1.0))) for name in chosen
        ]
        patcher.apply(wanted)
        found = held(base)
        patcher.restore()
        assert same(held(base), pristine)
        patcher.apply(wanted)
        assert same(held(base), found)
        if chance.random() < 0.7:  # else the next one begins from what is merged now
            patcher.restore()


def test_a_thousand_switches_leave_the_very_same_tensors(
    base: Base, adapters: dict[str, Adapter], patcher: Patcher
) -> None:
    """Never subtracted: no rounding stays, and nothing is held on to."""
    pristine = held(base)
    places = {key: module.weight.data_ptr() for key, module in base.modules.items()}
    names, chance = sorted(adapters), random.Random(4)
    for turn in range(1000):
        patcher.apply([Strength(adapters[name], 1.0, 1.0) for name in chance.sample(names, turn % 3 + 1)])
    assert not same(held(base), pristine)
    patcher.apply([])
    assert same(held(base), pristine)
    assert {key: module.weight.data_ptr() for key, module in base.modules.items()} == places


def test_only_what_changed_is_formed_anew(
    base: Base, adapters: dict[str, Adapter], patcher: Patcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[set[LayerKey]] = []
    tied, plain = Patcher._rebuild, Patcher._rebuild_plain

    def rebuild(self: Patcher, group: Sequence[LayerKey], plan: object) -> None:
        groups.append(set(group))
        tied(self, group, plan)  # type: ignore[arg-type]

    def rebuild_plain(self: Patcher, key: LayerKey, steps: object) -> None:
        groups.append({key})
        plain(self, key, steps)  # type: ignore[arg-type]

    monkeypatch.setattr(Patcher, "_rebuild", rebuild)
    monkeypatch.setattr(Patcher, "_rebuild_plain", rebuild_plain)
    ff = ("transformer", f"{BLOCK}.ff.net.2")
    patcher.apply(used(adapters, fused=1.0))
    assert groups == [{Q, K, V}]
    patcher.apply(used(adapters, fused=1.0, apart=0.5))
    assert groups[1:] == [{ff}, {Q}]
    patcher.apply(used(adapters, fused=1.0, apart=0.25))
    assert groups[3:] == [{ff}, {Q}]
    patcher.apply(used(adapters, fused=1.0))
    assert groups[5:] == [{Q}]
    patcher.apply(used(adapters, apart=0.25))
    assert groups[6:] == [{Q}, {ff}]
    assert patcher.original(K).data_ptr() == base.modules[K].weight.data_ptr()


@pytest.mark.parametrize("name", ["fused dora", "fused oft", "scaled"])
def test_named_twice_it_is_one_adapter_with_the_sum_of_its_strengths(
    base: Base, adapters: dict[str, Adapter], patcher: Patcher, name: str
) -> None:
    """These changes depend on the weight: applied one after the other, or added, they would be something else."""
    one = adapters[name]
    patcher.apply([Strength(one, 0.5, 0.5), Strength(adapters["apart"], 1.0, 1.0), Strength(one, 0.25, 0.25)])
    twice = held(base)
    patcher.restore()
    patcher.apply([Strength(adapters["apart"], 1.0, 1.0), Strength(one, 0.75, 0.75)])
    assert same(held(base), twice)
    whole = torch.cat([patcher.original(key) for key in (Q, K, V)])
    change = one.changes[0]
    if len(change.places) == 3:
        added = change.delta.change(whole, 0.75)[32:64]
        assert torch.allclose(base.modules[K].weight - patcher.original(K), added, atol=1e-6)


def test_all_text_encoders_have_one_strength_and_the_transformer_another(
    base: Base, adapters: dict[str, Adapter], patcher: Patcher
) -> None:
    def changed() -> set[str]:
        return {key[0] for key, module in base.modules.items() if not torch.equal(patcher.original(key), module.weight)}

    both = [adapters["words"], adapters["fused"]]
    assert patcher.apply([Strength(one, 1.0, 0.0) for one in both])[1] == ()
    assert changed() == {"text_encoder", "text_encoder_2"}
    assert patcher.apply([Strength(one, 0.0, 1.0) for one in both])[0] == ()
    assert changed() == {"transformer"}


def test_a_bias_goes_with_the_adapter_that_brought_it(
    base: Base, adapters: dict[str, Adapter], patcher: Patcher
) -> None:
    """Also where the next adapter changes the same layer, but its weight alone."""
    bias = base.modules[Q].bias
    assert isinstance(bias, torch.nn.Parameter)
    before = bias.data_ptr()
    patcher.apply(used(adapters, biases=1.0))
    assert bias.data_ptr() != before
    patcher.apply(used(adapters, apart=1.0))
    assert bias.data_ptr() == before


def test_a_layer_without_bias_has_one_for_as_long_as_an_adapter_brings_it(tiny: BaseRef, tmp_path: Path) -> None:
    """At another strength it is formed anew from nothing, not from what the adapter brought before."""
    base = load_base(tiny, choose_device("cpu"))
    module = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    layer, path = base.modules["unet", module], tmp_path / "bias.safetensors"
    save_file({f"lora_unet_{module.replace('.', '_')}.diff_b": torch.full((32,), 2.0)}, path)
    adapter, patcher = load_adapter(use_of(path), base), Patcher(base.modules)
    assert layer.bias is None
    for strength in (1.0, 0.5, -0.25):
        patcher.apply([Strength(adapter, strength, strength)])
        assert isinstance(layer.bias, torch.nn.Parameter)
        assert torch.equal(layer.bias, torch.full((32,), 2.0 * strength))
        image = torch.zeros(1, 32)
        assert torch.equal(layer(image), layer.bias[None])
    patcher.apply([])
    assert layer.bias is None


def test_strength_per_block_scales_the_layers_of_that_block_and_no_others(
    base: Base, adapters: dict[str, Adapter], patcher: Patcher
) -> None:
    """Also of fused layers, also of the text encoders (BASE); the same adapter with and without adds up."""
    both, ff = [adapters["apart"], adapters["words"]], ("transformer", f"{BLOCK}.ff.net.2")
    one = ("text_encoder", "encoder.layers.0.mlp.fc1")

    def change(key: LayerKey) -> Tensor:
        return (base.modules[key].weight - patcher.original(key)).detach()  # type: ignore[operator]

    patcher.apply([Strength(adapter, 1.0, 1.0) for adapter in both])
    whole = {key: change(key) for key in (Q, ff, one)}
    for blocks, transformer, text in (
        ((("D00", 0.5),), 0.5, 1.0),
        ((("D00", 0.0), ("BASE", -1.0)), 0.0, -1.0),
        ((("D01", 0.0), ("S00", 0.0)), 1.0, 1.0),
    ):
        patcher.apply([Strength(adapter, 1.0, 1.0, blocks) for adapter in both])
        for key, factor in ((Q, transformer), (ff, transformer), (one, text)):
            assert torch.allclose(change(key), whole[key] * factor, atol=1e-6), (blocks, key)
    fused = adapters["fused"]
    patcher.apply([Strength(fused, 1.0, 0.5, (("D00", 0.5),)), Strength(fused, 1.0, 0.25)])
    halved = held(base)
    patcher.apply([Strength(fused, 1.0, 0.5)])
    assert same(held(base), halved)


def test_a_failure_while_switching_leaves_the_base_pristine(
    base: Base, adapters: dict[str, Adapter], patcher: Patcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also biases, and also what was merged before."""
    pristine = held(base)
    patcher.apply(used(adapters, fused=1.0, biases=1.0))
    rebuild, left = Patcher._rebuild, iter([True, False])

    def breaks(self: Patcher, *args: object) -> None:
        if not next(left):
            raise MemoryError
        rebuild(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Patcher, "_rebuild", breaks)
    with pytest.raises(MemoryError):
        patcher.apply(used(adapters, swapped=1.0, biases=0.5, apart=1.0))
    assert same(held(base), pristine)


def test_one_tensor_under_two_names_is_one_layer(base: Base, patcher: Patcher, tmp_path: Path) -> None:
    """T5 has its embedding twice. Merged under both names in turn, the merged one would pass for the original."""
    shared, alias = ("text_encoder_2", "shared"), ("text_encoder_2", "encoder.embed_tokens")
    pristine, shape = held(base), tuple(base.modules[shared].weight.shape)
    assert base.modules[shared].weight is base.modules[alias].weight
    names = ("text_encoder_2.shared", "text_encoder_2.encoder.embed_tokens")
    save_file({f"{name}.diff": torch.ones(shape) for name in names}, tmp_path / "words.safetensors")
    patcher.apply([Strength(load_adapter(use_of(tmp_path / "words.safetensors"), base), 1.0, 1.0)])
    added = base.modules[alias].weight - patcher.original(shared)
    assert torch.allclose(added, torch.full(shape, 2.0), atol=1e-5)
    patcher.restore()
    assert same(held(base), pristine)
