"""Which file or folder on this machine has the parts that a single-file base lacks. Pure: from what was seen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from loravault.library.basefiles import Seen

#: Family → the parts its pipeline needs → what can serve as each. Tokenizers come with loravault.
_NEEDS: Mapping[str, Mapping[str, str]] = {
    "sd15": {"vae": "vae-sd15", "text_encoder": "clip-l"},
    "sd2": {"vae": "vae-sd15", "text_encoder": "open-clip-h"},
    "sdxl": {"vae": "vae-sdxl", "text_encoder": "clip-l", "text_encoder_2": "clip-g"},
    "sd3": {"vae": "vae-sd3", "text_encoder": "clip-l", "text_encoder_2": "clip-g", "text_encoder_3": "t5-xxl"},
    "flux": {"vae": "vae-flux", "text_encoder": "clip-l", "text_encoder_2": "t5-xxl"},
    "chroma": {"vae": "vae-flux", "text_encoder": "t5-xxl"},
}
#: What a pipeline draws without.
_OPTIONAL = {("sd3", "text_encoder_3")}
#: What a diffusers folder of one family has for those of others.
_SHARED: Mapping[tuple[str, str], str] = {
    ("flux", "text_encoder"): "clip-l",
    ("flux", "text_encoder_2"): "t5-xxl",
    ("flux", "vae"): "vae-flux",
    ("chroma", "text_encoder"): "t5-xxl",
    ("chroma", "vae"): "vae-flux",
    ("sd3", "text_encoder_3"): "t5-xxl",
}
_TITLES: Mapping[str, str] = {
    "vae-sd15": "a VAE of Stable Diffusion (vae-ft-mse-840000.safetensors)",
    "vae-sdxl": "a VAE of SDXL (sdxl_vae.safetensors)",
    "vae-sd3": "the VAE of Stable Diffusion 3 (sd3_vae.safetensors)",
    "vae-flux": "the VAE of Flux.1 (ae.safetensors)",
    "clip-l": "CLIP-L (clip_l.safetensors)",
    "clip-g": "CLIP-G (clip_g.safetensors)",
    "open-clip-h": "the text encoder of Stable Diffusion 2",
    "t5-xxl": "T5 (t5xxl_fp16.safetensors)",
}

#: Role → path of a file, or of a folder as diffusers keeps one part.
Providers = Mapping[str, str]


def role_of_vae(seen: Seen) -> str | None:
    """Which family's VAE a file is: shapes tell only their channels, names the rest."""
    name = re.sub(r"[\W_]+", "", seen.name.casefold())
    if seen.role == "vae-4":
        return "vae-sdxl" if "xl" in name else "vae-sd15"
    if seen.role == "vae-16":
        return "vae-sd3" if "sd3" in name else "vae-flux"
    return None


def providers(everything: Iterable[Seen], has: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What serves as what; the first that is found wins, those made for it before those that also fit.

    `has`: path of a diffusers folder → names of the folders in it.
    """
    found: dict[str, str] = {}
    for seen in everything:
        if seen.problem:
            continue
        role = role_of_vae(seen) if seen.kind == "vae" else seen.role if seen.kind == "encoder" else None
        if role:
            found.setdefault(role, seen.path)
        for part in has.get(seen.path, ()) if seen.kind == "folder" else ():
            path = f"{seen.path}/{part}"
            found.setdefault(f"{seen.family}:{part}", path)
            if shared := _SHARED.get((str(seen.family), part)):
                found.setdefault(shared, path)
    return found


def completed(seen: Seen, available: Providers) -> tuple[tuple[tuple[str, str], ...], str | None]:
    """(part, path) of what a file lacks, and what is nowhere, in words; None if it is whole."""
    needs = _NEEDS.get(str(seen.family), {})
    places: list[tuple[str, str]] = []
    missing: list[str] = []
    for part, role in needs.items():
        if part in seen.parts:
            continue
        path = available.get(f"{seen.family}:{part}") or available.get(role)
        if path:
            places.append((part, path))
        elif (seen.family, part) not in _OPTIONAL:
            missing.append(_TITLES[role])
    if not missing:
        return tuple(places), None
    listed = missing[0] if len(missing) == 1 else f"{', '.join(missing[:-1])} and {missing[-1]}"
    return tuple(places), f"it does not hold everything: put {listed} into one of the folders with bases"
