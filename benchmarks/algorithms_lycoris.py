"""Adapters made and applied by LyCORIS, through `apply_to` and the forward of its modules.

Never through its `merge_to` or `get_diff_weight`: for LoHa and low-rank LoKr they multiply by alpha / rank twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lycoris import modules as lycoris
from lycoris.functional.general import apply_dora_scale
from torch import Tensor

from benchmarks.algorithms_layers import Impossible, Made, Seen, layer_of, randomise, seen, state_of

Maker = Callable[[str], Made]
_CLASSES: dict[str, Any] = {
    "lora": lycoris.LoConModule,
    "loha": lycoris.LohaModule,
    "lokr": lycoris.LokrModule,
    "ia3": lycoris.IA3Module,
    "glora": lycoris.GLoRAModule,
    "oft": lycoris.DiagOFTModule,
    "boft": lycoris.boft.ButterflyOFTModule,
    "full": lycoris.FullModule,
    "norm": lycoris.NormModule,
}


def made_by_lycoris(algorithm: str, *, rank: int = 4, alpha: float = 2.5, bias: bool = False, **options: Any) -> Maker:
    """A maker of adapters of this kind, with these options of its module."""

    def make(kind: str) -> Made:
        if (kind == "norm") != (algorithm == "norm"):
            raise Impossible("not for norms" if kind == "norm" else "norms only")
        if options.get("use_tucker") and kind != "conv 3×3":
            raise Impossible("no kernel, no core")
        layer = layer_of(kind, bias=bias)
        module = _CLASSES[algorithm]("adapter", layer, 1.0, lora_dim=rank, alpha=alpha, **options)
        randomise(module)
        if algorithm == "full":  # its own state is that of after `apply_to`, which takes the weight from the layer
            parts = {"diff": module.weight.data.clone(), "diff_b": module.bias.data.clone()}
        else:
            parts = {_part(name): tensor.detach().clone() for name, tensor in module.state_dict().items()}
        before = state_of(layer)
        module.apply_to()

        def adapted(strength: float) -> Seen:
            module.multiplier = strength
            if options.get("weight_decompose") and strength != 1:
                return _towards(module, before, strength), before[1]
            return seen(layer.forward, before[0])

        return Made(algorithm, parts, before, adapted)

    return make


def renamed(maker: Maker, names: dict[str, str], *, only: tuple[str, ...]) -> Maker:
    """The same with other names for its parts, as an older version wrote them for some layers."""

    def make(kind: str) -> Made:
        if kind not in only:
            raise Impossible("not made then")
        made = maker(kind)
        parts = {names.get(part, part): tensor for part, tensor in made.parts.items()}
        return Made(made.algorithm, parts, made.before, made.adapted)

    return make


def _part(name: str) -> str:
    return name if name == "weight" else name.removesuffix(".weight")


@torch.no_grad()
def _towards(module: Any, before: Seen, strength: float) -> Tensor:
    """LyCORIS' own function for DoRA at a strength (`apply_dora_scale`); it knows columns only, so rows are turned."""
    weight = before[0]
    if isinstance(module, lycoris.LoConModule):
        difference = module.make_weight() * module.scale
    else:
        difference = module.get_weight(weight.shape)
    if module.wd_on_out:
        turned = (tensor.transpose(0, 1) for tensor in (weight, difference, module.dora_scale))
        return apply_dora_scale(*turned, strength).transpose(0, 1)
    return apply_dora_scale(weight, difference, module.dora_scale, strength)
