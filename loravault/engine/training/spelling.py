"""From what was trained, layer by layer of diffusers, to the tensors of a file, under the names that others read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from loravault.engine.bases import ModuleKey
from loravault.engine.training.networks import ModuleTensors
from loravault.formats.normal import LayerKey, Place, Shape, kohya_spellings
from loravault.formats.training import Naming

#: Parts that kohya keeps as modules with a weight of their own.
_WITH_WEIGHT = frozenset({"lora_down", "lora_up", "lora_mid"})
_PEFT = {"lora_down": "lora_A", "lora_up": "lora_B"}
#: Parts whose small differences are the whole change: never rounded to the precision of the file.
_EXACT = frozenset({"dora_scale", "on_input"})

#: Algorithm → (part with the rows of the layer, part with its columns) of each product; alpha counts with the first.
_PAIRS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "lora": (("lora_up", "lora_down"),),
    "loha": (("hada_w1_a", "hada_w1_b"), ("hada_w2_a", "hada_w2_b")),
}


@dataclass(frozen=True)
class Spelled:
    """What a file will hold, in fp32."""

    tensors: Mapping[str, Tensor]
    #: Names of tensors that stay fp32 whatever the file's precision.
    exact: frozenset[str]
    #: As it was wished, or as it had to be.
    naming: Naming
    #: What a person should know, in sentences.
    remarks: tuple[str, ...] = ()


def spell(
    trained: Mapping[ModuleKey, ModuleTensors], layers: Mapping[LayerKey, Shape], family: str, naming: Naming
) -> Spelled:
    """The tensors of a file. `layers`: every layer of the base; `family`: as its transformer's layers are named."""
    remarks: tuple[str, ...] = ()
    if naming == "diffusers":
        if all(one.algorithm == "lora" and "dora_scale" not in one.parts for one in trained.values()):
            return Spelled(_diffusers(trained), frozenset(), naming)
        remarks = ("Only a plain LoRA can be written in the names of diffusers; this file has kohya's.",)
    if any("dora_scale" in one.parts for one in trained.values()):
        remarks += ("DoRA is not read by diffusers, which leaves its lengths out; the large programs read this form.",)
    # q, k and v of a transformer are one layer to everybody else. What cannot be made one stands apart.
    fused = all(_fusible(one) for one in trained.values())
    tensors: dict[str, Tensor] = {}
    exact: set[str] = set()
    for spelling in kohya_spellings(layers, family, fused=fused):
        merged = _joined(trained, spelling.places, layers)
        for part, tensor in merged.parts.items() if merged is not None else ():
            name = f"{spelling.name}.{part}.weight" if part in _WITH_WEIGHT else f"{spelling.name}.{part}"
            tensors[name] = tensor
            exact |= {name} if part in _EXACT else set()
        if merged is not None and merged.alpha is not None:
            # Also in a file of half precision: eleven bits of 27.71 would be another strength.
            tensors[f"{spelling.name}.alpha"] = torch.tensor(merged.alpha, dtype=torch.float32)
            exact.add(f"{spelling.name}.alpha")
    return Spelled(tensors, frozenset(exact), "kohya", remarks)


def _diffusers(trained: Mapping[ModuleKey, ModuleTensors]) -> dict[str, Tensor]:
    """PEFT's names and no alpha: it is in the second matrix, so that whoever takes it for the rank is right."""
    tensors = {}
    for (component, path), one in trained.items():
        for part, tensor in one.parts.items():
            folded = tensor * _scale(one) if part == "lora_up" else tensor
            tensors[f"{component}.{path}.{_PEFT[part]}.weight"] = folded
    return tensors


def _fusible(one: ModuleTensors) -> bool:
    """Whether several of its kind are one of its kind: not lengths of inputs, nor Kronecker products."""
    return one.algorithm in ("lora", "loha", "ia3") and "dora_scale" not in one.parts


def _scale(one: ModuleTensors) -> float:
    return 1.0 if one.alpha is None else one.alpha / _rank(one)


def _joined(
    trained: Mapping[ModuleKey, ModuleTensors], places: Sequence[Place], layers: Mapping[LayerKey, Shape]
) -> ModuleTensors | None:
    """The tensors of one layer of the file, from those of the layers that it is in this base; None if it has none."""
    keys = list(dict.fromkeys((place.component, place.module) for place in places))
    members = {key: trained[key] for key in keys if key in trained}
    if not members:
        return None
    first = next(iter(members.values()))
    if len(keys) == 1 and all(place.rows is None for place in places):
        return first
    rows = _Rows(places, layers)
    if first.algorithm == "ia3":
        if all(float(one.parts["on_input"]) for one in members.values()):
            return first
        weights = {key: one.parts["weight"][:, None] for key, one in members.items()}
        return replace(first, parts={"weight": rows.stacked(weights).sum(1), "on_input": first.parts["on_input"]})
    scale = _scale(first)
    rank = sum(map(_rank, members.values()))
    pairs = _PAIRS[first.algorithm]
    parts: dict[str, Tensor] = {}
    for up, down in pairs:
        parts[down] = torch.cat([one.parts[down] for one in members.values()])
        ups = {key: one.parts[up] for key, one in members.items()}
        if up == pairs[0][0]:  # layers of one fused layer have one rank and one alpha; if not, the strength is here
            ups = {key: ups[key] * (_scale(one) / scale) for key, one in members.items()}
        parts[up] = rows.stacked(ups)
    return ModuleTensors(first.algorithm, (rows.count, *first.shape[1:]), parts, scale * rank)


def _rank(one: ModuleTensors) -> int:
    return one.parts[_PAIRS[one.algorithm][0][1]].shape[0]


class _Rows:
    """Which rows of a layer in a file are which rows of the layers in the base."""

    def __init__(self, places: Sequence[Place], layers: Mapping[LayerKey, Shape]) -> None:
        self._spans: list[tuple[LayerKey, int, int]] = []
        for place in places:
            key = (place.component, place.module)
            first, last = place.rows or (0, layers[key][0])
            self._spans.append((key, first, last))
        self.count = sum(last - first for _, first, last in self._spans)

    def stacked(self, ups: Mapping[LayerKey, Tensor]) -> Tensor:
        """One matrix: each layer's rows in their place, each layer's ranks in columns of their own, else zeros."""
        columns, begin = {}, 0
        for key, up in ups.items():
            columns[key] = slice(begin, begin + up.shape[1])
            begin += up.shape[1]
        whole = torch.zeros(self.count, begin)
        at = 0
        for key, first, last in self._spans:
            if key in ups:
                whole[at : at + last - first, columns[key]] = ups[key][first:last]
            at += last - first
        return whole
