"""Options for each family where nobody says otherwise, and the limits of what may be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

MAX_PROMPT_CHARACTERS = 20_000
MIN_SIDE, MAX_SIDE = 64, 4096
MAX_PIXELS = 2048 * 2048
SIDE_STEP = 8
MAX_STEPS = 1000
MAX_CFG = 100.0
MAX_ADAPTERS = 32
#: More than these usually disturb each other.
MANY_ADAPTERS = 3
#: Beyond this a weight is surely a slip of the finger.
MAX_WEIGHT = 100.0
#: Beyond these a picture usually burns: one weight, and all together.
HIGH_WEIGHT = 3.0
HIGH_WEIGHT_SUM = 3.0

#: Layers of the text encoder that `clip_skip` counts, by family.
CLIP_LAYERS: Mapping[str, int] = MappingProxyType({"demo": 2, "sd15": 12, "sd2": 23, "sdxl": 12, "sd3": 12})
#: The side of the pictures a family was trained on, in pixels.
NATIVE_SIDE: Mapping[str, int] = MappingProxyType({
    "demo": 128, "sd15": 512, "sd2": 768, "sdxl": 1024, "sd3": 1024, "flux": 1024, "flux2": 1024, "chroma": 1024,
    "z-image": 1024, "qwen-image": 1328,
})  # fmt: skip

_COMMON: Mapping[str, Any] = {
    "negative": "",
    "count": 1,
    "steps": 25,
    "cfg": 7.0,
    "clip_skip": 1,
    "triggers": "auto",
    "format": "webp",
    "missing_loras": "fail",
}
_OWN: Mapping[str, Mapping[str, Any]] = {
    "demo": {"size": "128x128", "cfg": 5.0, "sampler": "DPM++ 2M"},
    "sd15": {"size": "512x512", "sampler": "DPM++ 2M Karras"},
    "sd2": {"size": "768x768", "sampler": "DPM++ 2M Karras"},
    "sdxl": {"size": "1024x1024", "sampler": "DPM++ 2M Karras"},
    "sd3": {"size": "1024x1024", "sampler": "Euler", "steps": 28, "cfg": 4.5},
    "flux": {"size": "1024x1024", "sampler": "Euler", "steps": 28, "cfg": 3.5},
    "flux2": {"size": "1024x1024", "sampler": "Euler", "steps": 28, "cfg": 4.0},
    "chroma": {"size": "1024x1024", "sampler": "Euler", "steps": 28, "cfg": 4.0},
    "z-image": {"size": "1024x1024", "sampler": "Euler", "steps": 28, "cfg": 5.0},
    "qwen-image": {"size": "1328x1328", "sampler": "Euler", "steps": 30, "cfg": 4.0},
}
#: What variants of a family that were trained for other settings want.
_VARIANTS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("flux", "schnell"): {"steps": 4, "cfg": 1.0},
    ("flux2", "klein-4b"): {"steps": 4, "cfg": 1.0},
    ("flux2", "klein-9b"): {"steps": 4, "cfg": 1.0},
    ("z-image", "turbo"): {"steps": 9, "cfg": 1.0},
}
_OTHERS: Mapping[str, Any] = {"size": "512x512", "sampler": "Euler"}


def family_defaults(family: str, variant: str | None = None) -> Mapping[str, Any]:
    """Every option but `base`, `loras`, `vae`, `seed` and `again`, as it would stand in a note."""
    return MappingProxyType({**_COMMON, **_OWN.get(family, _OTHERS), **_VARIANTS.get((family, variant or ""), {})})
