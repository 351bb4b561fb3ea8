"""LoRA in training: the same numbers, forward and backward, as autograd's own steps, and as PEFT."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from loravault.engine.training.networks.low_rank import LowRank
from tests.engine.training.layers import CONV, KINDS, LINEAR, adapter_of, input_of, layer_of, near, seen

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
def test_output_and_gradients_are_those_of_the_changed_weight(kind: str, bias: bool) -> None:
    """The layer with W + ΔW, written down plainly, gives the same output and the same gradients."""
    adapter = adapter_of(layer_of(kind, bias=bias))
    module, x = adapter.module, input_of(kind)
    down, up = (adapter.parts[part].detach().clone().requires_grad_() for part in ("lora_down", "lora_up"))
    delta = (up.flatten(1) @ down.flatten(1)).reshape(module.weight.shape) * adapter.scale  # type: ignore[attr-defined]
    plain = (
        functional.linear(x, module.weight + delta, module.bias) if kind == LINEAR
        else functional.conv2d(x, module.weight + delta, module.bias, module.stride, module.padding)
    )  # fmt: skip
    weights = torch.linspace(-1, 1, plain.numel()).reshape(plain.shape)
    wanted = torch.autograd.grad((plain * weights).sum(), [x, down, up])
    adapter.attach()
    y, of_x, of_parts = seen(adapter, x)
    assert near(y, plain.detach())
    assert near(of_x, wanted[0])
    assert near(of_parts["lora_down"], wanted[1], 2e-6)
    assert near(of_parts["lora_up"], wanted[2], 2e-6)
    assert near(adapter.change(module.weight.float()), delta.detach())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rslora", [False, True])
def test_it_is_pefts_lora(kind: str, rslora: bool) -> None:
    """PEFT's tuner with the same numbers, forward and backward."""
    peft = pytest.importorskip("peft")
    adapter = adapter_of(layer_of(kind), rslora=rslora)
    other = nn.Sequential(layer_of(kind).module)
    rank = adapter.parts["lora_down"].shape[0]
    config = peft.LoraConfig(r=rank, lora_alpha=2.0, target_modules=["0"], use_rslora=rslora)
    peft.inject_adapter_in_model(config, other)
    tuned: Any = other[0]
    with torch.no_grad():
        tuned.lora_A["default"].weight.copy_(adapter.parts["lora_down"])
        tuned.lora_B["default"].weight.copy_(adapter.parts["lora_up"])
    x = input_of(kind)
    y = other(x)
    weights = torch.linspace(-1, 1, y.numel()).reshape(y.shape)
    wanted = torch.autograd.grad(
        (y * weights).sum(), [x, tuned.lora_A["default"].weight, tuned.lora_B["default"].weight]
    )
    adapter.attach()
    ours, of_x, of_parts = seen(adapter, x)
    assert near(ours, y.detach())
    assert near(of_x, wanted[0])
    assert near(of_parts["lora_down"], wanted[1], 2e-6)
    assert near(of_parts["lora_up"], wanted[2], 2e-6)


def test_rank_stabilised_scale_is_alpha_by_the_root_and_the_file_says_so() -> None:
    """α/√r in the forward is what a reader makes of the alpha in the file: alpha / r."""
    adapter = adapter_of(layer_of(LINEAR), rslora=True)
    assert isinstance(adapter, LowRank)
    assert adapter.scale == pytest.approx(2.0 / math.sqrt(4))
    assert adapter.alpha / 4 == pytest.approx(adapter.scale)


def test_beside_a_layer_that_is_no_plain_product() -> None:
    """A linear layer of another class, as quantised bases have, keeps its own forward; ours is added to it."""

    class Other(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) + 1

    layer = layer_of(LINEAR)
    other = Other(24, 36)
    other.load_state_dict(layer.module.state_dict())
    other.requires_grad_(False)
    plain, beside = adapter_of(layer), adapter_of(replace(layer, module=other))
    plain.attach()
    beside.attach()
    x = input_of(LINEAR)
    one, two = seen(plain, x), seen(beside, x)
    assert near(two[0] - 1, one[0])
    assert near(two[1], one[1])
    assert all(near(two[2][part], one[2][part]) for part in one[2])


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_base_of_half_precision_the_parameters_stay_whole(kind: str) -> None:
    """bf16 base, fp32 adapter: it runs without autocast, and gradients are fp32."""
    layer = layer_of(kind)
    layer.module.to(torch.bfloat16)
    adapter = adapter_of(layer)
    adapter.attach()
    y, _, of_parts = seen(adapter, input_of(kind).to(torch.bfloat16).detach().requires_grad_())
    assert y.dtype == torch.bfloat16
    assert {one.dtype for one in of_parts.values()} == {torch.float32}
    exact = adapter_of(layer_of(kind))
    exact.attach()
    assert near(y.float(), seen(exact, input_of(kind))[0], 0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_under_autocast(kind: str) -> None:
    """As the base's own layers: bf16 inside, fp32 gradients."""
    adapter = adapter_of(layer_of(kind))
    adapter.attach()
    x = input_of(kind)
    whole = seen(adapter, x)
    with torch.autocast("cpu", torch.bfloat16):
        y, _, of_parts = seen(adapter, x)
    assert y.dtype == torch.bfloat16
    assert near(y.float(), whole[0], 0.03)
    assert all(near(of_parts[part], whole[2][part], 0.03) for part in of_parts)


@pytest.mark.parametrize("reentrant", [True, False])
def test_with_checkpointing_gradients_are_the_same(reentrant: bool) -> None:
    """Activations computed twice change nothing."""
    adapter = adapter_of(layer_of(LINEAR))
    adapter.attach()
    x = input_of(LINEAR)
    plain = torch.autograd.grad(adapter.module(x).square().sum(), list(adapter.parts.values()))
    y = checkpoint(adapter.module, x, use_reentrant=reentrant)
    y.square().sum().backward()  # type: ignore[union-attr]
    for wanted, tensor in zip(plain, adapter.parts.values(), strict=True):
        assert tensor.grad is not None
        assert torch.equal(tensor.grad, wanted)


@pytest.mark.parametrize("kind", [LINEAR, CONV])
def test_dylora_uses_the_first_ranks_only_and_writes_all(kind: str) -> None:
    """A prefix is a LoRA of fewer ranks at the same scale; the others get no gradient."""
    adapter = adapter_of(layer_of(kind), algorithm="dylora")
    assert isinstance(adapter, LowRank)
    adapter.prefix = 2
    adapter.attach()
    x = input_of(kind)
    y, _, of_parts = seen(adapter, x)
    assert not of_parts["lora_down"][2:].any()
    assert of_parts["lora_down"][:2].all()
    adapter.detach()
    with torch.no_grad():
        adapter.parts["lora_up"][:, 2:] = 0
    adapter.prefix = adapter.rank
    adapter.attach()
    assert near(seen(adapter, x)[0], y)
    assert adapter.tensors().parts["lora_down"].shape[0] == adapter.rank
