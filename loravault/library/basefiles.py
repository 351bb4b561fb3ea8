"""What a folder or file is that may be a base: its family and variant, or why it cannot be used. Reads no tensor."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from loravault.formats.checkpoints import Checkpoint, classify
from loravault.formats.families import UNET_WIDTHS
from loravault.formats.families.index import FAMILIES
from loravault.formats.families.told import fold
from loravault.formats.safetensors_header import read_header
from loravault.formats.tensor_table import BrokenFile
from loravault.vault.walk import is_text

#: Pipelines that the engine draws with → family; None: the width of the UNet decides.
PIPELINES: Mapping[str, str | None] = {
    "StableDiffusionPipeline": None,
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux",
    "ChromaPipeline": "chroma",
    "Flux2KleinPipeline": "flux2",
    "ZImagePipeline": "z-image",
    "QwenImagePipeline": "qwen-image",
}
_PICKLES = (".ckpt", ".pt", ".pth")
#: A model_index.json or config.json is a few kilobytes; more is not one.
_JSON_LIMIT = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A folder or file that is, or looks like, a base or a part of one."""

    name: str
    path: str
    #: `folder`, `file`, `pickle`, `vae`, `encoder`.
    kind: str
    family: str | None = None
    variant: str | None = None
    bytes: int = 0
    #: For a file: which parts it holds, and as what it can serve others.
    parts: frozenset[str] = frozenset()
    role: str | None = None
    #: Why it cannot be used, in words that fit after its name and a colon.
    problem: str | None = None
    #: Whether that is because it is damaged.
    broken: bool = False


def see_folder(folder: Path, name: str | None = None) -> Seen | None:
    """A diffusers folder, or a VAE as diffusers keeps one; None for any other folder."""
    named = name or folder.name
    index = read_json(folder / "model_index.json")
    if index is None:
        config = read_json(folder / "config.json") or {}
        if str(config.get("_class_name", "")).startswith("Autoencoder"):
            channels = config.get("latent_channels", config.get("z_dim"))
            return Seen(name=named, path=str(folder), kind="vae", role=f"vae-{channels}", bytes=_size(folder))
        if os.path.isfile(folder / "model_index.json"):
            return Seen(name=named, path=str(folder), kind="folder", problem="its model_index.json cannot be read")
        return None
    pipeline = str(index.get("_class_name"))
    found = Seen(name=named, path=str(folder), kind="folder", bytes=_size(folder))
    if pipeline not in PIPELINES:
        return replace(found, problem=f"its pipeline {pipeline[:60]} is not drawn with")
    family = PIPELINES[pipeline]
    if family is None:
        unet = read_json(folder / "unet" / "config.json")
        width = (unet or {}).get("cross_attention_dim")
        family = UNET_WIDTHS.get(width) if isinstance(width, int) else None
        if family is None:
            why = "its folder unet is missing" if unet is None else "its UNet is of no family that is known here"
            return replace(found, problem=why)
    return replace(found, family=family, variant=_folder_variant(folder, family, named))


def see_file(path: Path) -> Seen:
    """A `.safetensors` file, or a pickle by its name."""
    status = os.stat(path)
    name = path.name.rpartition(".")[0]
    found = Seen(name=name, path=str(path), kind="file", bytes=status.st_size)
    if path.suffix.lower() in _PICKLES:
        words = "it is a pickle, which is never opened because it can run programs; get it as .safetensors"
        return replace(found, kind="pickle", problem=words)
    read = _classified(str(path), status.st_size, status.st_mtime_ns)
    if isinstance(read, str):
        return replace(found, problem=read, broken=True)
    kind = {"vae": "vae", "encoder": "encoder"}.get(read.kind, "file")
    variant = read.variant or (_named_variant(read.family, name) if read.family else None)
    return replace(
        found, kind=kind, family=read.family, variant=variant, parts=read.parts, role=read.role, problem=read.problem
    )


def is_base_file(name: str) -> bool:
    """Whether a file of this name is looked at."""
    return name.lower().endswith((".safetensors", *_PICKLES)) and not name.startswith(".")


@lru_cache(maxsize=1024)
def _classified(path: str, _size: int, _mtime_ns: int) -> Checkpoint | str:
    """What a file is, or why it cannot be read; looked into once per version of it."""
    try:
        return classify(read_header(path))
    except BrokenFile as error:
        return error.message
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"


def _folder_variant(folder: Path, family: str, name: str) -> str | None:
    """By the configuration where it differs, else by the name."""
    config = read_json(folder / "transformer" / "config.json") or {}
    if family == "flux" and "guidance_embeds" in config and not config["guidance_embeds"]:
        return "schnell"
    if family == "sd3" and config:
        large = "3.5-large" if config.get("num_layers") == 38 else "medium"
        return "3.5-medium" if config.get("dual_attention_layers") else large
    if family in ("sd2", "sdxl"):
        scheduler = read_json(folder / "scheduler" / "scheduler_config.json") or {}
        if scheduler.get("prediction_type") == "v_prediction":
            return "v-prediction"
    return _named_variant(family, name)


def _named_variant(family: str, name: str) -> str | None:
    table = FAMILIES.get(family)
    folded = fold(name)
    return next((variant for word, variant in table.variants.items() if word in folded), None) if table else None


def _size(folder: Path) -> int:
    """Bytes of the weights in a diffusers folder."""
    total = 0
    for place in (folder, *listed_folders(folder)):
        for name in _names(place):
            if name.endswith((".safetensors", ".bin")):
                try:
                    total += os.stat(place / name).st_size
                except OSError:
                    continue
    return total


def last_changes(place: str, depth: int = 3) -> Iterator[tuple[str, float]]:
    """Name and mtime (seconds) of a base file, or of what is in a folder and below; what cannot be looked at is not
    told. A file that is being copied is new until it is whole, whatever its copier sets then."""
    for entry in sorted(_entries(place), key=lambda one: one.name):
        try:
            yield entry.name, entry.stat().st_mtime
            inside = depth and entry.is_dir()
        except OSError:  # gone since it was listed
            continue
        if inside:
            yield from ((entry.name, changed) for _, changed in last_changes(entry.path, depth - 1))
    with contextlib.suppress(OSError):
        yield os.path.basename(place), os.stat(place).st_mtime


def _entries(place: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as entries:
            return list(entries)
    except OSError:
        return []


# os.path.isfile and isdir, because those of Path raise for what may not be looked at: that costs itself, not the rest.


def listed_folders(folder: Path) -> list[Path]:
    """The folders in a folder, by name, without hidden ones."""
    return [child for name in _names(folder) if os.path.isdir(child := folder / name)]


def listed_files(folder: Path) -> list[Path]:
    """The files in a folder that may be a base or a part of one, by name."""
    return [file for name in _names(folder) if is_base_file(name) and os.path.isfile(file := folder / name)]


def _names(folder: Path) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [name for name in names if not name.startswith(".") and is_text(name)]


def read_json(path: Path) -> dict[str, Any] | None:
    """An object from a small file; None for anything else."""
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(_JSON_LIMIT))
    except (OSError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None
