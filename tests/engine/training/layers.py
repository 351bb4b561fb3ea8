"""Single layers with an adapter on them, and what it does, seen from outside."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from loravault.engine.training.networks import Layer, LayerAdapter
from loravault.engine.training.networks.adapters import Start
from loravault.engine.training.networks.making import make_adapter
from loravault.engine.training.networks.targets import shape_of
from tests.engine.training.plans import plan

LINEAR, CONV, POINT = "linear", "conv 3×3", "conv 1×1"
KINDS = (LINEAR, CONV, POINT)


def layer_of(kind: str, *, path: str = "attn1.to_k", bias: bool = True, seed: int = 1) -> Layer:
    """A frozen layer of 24 inputs and 36 outputs."""
    torch.manual_seed(seed)
    module: nn.Module = (
        nn.Linear(24, 36, bias=bias) if kind == LINEAR
        else nn.Conv2d(24, 36, 3, padding=1, stride=2, bias=bias) if kind == CONV
        else nn.Conv2d(24, 36, 1, bias=bias)
    )  # fmt: skip
    module.requires_grad_(False)
    shape = shape_of(module)
    assert shape is not None
    return Layer("unet", path, module, shape)


def input_of(kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    shape = (2, 7, 24) if kind == LINEAR else (2, 24, 6, 8)
    return torch.randn(shape, generator=generator, requires_grad=True)


def adapter_of(layer: Layer, **changes: Any) -> LayerAdapter:
    """With random numbers in all of its parts."""
    made = make_adapter(layer, plan(conv_rank=3, conv_alpha=2.0, **changes), Start(3, layer))
    assert made is not None
    randomise(made)
    return made


@torch.no_grad()
def randomise(adapter: LayerAdapter) -> None:
    generator = torch.Generator().manual_seed(11)
    for part, tensor in adapter.parts.items():
        numbers = torch.randn(tensor.shape, generator=generator) * 0.3
        tensor.copy_(tensor * (1 + 0.3 * numbers) if part == "dora_scale" else numbers)


def seen(adapter: LayerAdapter, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Output, gradient of the input, and gradients of the parts, of a loss in which every number differs."""
    y = adapter.module(x)
    weights = torch.linspace(-1, 1, y.numel()).reshape(y.shape).to(y.dtype)
    gradients = torch.autograd.grad((y * weights).sum(), [x, *adapter.parts.values()])
    return y.detach(), gradients[0], dict(zip(adapter.parts, gradients[1:], strict=True))


def near(one: Tensor, other: Tensor, tolerance: float = 1e-6) -> bool:
    """Whether they differ by at most this share of the largest number."""
    one, other = one.detach(), other.detach()
    return one.shape == other.shape and float((one - other).abs().max()) <= tolerance * float(other.abs().max())
