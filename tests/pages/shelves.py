"""Adapters and pictures for tests of the galleries."""

from __future__ import annotations

import hashlib
from typing import Any

from loravault.library.entry import Entry, Place
from loravault.pages.galleries import View

VIEW = View("LoraVault", "My Vault")


def weight_id(name: str) -> str:
    return "w1-" + hashlib.blake2b(name.encode(), digest_size=8).hexdigest()


def entry(name: str, category: str = "", **changes: Any) -> Entry:
    rel = f"{category}/{name}.safetensors".lstrip("/")
    values: dict[str, Any] = {
        "weight_id": weight_id(f"{category}/{name}"),
        "name": name,
        "places": (Place("loras", rel, "ok", 1000, 10**18),),
        "state": "ok",
        "family": "sdxl",
        "variant": None,
        "network": "lora",
        "rank": 16,
        "alpha": None,
        "title": None,
        "trigger_words": (),
        "card": f"LoraVault/LoRAs/{category}/{name}.md".replace("//", "/"),
        "cover": f"[[LoraVault/Images/Covers/lv-cover-{name}.webp]]",
    }
    return Entry(**{**values, **changes})


def picture(number: int, month: int = 11) -> str:
    """The path of the n-th picture: later ones have higher numbers."""
    day, rest = number // 1000 + 1, number % 1000
    name = f"lv-2026{month:02d}{day:02d}-{rest // 60:02d}{rest % 60:02d}07-3fa8{number:04x}-1.webp"
    return f"LoraVault/Images/2026-{month:02d}/{name}"
