"""LoHa, LoKr, IA3, DoRA in training: the numbers of the changed weight, of PEFT, of LyCORIS, and of our own reader."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from loravault.engine.deltas import read_delta
from loravault.engine.training.networks import LayerAdapter
from loravault.engine.training.networks.adapters import Start
from loravault.engine.training.networks.dora import Decomposed
from loravault.engine.training.networks.kronecker import Kronecker, factorization
from loravault.engine.training.networks.making import make_adapter
from loravault.engine.training.networks.targets import Layer
from loravault.errors import UserError
from loravault.formats.normal import Patch, Place
from loravault.formats.tensor_table import TensorInfo
from tests.engine.training.layers import CONV, KINDS, LINEAR, adapter_of, input_of, layer_of, near, randomise, seen
from tests.engine.training.plans import plan

pytestmark = pytest.mark.engine

#: Name → what the plan says.
ALGORITHMS: dict[str, dict[str, Any]] = {
    "LoRA": {},
    "LoHa": {"algorithm": "loha"},
    "LoKr": {"algorithm": "lokr", "rank": 2, "factor": 2},
    "LoKr, both whole": {"algorithm": "lokr", "rank": 99, "factor": 4},
    "DoRA": {"dora": True},
    "DoRA on LoHa": {"algorithm": "loha", "dora": True},
    "DoRA on LoKr": {"algorithm": "lokr", "rank": 2, "factor": 2, "dora": True},
}


def read_back(adapter: LayerAdapter, w0: Tensor) -> Tensor:
    """The change that our own reader makes of what a file would say."""
    said = adapter.tensors()
    names = {f"{part}.weight" if part.startswith("lora_") else part: tensor for part, tensor in said.parts.items()}
    if said.alpha is not None:
        names["alpha"] = torch.tensor(said.alpha)
    rows = list(names.items())
    parts = {
        name.removesuffix(".weight"): (name, TensorInfo("F32", tuple(one.shape), (place, place)))
        for place, (name, one) in enumerate(rows)
    }
    if "weight" in names:  # the part of an IA3 is called so itself
        parts["weight"] = parts.pop("weight", parts.get("weight"))  # type: ignore[assignment]
    patch = Patch("m", said.algorithm, parts, (Place("unet", "m"),))
    return read_delta(patch, lambda info: rows[info.start][1]).change(w0, 1.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_output_and_gradients_are_those_of_the_changed_weight(name: str, kind: str) -> None:
    """W + change, applied plainly and differentiated by autograd (of a DoRA, the norm is given)."""
    adapter = adapter_of(layer_of(kind), **ALGORITHMS[name])
    module, x = adapter.module, input_of(kind)
    changed = _changed(adapter)
    plain = (
        functional.linear(x, changed, module.bias)
        if kind == LINEAR
        else functional.conv2d(x, changed, module.bias, module.stride, module.padding)
    )
    weights = torch.linspace(-1, 1, plain.numel()).reshape(plain.shape)
    wanted = torch.autograd.grad((plain * weights).sum(), [x, *adapter.parts.values()])
    adapter.attach()
    y, of_x, of_parts = seen(adapter, x)
    assert near(y, plain)
    assert near(of_x, wanted[0], 2e-6)
    for part, gradient in zip(of_parts, wanted[1:], strict=True):
        assert near(of_parts[part], gradient, 3e-6), part


def _changed(adapter: LayerAdapter) -> Tensor:
    """W′ with its graph, formed as the papers write it."""
    weight = adapter.module.weight
    if not isinstance(adapter, Decomposed):
        return weight + _delta(adapter.parts, adapter, weight)
    merged = weight + _delta(adapter.parts, adapter.inner, weight)
    norm = merged.detach().transpose(0, 1).flatten(1).norm(dim=1).view(adapter.parts["dora_scale"].shape)
    return merged * (adapter.parts["dora_scale"] / norm)


def _delta(parts: dict[str, nn.Parameter], adapter: Any, weight: Tensor) -> Tensor:
    if "lora_up" in parts:
        delta = parts["lora_up"].flatten(1) @ parts["lora_down"].flatten(1)
    elif "hada_w1_a" in parts:
        delta = (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
    else:
        second = parts["lokr_w2"].flatten(1) if "lokr_w2" in parts else parts["lokr_w2_a"] @ parts["lokr_w2_b"]
        delta = torch.kron(parts["lokr_w1"], second)
    return (delta * adapter.scale).reshape(weight.shape)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_is_written_is_read_as_the_same_change(name: str, kind: str) -> None:
    """The parts and the alpha, through the reader of this engine; also what `change` says."""
    adapter = adapter_of(layer_of(kind), **ALGORITHMS[name])
    w0 = adapter.module.weight
    assert near(read_back(adapter, w0), _changed(adapter) - w0, 3e-6)
    assert near(adapter.change(w0), _changed(adapter) - w0, 3e-6)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_begins_as_nothing(name: str, kind: str) -> None:
    """Before the first step the layer gives what it gave, and there is something to learn from."""
    layer = layer_of(kind)
    x = input_of(kind)
    before = layer.module(x)
    adapter = make_adapter(layer, plan(conv_rank=3, **ALGORITHMS[name]), Start(1, layer))
    assert adapter is not None
    adapter.attach()
    y, _, gradients = seen(adapter, x)
    assert near(y, before, 1e-6)
    assert any(bool(one.any()) for one in gradients.values())


def _path(*, on_input: bool) -> str:
    return "ff.net.2" if on_input else "attn2.to_k"


@pytest.mark.parametrize("on_input", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_ia3_multiplies_the_weight_and_not_the_bias(on_input: bool, bias: bool) -> None:
    """As LyCORIS reads the file: W · (1 + w) by rows or columns; the bias is the base's."""
    adapter = adapter_of(layer_of(LINEAR, path=_path(on_input=on_input), bias=bias), algorithm="ia3")
    module, x = adapter.module, input_of(LINEAR)
    weight = adapter.parts["weight"]
    factors = 1 + (weight if on_input else weight[:, None])
    plain = functional.linear(x, module.weight * factors, module.bias)
    weights = torch.linspace(-1, 1, plain.numel()).reshape(plain.shape)
    wanted = torch.autograd.grad((plain * weights).sum(), [x, weight])
    adapter.attach()
    y, of_x, of_parts = seen(adapter, x)
    assert near(y, plain)
    assert near(of_x, wanted[0])
    assert near(of_parts["weight"], wanted[1], 3e-6)
    assert near(read_back(adapter, module.weight), module.weight * (factors - 1))
    assert near(adapter.change(module.weight), module.weight * (factors - 1))
    assert float(adapter.tensors().parts["on_input"]) == float(on_input)


# ---- other libraries


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["LoHa", "LoKr", "LoKr, both whole", "DoRA", "IA3"])
def test_it_is_pefts(name: str, kind: str) -> None:
    """PEFT's tuner with the same numbers gives the same output and the same gradients.

    Its DoRA has a length for each output; its IA3 begins at 1 and multiplies the bias too, so there is none here.
    """
    peft = pytest.importorskip("peft")
    if name == "IA3" and kind != LINEAR:
        pytest.skip("no IA3 of convolutions")
    adapter, other, pairs = _beside_peft(peft, name, kind)
    x = input_of(kind)
    y = other(x)
    weights = torch.linspace(-1, 1, y.numel()).reshape(y.shape)
    wanted = torch.autograd.grad((y * weights).sum(), [x, *pairs.values()])
    adapter.attach()
    ours, of_x, of_parts = seen(adapter, x)
    assert near(ours, y)
    assert near(of_x, wanted[0], 2e-6)
    for part, gradient in zip(pairs, wanted[1:], strict=True):
        factor = 99 / 2.0 if _folded(name, part) else 1.0
        assert near(of_parts[part], (gradient * factor).reshape(of_parts[part].shape), 3e-6), part


def _beside_peft(peft: Any, name: str, kind: str) -> tuple[LayerAdapter, nn.Module, dict[str, nn.Parameter]]:
    """Our adapter, PEFT's model with its numbers, and part → PEFT's parameter."""
    layer = layer_of(kind, bias=name != "IA3")
    rank = 3 if kind == CONV else 4
    adapter: LayerAdapter
    if name == "DoRA":
        inner: Any = adapter_of(layer)
        adapter = Decomposed(inner, on_output=True)
        with torch.no_grad():
            adapter.parts["dora_scale"].mul_(torch.linspace(0.8, 1.2, 36).view(-1, *(1,) * (len(layer.shape) - 1)))
        config = peft.LoraConfig(r=rank, lora_alpha=2.0, target_modules=["0"], use_dora=True)
    elif name == "LoHa":
        adapter = adapter_of(layer, algorithm="loha")
        config = peft.LoHaConfig(r=rank, alpha=2.0, target_modules=["0"])
    elif name == "IA3":
        adapter = adapter_of(layer, algorithm="ia3")
        config = peft.IA3Config(target_modules=["0"], feedforward_modules=[])
    else:
        changes = ALGORITHMS[name] | ({"conv_rank": 99} if name == "LoKr, both whole" else {})
        adapter = _lokr(layer, changes)
        assert isinstance(adapter, Kronecker)
        config = peft.LoKrConfig(r=adapter.rank, alpha=2.0, target_modules=["0"], decompose_factor=changes["factor"])
    other = nn.Sequential(layer_of(kind, bias=name != "IA3").module)
    peft.inject_adapter_in_model(config, other)
    tuned: Any = other[0]
    theirs = {"lora_down": "lora_A", "lora_up": "lora_B", "dora_scale": "lora_magnitude_vector", "weight": "ia3_l"}
    pairs = {}
    for part, tensor in adapter.parts.items():
        held = getattr(tuned, theirs.get(part, part))["default"]
        held = getattr(held, "weight", held)
        with torch.no_grad():
            value = tensor + 1 if name == "IA3" else tensor * (99 / 2.0 if _folded(name, part) else 1.0)
            held.copy_(value.reshape(held.shape))
        pairs[part] = held
    return adapter, other, pairs


def _folded(name: str, part: str) -> bool:
    """PEFT multiplies two whole matrices by alpha / rank, which no reader of files does: it is taken out here."""
    return name == "LoKr, both whole" and part == "lokr_w1"


def _lokr(layer: Layer, changes: dict[str, Any]) -> LayerAdapter:
    made = make_adapter(layer, plan(**{"conv_rank": 3, "conv_alpha": 2.0, **changes}), Start(3, layer))
    assert made is not None
    randomise(made)
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*ALGORITHMS, "IA3"])
def test_it_is_lycoris(name: str, kind: str) -> None:
    """The forward of LyCORIS' own modules with our tensors loaded, where that library is there."""
    modules = pytest.importorskip("lycoris.modules")
    if name == "IA3" and kind != LINEAR:
        pytest.skip("no IA3 of convolutions")
    adapter = adapter_of(layer_of(kind), **ALGORITHMS.get(name, {"algorithm": "ia3"}))
    said = adapter.tensors()
    classes = {"lora": "LoConModule", "loha": "LohaModule", "lokr": "LokrModule", "ia3": "IA3Module"}
    layer = layer_of(kind).module
    options: dict[str, Any] = {"weight_decompose": True, "wd_on_out": False} if "DoRA" in name else {}
    if said.algorithm == "lokr":
        options["factor"] = ALGORITHMS[name]["factor"]
    rank = getattr(getattr(adapter, "inner", adapter), "rank", 4)
    theirs = getattr(modules, classes[said.algorithm])("m", layer, 1.0, lora_dim=rank, alpha=said.alpha or 1, **options)
    values = {f"{part}.weight" if part.startswith("lora_") else part: one for part, one in said.parts.items()}
    missing, unexpected = theirs.load_state_dict(values, strict=False)
    assert not unexpected
    assert set(missing) <= {"alpha", "scalar"}
    theirs.apply_to()
    adapter.attach()
    x = input_of(kind)
    assert near(adapter.module(x), layer(x), 2e-6)


@given(size=st.integers(1, 3000), factor=st.one_of(st.just(-1), st.integers(1, 40)))
@settings(max_examples=60, deadline=None)
def test_widths_are_cut_in_two(size: int, factor: int) -> None:
    """Their product is the width, the smaller comes first, and no divisor between it and the factor was passed over."""
    small, large = factorization(size, factor)
    assert small * large == size
    assert small <= large
    limit = size if factor < 0 else factor
    if factor < 0 or size % factor:
        assert not [one for one in range(small + 1, limit + 1) if size % one == 0 and one * one <= size]


def test_widths_of_real_layers() -> None:
    """Pairs that LyCORIS documents."""
    assert [factorization(size, -1) for size in (127, 128, 250, 360, 512, 1024)] == [
        (1, 127), (8, 16), (10, 25), (18, 20), (16, 32), (32, 32),
    ]  # fmt: skip
    assert factorization(360, 16) == (15, 24)
    assert factorization(768, 8) == (8, 96)


def test_a_dora_of_packed_weights_is_refused() -> None:
    """Its lengths are those of weights that are not there."""

    class Packed(nn.Module):
        in_features, out_features = 24, 36

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(24 * 36 // 2, 1, dtype=torch.uint8), requires_grad=False)

        def forward(self, x: Tensor) -> Tensor:
            return x[..., :1].expand(*x.shape[:-1], 36)

    layer = replace(layer_of(LINEAR), module=Packed())
    with pytest.raises(UserError, match="four or eight bits"):
        adapter_of(layer, dora=True)
    for options in ({}, {"algorithm": "loha"}, {"algorithm": "lokr"}, {"algorithm": "ia3"}):
        adapter = adapter_of(layer, **options)
        adapter.attach()
        _, _, gradients = seen(adapter, input_of(LINEAR))
        assert all(bool(one.any()) for one in gradients.values()), json.dumps(options)
        adapter.detach()
    with pytest.raises(UserError, match="does not go together"):
        adapter_of(layer, dora=True, algorithm="dylora")


@pytest.mark.parametrize("name", [*ALGORITHMS, "IA3"])
def test_on_a_base_of_half_precision(name: str) -> None:
    """bf16 around, fp32 inside: near what the whole base gives, gradients whole; under autocast too."""
    options = ALGORITHMS.get(name, {"algorithm": "ia3"})
    exact, half = adapter_of(layer_of(LINEAR), **options), layer_of(LINEAR)
    half.module.to(torch.bfloat16)
    adapter = adapter_of(half, **options)
    x = input_of(LINEAR)
    exact.attach()
    wanted, _, gradients = seen(exact, x)
    with torch.autocast("cpu", torch.bfloat16):
        y, _, mixed = seen(exact, x)
    adapter.attach()
    z, _, found = seen(adapter, x.detach().to(torch.bfloat16).requires_grad_())
    assert z.dtype == y.dtype == torch.bfloat16 or name == "IA3"
    assert near(y.float(), wanted, 0.04)
    assert near(z.float(), wanted, 0.04)
    for part, gradient in gradients.items():
        assert found[part].dtype == mixed[part].dtype == torch.float32
        assert near(found[part], gradient, 0.05), part
        assert near(mixed[part], gradient, 0.05), part
