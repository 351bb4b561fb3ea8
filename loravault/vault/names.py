"""Names of files we create: NFC, legal on every platform, unmistakable in a vault."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container
from datetime import datetime

MAX_STEM_BYTES = 180  # leaves room for suffixes and for the temp prefix under the usual limit of 255
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*#^\[\]%]+')
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$", *(f"com{i}" for i in range(10)), *(f"lpt{i}" for i in range(10))}
)


def name_key(name: str) -> str:
    """What two names share if a file system may hold them for the same: NFC, no difference of case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def safe_file_name(text: str, fallback: str = "unnamed") -> str:
    """A file name stem from any text: NFC, no character or name that Windows, Obsidian links or sync tools refuse.

    Never empty, never starting with a dot, at most 180 bytes.
    """
    name = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode("utf-8"))
    name = "".join(" " if c.isspace() else c for c in name if c.isspace() or unicodedata.category(c) not in _UNSEEN)
    name = _FORBIDDEN.sub(" ", name)
    name = re.sub(r" {2,}", " ", name)
    name = _shorten(name.strip(" .")).strip(" .")
    if not name:
        return fallback
    if name.split(".")[0].strip().casefold() in _DEVICES:
        return "_" + name
    return name


_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})


def unique_name(stem: str, suffix: str, taken: Container[str], marker: str = "") -> str:
    """`stem + suffix`, made unique. `taken` holds names as they are or as `name_key` gives them.

    With a `marker` such as `LoRA` the first way out is `Ghibli (LoRA).md`. Numbers are joined by a dash: names that
    end in ` 2` or ` (1)` are what sync tools give to conflict copies.
    """
    stem = unicodedata.normalize("NFC", stem)
    candidates = [stem, f"{stem} ({marker})"] if marker else [stem]
    for candidate in candidates:
        if not _is_taken(candidate + suffix, taken):
            return candidate + suffix
    number = 2
    while _is_taken(f"{candidates[-1]}-{number}{suffix}", taken):
        number += 1
    return f"{candidates[-1]}-{number}{suffix}"


def image_stem(when: datetime, job: str) -> str:
    """`lv-<yyyymmdd-hhmmss>-<job>`: unique in the vault because job ids are."""
    return f"lv-{when:%Y%m%d-%H%M%S}-{job.split('@', 1)[0]}"


def image_name(when: datetime, job: str, n: int, ext: str) -> str:
    """The name of the `n`-th picture (from 1) of a job, for example `lv-20261120-181503-3fa81c20-1.webp`."""
    return f"{image_stem(when, job)}-{n}.{ext.lstrip('.')}"


def _is_taken(name: str, taken: Container[str]) -> bool:
    return name in taken or name_key(name) in taken


def _shorten(name: str) -> str:
    data = name.encode()
    return name if len(data) <= MAX_STEM_BYTES else data[:MAX_STEM_BYTES].decode("utf-8", "ignore")
