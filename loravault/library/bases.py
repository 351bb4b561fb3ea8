"""Base models on disk: which diffusers folders there are and what family each is, from its small JSON files alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from loravault.formats.families import UNET_WIDTHS
from loravault.formats.generation import BaseRef
from loravault.vault.walk import is_text

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
    path = os.path.join(base.path, "vocabulary.json")
    try:
        status = os.stat(path)
    except OSError:
        return None
    return _vocabulary(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _vocabulary(path: str, _size: int, _mtime_ns: int) -> frozenset[str] | None:
    """The words in this file, read once per version of it: every block of every note asks."""
    data = _read_json(Path(path))
    words = data.get("words") if data is not None else None
    if not isinstance(words, list):
        return None
    return frozenset(str(word).lower() for word in words)


def _candidates(folder: Path) -> Iterable[Path]:
    if _is_base(folder):
        yield folder
        return
    for child in _folders(folder):
        if _is_base(child):
            yield child
        else:
            yield from filter(_is_base, _folders(child))


# os.path.isfile and isdir, because those of Path raise for what may not be looked at: that costs itself, not the rest.


def _is_base(folder: Path) -> bool:
    return os.path.isfile(folder / "model_index.json")


def _folders(folder: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    shown = (folder / name for name in names if not name.startswith(".") and is_text(name))
    return [child for child in shown if os.path.isdir(child)]


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(_JSON_LIMIT))
    except (OSError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None
