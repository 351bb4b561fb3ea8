"""Adapters made and applied by PEFT, through the forward of its wrapped layers."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import peft
import torch
from peft.tuners.boft import layer as boft_layer
from torch import Tensor, nn

from benchmarks.algorithms_layers import Impossible, Made, Seen, layer_of, randomise, seen, state_of
from loravault.formats import keys
from loravault.formats.normal.parts import spelled

Maker = Callable[[str], Made]


class _Model(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer


class _Blocks:
    """What PEFT compiles a CUDA extension for. Without it BOFT has one stage only."""

    @staticmethod
    def forward(blocks: Tensor) -> list[Tensor]:
        return [torch.stack([torch.block_diag(*stage) for stage in blocks])]


def made_by_peft(algorithm: str, config: Callable[[], peft.PeftConfig], *, bias: bool = False) -> Maker:
    """A maker of adapters of this kind."""

    def make(kind: str) -> Made:
        if kind == "norm":
            raise Impossible("not for norms")
        layer = layer_of(kind, bias=bias)
        before, options = state_of(layer), config()
        with mock.patch.object(boft_layer, "get_fbd_cuda", return_value=_Blocks):
            model = peft.get_peft_model(_Model(layer), options).eval()
        randomise(model)
        parts = {}
        for name, tensor in peft.get_peft_model_state_dict(model).items():
            split = keys.split_key(name)
            assert split is not None, name
            parts[spelled(split[2])] = tensor.detach().clone()
        wrapped = model.base_model.model.layer

        def adapted(strength: float) -> Seen:
            with mock.patch.object(boft_layer, "get_fbd_cuda", return_value=_Blocks):
                if strength == 1:
                    return seen(wrapped, before[0])
                wrapped.scale_layer(strength)
                found = seen(wrapped, before[0])
                wrapped.unscale_layer()
                return found

        alpha = getattr(options, "lora_alpha", None) or getattr(options, "alpha", None)
        return Made(algorithm, parts, before, adapted, alpha=alpha, peft=True)

    return make
