"""The whole denoiser with adapters that other programs apply in their own forward: LyCORIS and PEFT.

None where the program has no such adapter for one of the layers, or knows its tensors in other sizes only.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from loravault.engine.bases import Base
from tests.engine.matrix import Adapted, output_of
from tests.engine.matrix_rows import PEFT

#: Algorithm of the matrix → type and options of PEFT's configuration. Scales are 1: these files have no alpha.
_CONFIGS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "LoRA, LoCon": ("LoraConfig", {"r": 4, "lora_alpha": 4}),
    "LoRA with bias": ("LoraConfig", {"r": 4, "lora_alpha": 4, "lora_bias": True}),
    "DoRA, outputs": ("LoraConfig", {"r": 4, "lora_alpha": 4, "use_dora": True}),
    "LoHa": ("LoHaConfig", {"r": 4, "alpha": 4}),
    "LoKr": ("LoKrConfig", {"r": 2, "alpha": 2, "decompose_factor": 4}),
    "IA3 of PEFT": ("IA3Config", {"feedforward_modules": []}),
    "OFT of PEFT": ("OFTConfig", {"oft_block_size": 8}),
    "BOFT of PEFT": ("BOFTConfig", {"boft_block_size": 8}),
}


def by_lycoris(base: Base, layers: Sequence[Adapted]) -> Tensor | None:
    """Through `apply_to` of the modules that LyCORIS itself makes of the file's tensors."""
    from lycoris.modules import get_module, make_module  # noqa: PLC0415 - optional

    adapted: dict[tuple[str, str], nn.Module] = {}
    for one in layers:
        layer = copy.deepcopy(base.modules[one.key])
        kind, tensors = get_module({f"x.{name}": tensor for name, tensor in one.parts.items()}, "x")
        if kind is None:
            return None
        try:
            module = make_module(kind, tensors, "x", layer)
        except (AttributeError, RuntimeError, TypeError, ValueError):  # its tensors have other sizes for such a layer
            return None
        if module is None:
            return None
        module.multiplier = one.strength
        module.apply_to()
        layer.lycoris = module
        adapted[one.key] = layer
    return _with(base, adapted)


def by_peft(base: Base, layers: Sequence[Adapted]) -> Tensor | None:
    """Through the layers that PEFT puts into a copy of the denoiser."""
    import peft  # noqa: PLC0415 - takes seconds

    algorithm = layers[0].algorithm
    if algorithm.name not in _CONFIGS or any(one.key[0].startswith("text_encoder") for one in layers):
        return None
    kind, options = _CONFIGS[algorithm.name]
    config = getattr(peft, kind)(**options, target_modules=[one.key[1] for one in layers], **_initial(kind))
    component = layers[0].key[0]
    model = copy.deepcopy(getattr(base.pipe, component))
    try:
        peft.inject_adapter_in_model(config, model)
        tensors = {f"{one.key[1]}.{PEFT.get(name, name)}": part for one in layers for name, part in one.parts.items()}
        said = peft.set_peft_model_state_dict(model, tensors)
    except (RuntimeError, TypeError, ValueError):
        return None
    assert not said.unexpected_keys, said.unexpected_keys
    return _in_place_of(base, component, model.eval())


def _initial(kind: str) -> dict[str, Any]:
    return {"init_weights": False} if kind in ("LoHaConfig", "LoKrConfig") else {}


def _with(base: Base, adapted: Mapping[tuple[str, str], nn.Module]) -> Tensor:
    """The output with other modules in these places."""
    parents = {}
    for (component, path), module in adapted.items():
        above, _, name = path.rpartition(".")
        parent = getattr(base.pipe, component).get_submodule(above)
        parents[component, path] = (parent, name, getattr(parent, name))
        setattr(parent, name, module)
    try:
        return output_of(base)
    finally:
        for parent, name, module in parents.values():
            setattr(parent, name, module)


def _in_place_of(base: Base, component: str, model: nn.Module) -> Tensor:
    own = getattr(base.pipe, component)
    setattr(base.pipe, component, model)
    try:
        with torch.no_grad():
            return output_of(base)
    finally:
        setattr(base.pipe, component, own)


#: Column of the matrix → whose files they are, and how the owner applies them.
OTHERS: Mapping[str, tuple[str, Callable[[Base, Sequence[Adapted]], Tensor | None]]] = {
    "LyCORIS": ("lycoris", by_lycoris),
    "PEFT": ("peft", by_peft),
}
