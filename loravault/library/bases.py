"""Base models on disk: which diffusers folders there are and what family each is, from its small JSON files alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from loravault.formats.families import UNET_WIDTHS
from loravault.formats.generation import BaseRef

#: What the engine can build, by the class that the folder's `model_index.json` names.
SUPPORTED_PIPELINES = ("StableDiffusionPipeline",)

#: Families that the engine can build.
SUPPORTED_FAMILIES = ("demo", "sd15")

#: A model_index.json or config.json is a few kilobytes; more is not one.
_JSON_LIMIT = 1 << 20


def read_base(folder: Path, name: str | None = None) -> BaseRef | None:
    """The base in this folder, or None when there is none that the engine can build."""
    index = _read_json(folder / "model_index.json")
    if index is None or index.get("_class_name") not in SUPPORTED_PIPELINES:
        return None
    unet = _read_json(folder / "unet" / "config.json") or {}
    width = unet.get("cross_attention_dim")
    family = UNET_WIDTHS.get(width) if isinstance(width, int) else None
    if family not in SUPPORTED_FAMILIES:
        return None
    return BaseRef(name=name or folder.name, path=str(folder), family=family)


def list_bases(folders: Iterable[Path], demo: Path | None) -> list[BaseRef]:
    """Every base in these folders (each is a base itself or holds some, two levels deep), and the demo base last.

    The first of two of the same name wins: the order of the folders is the user's order.
    """
    found: dict[str, BaseRef] = {}
    for folder in folders:
        for candidate in _candidates(folder):
            base = read_base(candidate)
            if base is not None:
                found.setdefault(base.name, base)
    if demo is not None:
        base = read_base(demo, "demo")
        if base is not None:
            found.setdefault("demo", base)
    return list(found.values())


def vocabulary(base: BaseRef) -> frozenset[str] | None:
    """The words a base knows, if it says so (`vocabulary.json` beside its index); None means: no limit known."""
    data = _read_json(Path(base.path) / "vocabulary.json")
    words = data.get("words") if data is not None else None
    if not isinstance(words, list):
        return None
    return frozenset(str(word).lower() for word in words)


def _candidates(folder: Path) -> Iterable[Path]:
    if (folder / "model_index.json").is_file():
        yield folder
        return
    for child in _folders(folder):
        if (child / "model_index.json").is_file():
            yield child
        else:
            yield from (grandchild for grandchild in _folders(child) if (grandchild / "model_index.json").is_file())


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    except OSError:
        return []


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(_JSON_LIMIT))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None
