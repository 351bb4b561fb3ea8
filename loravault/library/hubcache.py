"""Bases that were fetched from the Hub: found by their id in its cache. `hubfetch` is what fetches."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from loravault.formats.generation import BaseRef
from loravault.library.bases import read_base

#: How the Hub names what it has; a path would begin with a dot or a slash.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def is_hub_id(name: str) -> bool:
    """Whether a base is named as the Hub does it: `owner/name`."""
    return _HUB_ID.fullmatch(name) is not None


def fetched_base(name: str, env: Mapping[str, str]) -> BaseRef | None:
    """The base of this id, if its diffusers folder lies in the Hub's cache on this machine."""
    if not is_hub_id(name):
        return None
    repository = _cache(env) / f"models--{name.replace('/', '--')}"
    for revision in _revisions(repository):
        found = read_base(repository / "snapshots" / revision, name)
        if found is not None:
            return found
    return None


def _cache(env: Mapping[str, str]) -> Path:
    """Where huggingface_hub keeps what it fetched, by its own rules."""
    if chosen := env.get("HF_HUB_CACHE"):
        return Path(chosen).expanduser()
    home = env.get("HF_HOME") or os.path.join(env.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(home).expanduser() / "hub"


def _revisions(repository: Path) -> list[str]:
    """What `main` stands for first, then the others, the newest name last."""
    try:
        others = sorted(os.listdir(repository / "snapshots"))
    except OSError:
        return []
    try:
        main = (repository / "refs" / "main").read_text("ascii").strip()
    except (OSError, ValueError):
        return others
    return [main, *others] if main in others else others
