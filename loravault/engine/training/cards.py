"""On which other cards a training may compute. Each process sees one card, as the workers do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from loravault.engine.devices import Device

#: The cards that a process sees, as NVIDIA's driver reads it; and all that workers may use, as the daemon says it to a
#: worker that sees its own alone. On a processor the second says how many processes there may be: `cpu,cpu`.
VISIBLE, CARDS = "CUDA_VISIBLE_DEVICES", "LORAVAULT_CARDS"


@dataclass(frozen=True)
class Card:
    """What a process is told so that it takes one card."""

    name: str
    environment: dict[str, str]


def other_cards(device: Device, environment: Mapping[str, str] = os.environ) -> list[Card]:
    """All but the one that `device` is on."""
    place = device.place
    told = _listed(environment.get(CARDS, ""))
    if place.type == "cpu":
        return [Card(f"cpu (process {number})", {}) for number in range(2, 1 + told.count("cpu"))]
    if place.type != "cuda":
        return []
    visible = _listed(environment.get(VISIBLE, "")) or [str(one) for one in range(torch.cuda.device_count())]
    number = place.index or 0
    own = visible[number] if number < len(visible) else ""
    return [Card(f"cuda {one}", {VISIBLE: one}) for one in told or visible if one not in (own, "cpu")]


def _listed(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]
