"""The samplers we make pictures with, by the names A1111 gives them, and the nearest one to a name we do not have.

A name is never silently replaced by another: pictures would differ and nobody would know why.
"""

from __future__ import annotations

import difflib
import re

#: Canonical names, the plainest first.
SAMPLERS: tuple[str, ...] = ("Euler", "Euler a", "DPM++ 2M", "DPM++ 2M Karras", "DDIM", "UniPC")

#: Of these, the ones for flow models (SD3, Flux, Z-Image, Qwen-Image, …).
FLOW_SAMPLERS: tuple[str, ...] = ("Euler",)
#: Families of flow models that are drawn with.
FLOW_FAMILIES = frozenset({"sd3", "flux", "flux2", "chroma", "z-image", "qwen-image"})

# Other spellings, already folded by `_fold`. The `k_` names are the API aliases of A1111, the `…ancestral`, `dpmpp` and
# `uni_pc` ones those of ComfyUI, the class names those of diffusers.
_ALIASES: dict[str, str] = {
    "eulera": "Euler a",
    "eulerancestral": "Euler a",
    "eulerancestraldiscrete": "Euler a",
    "euler": "Euler",
    "eulerdiscrete": "Euler",
    "dpmpp2m": "DPM++ 2M",
    "dpmsolvermultistep": "DPM++ 2M",
    "dpmpp2mkarras": "DPM++ 2M Karras",
    "dpmpp2mka": "DPM++ 2M Karras",
    "dpmpp2mk": "DPM++ 2M Karras",
    "ddim": "DDIM",
    "unipc": "UniPC",
    "unipcbh1": "UniPC",
    "unipcbh2": "UniPC",
    "unipcmultistep": "UniPC",
}

# What a schedule type makes of a sampler; a pair that is not here we do not have.
_PLAIN_SCHEDULES = frozenset({"", "uniform", "normal", "discrete", "default", "none"})
_WITH_KARRAS = {"DPM++ 2M": "DPM++ 2M Karras", "DPM++ 2M Karras": "DPM++ 2M Karras"}

# For samplers that people really paste: the one of ours that behaves most like it. Spelling alone would mislead
# (PLMS is one letter from LMS and far from DDIM).
_KIN: dict[str, tuple[str, ...]] = {
    "dpmppsdekarras": ("DPM++ 2M Karras", "Euler a"),
    "dpmppsde": ("DPM++ 2M", "Euler a"),
    "dpmpp2msdekarras": ("DPM++ 2M Karras", "DPM++ 2M"),
    "dpmpp2msde": ("DPM++ 2M", "DPM++ 2M Karras"),
    "dpmpp2msdeheun": ("DPM++ 2M", "DPM++ 2M Karras"),
    "dpmpp3msde": ("DPM++ 2M", "DPM++ 2M Karras"),
    "dpmpp3msdekarras": ("DPM++ 2M Karras", "DPM++ 2M"),
    "dpmpp2sa": ("Euler a", "DPM++ 2M"),
    "dpmpp2sakarras": ("Euler a", "DPM++ 2M Karras"),
    "dpm2": ("DPM++ 2M", "Euler"),
    "dpm2karras": ("DPM++ 2M Karras", "Euler"),
    "dpm2a": ("Euler a",),
    "dpm2akarras": ("Euler a",),
    "dpmfast": ("DPM++ 2M",),
    "dpmadaptive": ("DPM++ 2M",),
    "heun": ("Euler", "DPM++ 2M"),
    "lms": ("Euler", "DPM++ 2M"),
    "lmskarras": ("DPM++ 2M Karras", "Euler"),
    "plms": ("DDIM", "Euler"),
    "pndm": ("DDIM", "Euler"),
    "ddpm": ("Euler a", "DDIM"),
    "deis": ("UniPC", "DPM++ 2M"),
    "lcm": ("Euler a", "Euler"),
    "tcd": ("Euler a", "Euler"),
    "restart": ("Euler", "DPM++ 2M Karras"),
    "eulerkarras": ("Euler", "DPM++ 2M Karras"),
    "eulerakarras": ("Euler a", "DPM++ 2M Karras"),
}


def _fold(name: str) -> str:
    """`k_dpmpp_2m` and `DPM++ 2M` as one key: case, blanks and punctuation do not tell samplers apart, `++` does."""
    text = name.strip().casefold().replace("++", "pp").replace("scheduler", "")
    return re.sub(r"[\W_]+", "", text.removeprefix("k_"))


def canonical(name: str, schedule_type: str | None = None) -> str | None:
    """The canonical name for what A1111 writes as `Sampler` and (since 1.9) `Schedule type`; None if we do not have it.

    `Automatic` means what it means there: Karras for `DPM++ 2M`, the plain schedule otherwise.
    """
    found = _ALIASES.get(_fold(name))
    if found is None:
        return None
    schedule = _fold(schedule_type or "")
    if schedule in _PLAIN_SCHEDULES:
        return found
    if schedule == "automatic":
        return _WITH_KARRAS.get(found, found)
    if schedule == "karras":
        return _WITH_KARRAS.get(found)
    return None


def nearest(name: str, limit: int = 3) -> list[str]:
    """The samplers of ours that come closest to a name we do not have, best first; never empty."""
    key = _fold(name)
    if key in _KIN:
        return list(_KIN[key][:limit])
    if key in _ALIASES:
        return [_ALIASES[key]]
    by_fold = {_fold(sampler): sampler for sampler in SAMPLERS}
    close = difflib.get_close_matches(key, by_fold, n=limit, cutoff=0.5)
    return [by_fold[match] for match in close] or ["Euler a", "DPM++ 2M Karras"][:limit]
