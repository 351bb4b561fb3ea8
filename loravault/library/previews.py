"""Which picture stands for an adapter, told by first bytes and never by endings. No pixel is decoded here."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from loravault.formats.pictures import HEAD, STILLS, VIDEOS, media_kind
from loravault.library.beside import MEDIA_ENDING, PICTURE_SUFFIXES, VIDEO_SUFFIXES, ending_of
from loravault.library.exportmark import is_exported
from loravault.library.facts import AdapterFacts

#: Pictures of one adapter that are looked at.
MAX_MEDIA = 48
_MARKS = {".preview": 0, "": 1, ".thumb": 2}
_EXAMPLES = 3
_SUFFIXES = {suffix: place for place, suffix in enumerate((*PICTURE_SUFFIXES, *VIDEO_SUFFIXES))}
# What may not be readable on every machine comes after what is.
_LAST_KINDS = frozenset({"jxl", "heic", "avif"})


@dataclass(frozen=True)
class Media:
    """Pictures and videos beside an adapter, the preferred first, as names in its folder."""

    stills: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preview:
    """The picture that stands for an adapter: a file, or an entry of its metadata."""

    #: Path inside the root; None if it is embedded.
    rel: str | None = None
    #: Metadata entry; None if it is a file.
    key: str | None = None


def media_beside(folder: Path, adapter: str, beside: Iterable[str]) -> Media:
    """The pictures among what belongs to an adapter: `.preview.*`, then the plain name, `.thumb.*`, `.example.N.*`."""
    ranked = sorted((place, name) for name in beside if (place := _place(ending_of(name, adapter))) is not None)
    kinds = [(name, _kind_of(folder / name)) for _, name in ranked[:MAX_MEDIA]]  # what we exported has none
    stills = [(name, kind) for name, kind in kinds if kind in STILLS]
    stills.sort(key=lambda item: item[1] in _LAST_KINDS)
    return Media(tuple(name for name, _ in stills), tuple(name for name, kind in kinds if kind in VIDEOS))


def _place(ending: str) -> tuple[int, int, int] | None:
    """Where a file stands in the order; None if its name is not that of a picture."""
    match = MEDIA_ENDING.fullmatch(ending)
    if match is None:
        return None
    example = int(match[1].rpartition(".")[2]) if match[1].startswith(".example.") else 0
    return _MARKS.get(match[1], _EXAMPLES), example, _SUFFIXES[match[2]]


def _kind_of(path: Path) -> str | None:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a named pipe would wait for ever
            return None
        with open(path, "rb", buffering=0) as file:
            head = file.read(HEAD)
            return None if is_exported(head) else media_kind(head)
    except OSError:
        return None


def preview_of(facts: AdapterFacts) -> Preview | None:
    """The still picture to show: a file beside the adapter, else the one embedded in it."""
    if facts.stills:
        return Preview(rel=facts.stills[0])
    return Preview(key=facts.embedded_preview) if facts.embedded_preview else None
