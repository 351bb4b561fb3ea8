"""What a layer holds with an adapter in effect, in double precision, by the formulas of `deltas/slow.py`.

Written from the definitions and not from `loravault.engine.deltas`, which is what is to be tested.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tests.engine.deltas import slow

Parts = Mapping[str, Tensor]
#: Weight and bias; None where there is none.
Held = tuple[Tensor, Tensor | None]


def adapted(kind: str, parts: Parts, held: Held, strength: float) -> Held:
    """A layer (out, in, …) with one change of this kind at this strength. `parts` are named as in the file."""
    named = {name.removesuffix(".weight").removesuffix(".default"): one.double() for name, one in parts.items()}
    weight, bias = held[0].double(), None if held[1] is None else held[1].double()
    if kind in ("oft", "boft"):
        return _turned(named, weight, strength).reshape(weight.shape), bias
    if kind == "ia3":
        return _multiplied(named, weight, bias, strength)
    if kind == "norm":
        return weight + strength * named["w_norm"], bias
    if kind == "full":
        return _whole(named, weight, bias, strength)
    magnitude = named.get("dora_scale", named.get("lora_magnitude_vector"))
    change = {"loha": _loha, "lokr": _lokr, "glora": _glora}.get(kind, _lora)(named, weight).reshape(weight.shape)
    if magnitude is not None:
        on_output = "lora_magnitude_vector" in named or magnitude.shape[0] == weight.shape[0]
        change = slow.dora(weight + change, magnitude, on_output=on_output) - weight
    if "lora_up.bias" in named:
        bias = (0 if bias is None else bias) + strength * _scale(named, named["lora_down"].shape[0]) * named[
            "lora_up.bias"
        ]
    return weight + strength * change, bias


def _scale(named: Parts, rank: int) -> float:
    return float(named["alpha"]) / rank if "alpha" in named else 1.0


def _lora(named: Parts, _weight: Tensor) -> Tensor:
    up, down = named["lora_up"], named["lora_down"]
    return slow.low_rank(up, down, named.get("lora_mid"), _scale(named, down.shape[0]))


def _loha(named: Parts, _weight: Tensor) -> Tensor:
    products = []
    for n in (1, 2):
        a, b, core = named[f"hada_w{n}_a"], named[f"hada_w{n}_b"], named.get(f"hada_t{n}")
        products.append(slow.low_rank(a if core is None else a.T, b, core, 1.0))
    return _scale(named, named["hada_w1_b"].shape[0]) * products[0] * products[1]


def _lokr(named: Parts, weight: Tensor) -> Tensor:
    first = named["lokr_w1"] if "lokr_w1" in named else named["lokr_w1_a"] @ named["lokr_w1_b"]
    second = named["lokr_w2"] if "lokr_w2" in named else named["lokr_w2_a"] @ named["lokr_w2_b"]
    whole = "lokr_w1" in named and "lokr_w2" in named  # then alpha is ignored, as LyCORIS does
    rank = next((named[name].shape[0] for name in ("lokr_w2_b", "lokr_w1_b") if name in named), 1)
    second = second.reshape(second.shape[0], weight.shape[1] // first.shape[1], *weight.shape[2:])
    return (1.0 if whole else _scale(named, rank)) * torch.kron(first, second.flatten(1))


def _glora(named: Parts, weight: Tensor) -> Tensor:
    flat = weight.flatten(1)
    own = named["b1"] @ named["b2"]
    return _scale(named, named["a2"].shape[0]) * (flat @ (named["a1"] @ named["a2"]) + own)


def _turned(named: Parts, weight: Tensor, strength: float) -> Tensor:
    if "oft_R" in named:
        size = next(s for s in (8, 4, 2, 1) if weight.shape[1] % s == 0)
        return weight.flatten(1) + strength * (slow.peft_oft(weight, named["oft_R"], size) - weight.flatten(1))
    if "boft_R" in named:
        turned = slow.peft_boft(weight, named["boft_R"], named["boft_s"])
        return weight.flatten(1) + strength * (turned - weight.flatten(1))
    turn = slow.oft if named["oft_blocks"].ndim == 3 else slow.boft
    limit = float(named["alpha"]) * weight.shape[0]
    return turn(weight, named["oft_blocks"], strength, limit, named.get("rescale"))


def _multiplied(named: Parts, weight: Tensor, bias: Tensor | None, strength: float) -> Held:
    ones = [1] * (weight.ndim - 1)
    if "ia3_l" in named:  # around one, and for what the layer gives, its bias included
        factors = strength * (named["ia3_l"].flatten() - 1)
        return weight * (1 + factors.reshape(-1, *ones)), None if bias is None else bias * (1 + factors)
    return weight * (1 + strength * named["weight"].reshape(-1, *ones)), bias


def _whole(named: Parts, weight: Tensor, bias: Tensor | None, strength: float) -> Held:
    if "set_weight" in named:
        return weight + strength * (named["set_weight"] - weight), bias
    return weight + strength * named["diff"], (0 if bias is None else bias) + strength * named["diff_b"]
