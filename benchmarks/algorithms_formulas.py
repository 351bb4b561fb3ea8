"""Formulas of programs that are no packages: kohya's sd-scripts and ComfyUI, written down from what they do."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.algorithms_layers import INTO, OUT, Impossible, Made, layer_of, state_of

Maker = Callable[[str], Made]


def _by_formula(algorithm: str, parts: Callable[[str], dict[str, Tensor]], changed: Callable[..., Tensor]) -> Maker:
    def make(kind: str) -> Made:
        if kind == "norm":
            raise Impossible("not for norms")
        before, held = state_of(layer_of(kind)), parts(kind)
        return Made(algorithm, held, before, lambda strength: (changed(before[0], held, strength), before[1]))

    return make


def _lora_parts(kind: str) -> dict[str, Tensor]:
    ones, kernel = ((), ()) if kind == "linear" else ((1, 1), (3, 3) if kind == "conv 3×3" else (1, 1))
    down, up = torch.randn(4, INTO, *kernel) * 0.3, torch.randn(OUT, 4, *ones) * 0.3
    return {"lora_down": down, "lora_up": up, "alpha": torch.tensor(2.5)}


def _kohya_lora(weight: Tensor, parts: dict[str, Tensor], strength: float) -> Tensor:
    """sd-scripts, networks/lora.py: the same product as a convolution of the one with the other."""
    up, down = parts["lora_up"], parts["lora_down"]
    scale = float(parts["alpha"]) / down.shape[0]
    if weight.ndim == 2:
        return weight + strength * (up @ down) * scale
    product = nn.functional.conv2d(down.permute(1, 0, 2, 3), up).permute(1, 0, 2, 3)
    return weight + strength * product * scale


def _oft_parts(kind: str) -> dict[str, Tensor]:  # noqa: ARG001
    return {"oft_blocks": torch.randn(8, OUT // 8, OUT // 8) * 0.3, "alpha": torch.tensor(1e-2)}


def _kohya_oft(weight: Tensor, parts: dict[str, Tensor], strength: float) -> Tensor:
    """sd-scripts, networks/oft.py: alpha times the outputs limits the norm; rows are turned by Rᵀ."""
    blocks = parts["oft_blocks"]
    skew = blocks - blocks.transpose(1, 2)
    norm = skew.flatten().norm()
    skew = skew * ((norm.clamp(max=float(parts["alpha"]) * weight.shape[0]) + 1e-8) / (norm + 1e-8))
    identity = torch.eye(blocks.shape[1])
    rotation = strength * ((identity + skew) @ (identity - skew).inverse() - identity) + identity
    flat = weight.reshape(blocks.shape[0], blocks.shape[1], -1)
    return torch.einsum("knm,knp->kmp", rotation, flat).reshape(weight.shape)


def _new_values(kind: str) -> dict[str, Tensor]:
    return {"set_weight": torch.randn_like(state_of(layer_of(kind))[0])}


kohya_lora = _by_formula("lora", _lora_parts, _kohya_lora)
kohya_oft = _by_formula("oft", _oft_parts, _kohya_oft)
comfy_set = _by_formula("full", _new_values, lambda _weight, parts, _strength: parts["set_weight"])
