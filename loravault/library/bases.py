"""Base models on disk: which folders and files there are and what each is, from small files and headers alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from loravault.formats.generation import BaseRef, VaeRef
from loravault.library import basefiles
from loravault.library.basefiles import Seen, listed_files, listed_folders, see_file, see_folder
from loravault.library.baseparts import completed, providers

#: Folders are looked into so deep: a program's folder, a folder for each kind of base in it.
_DEPTH = 2


@dataclass(frozen=True, kw_only=True)
class KnownBase:
    """A base, or what looks like one and cannot be used."""

    name: str
    path: str
    #: `folder`, `file` or `pickle`.
    kind: str
    family: str | None
    variant: str | None
    bytes: int
    #: `ok`, `incomplete`, `broken` or `refused`.
    state: str
    #: Why it is not ok, in words that fit after its name and a colon.
    reason: str | None = None
    #: What a single file lacks → where it is.
    parts: tuple[tuple[str, str], ...] = ()

    @property
    def ref(self) -> BaseRef:
        """As a request names it."""
        return BaseRef(
            name=self.name, path=self.path, family=self.family or "unknown", variant=self.variant, parts=self.parts
        )


@dataclass(frozen=True)
class Shelf:
    """Everything in the base folders, in the user's order; of two of the same name the first that can be used."""

    bases: tuple[KnownBase, ...]
    vaes: tuple[VaeRef, ...] = ()

    @property
    def usable(self) -> list[BaseRef]:
        """The bases that pictures can be made with."""
        return [base.ref for base in self.bases if base.state == "ok"]

    @property
    def reasons(self) -> dict[str, str]:
        """Name → why it cannot be used."""
        return {base.name: base.reason for base in self.bases if base.reason}


def look(folders: Iterable[Path], demo: Path | None) -> Shelf:
    """What is in these folders (each is a base itself or holds some, two levels deep), and the demo base last."""
    seen = list({one.path: one for folder in folders for one in _seen(folder)}.values())
    if demo is not None and (one := see_folder(demo, "demo")) is not None:
        seen.append(one)
    has = {one.path: [child.name for child in listed_folders(Path(one.path))] for one in seen if one.kind == "folder"}
    available = providers(seen, has)
    found: dict[str, KnownBase] = {}
    for one in seen:
        if one.kind in ("folder", "file", "pickle"):
            base = _known(one, *completed(one, available)) if one.kind == "file" else _known(one)
            before = found.get(base.name)
            if before is None or (before.state != "ok" and base.state == "ok"):
                found[base.name] = base
    vaes: dict[str, VaeRef] = {}
    for one in seen:
        if one.kind == "vae" and not one.problem:
            vaes.setdefault(one.name, VaeRef(name=one.name, path=one.path))
    for one in seen:
        if "vae" in has.get(one.path, ()):
            vaes.setdefault(one.name, VaeRef(name=one.name, path=os.path.join(one.path, "vae")))
    return Shelf(tuple(found.values()), tuple(vaes.values()))


def list_bases(folders: Iterable[Path], demo: Path | None) -> list[BaseRef]:
    """Every base in these folders that pictures can be made with."""
    return look(folders, demo).usable


def read_base(folder: Path, name: str | None = None) -> BaseRef | None:
    """The base in this folder, or None when there is none that the engine can build."""
    seen = see_folder(folder, name)
    return None if seen is None or seen.kind != "folder" or seen.problem else _known(seen).ref


def _known(seen: Seen, parts: tuple[tuple[str, str], ...] = (), missing: str | None = None) -> KnownBase:
    state = "incomplete" if missing else "ok"
    if seen.problem:
        state = "broken" if seen.broken else "refused"
    return KnownBase(
        name=seen.name, path=seen.path, kind=seen.kind, family=seen.family, variant=seen.variant, bytes=seen.bytes,
        state=state, reason=seen.problem or missing, parts=parts,
    )  # fmt: skip


def _seen(folder: Path, depth: int = _DEPTH) -> Iterator[Seen]:
    """The base or VAE that a folder is, else what is in it."""
    found = see_folder(folder)
    if found is not None:
        yield found
        return
    for file in listed_files(folder):
        try:
            yield see_file(file)
        except OSError:  # gone since it was listed
            continue
    for child in listed_folders(folder) if depth else []:
        yield from _seen(child, depth - 1)


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
    data = basefiles.read_json(Path(path))
    words = data.get("words") if data is not None else None
    if not isinstance(words, list):
        return None
    return frozenset(str(word).lower() for word in words)
