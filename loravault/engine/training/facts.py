"""What a device can do, as far as a plan depends on it, and what earlier trainings took on it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import time
from pathlib import Path

import psutil
import torch

from loravault.engine.devices import Device
from loravault.engine.training.cards import other_cards
from loravault.formats.training_forecast import DeviceFacts

#: Side of the matrices whose product is timed.
_SIDE = {"cpu": 768, "cuda": 4096, "mps": 2048}
#: In the folder of caches: seconds for one picture of one megapixel, by what was trained.
RATES = "training-rates.json"


def device_facts(device: Device) -> DeviceFacts:
    """Everything that `training_plan` asks about. Takes a tenth of a second."""
    place = device.place
    if place.type == "cuda":
        properties = torch.cuda.get_device_properties(place)
        return DeviceFacts(
            kind="cuda",
            name=properties.name,
            bytes=int(properties.total_memory),
            bf16=torch.cuda.is_bf16_supported(including_emulation=False),
            speed=_speed(place, torch.float16),
            has_8bit=importlib.util.find_spec("bitsandbytes") is not None,
            has_nf4=True,
            cards=1 + len(other_cards(device)),
        )
    memory = psutil.virtual_memory().total
    if place.type == "mps":
        return DeviceFacts(kind="mps", name="Apple GPU", bytes=memory, speed=_speed(place, torch.float32), has_nf4=True)
    return DeviceFacts(
        kind="cpu",
        name=device.name,
        bytes=memory,
        bf16=computes_bf16(),
        speed=_speed(place, torch.float32),
        has_nf4=True,
        cards=1 + len(other_cards(device)),
    )


def computes_bf16() -> bool:
    """Whether this processor multiplies bfloat16 by itself; where it has to convert, fp32 is faster."""
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


@torch.no_grad()
def _speed(place: torch.device, dtype: torch.dtype) -> float:
    """Multiply-adds a second of one large product: the best of three."""
    side = _SIDE[place.type]
    a, b = (torch.ones(side, side, device=place, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        torch.mm(a, b).sum().item()  # `item` waits for the device
        best = min(best, time.perf_counter() - began)
    return side**3 / best


def learned_rates(cache_dir: Path) -> dict[str, float]:
    """What earlier trainings took; empty if nothing is known."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((cache_dir / RATES).read_text("utf-8"))
        if isinstance(found, dict):
            return {key: value for key, value in found.items() if isinstance(value, float) and value > 0}
    return {}


def remember_rate(cache_dir: Path, key: str, rate: float) -> None:
    """For the forecasts of later trainings. A disk that is full is no reason to fail: nothing is said."""
    with contextlib.suppress(OSError):
        cache_dir.mkdir(parents=True, exist_ok=True)
        temp = cache_dir / f".{RATES}.{os.getpid()}.tmp"
        temp.write_text(json.dumps({**learned_rates(cache_dir), key: rate}, indent=1, sort_keys=True), "utf-8")
        os.replace(temp, cache_dir / RATES)
