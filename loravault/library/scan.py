"""Which adapter files lie in a root. Only names and sizes are looked at; nothing is opened.

People link their LoRA folders together. A link is followed only if it leads into a configured root; loops end; a file
that is reachable twice (hard link, link) is reported once, under the path that is no link.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from loravault.vault.walk import is_text, key_of

SUFFIX = ".safetensors"
#: Listed, so that people learn why they are not used; never opened.
PICKLE_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".pkl")
# A file beside `x.safetensors` that says a download of it is still going on.
_UNFINISHED_BESIDE = (".part", ".crdownload", ".aria2", ".!qb", ".download", ".tmp", ".incomplete")
_MAX_DEPTH = 64
# What systems keep at the top of a drive: mostly unreadable, and what lies in a bin was thrown away.
_SYSTEM_FOLDERS = frozenset({"lost+found", "system volume information", "$recycle.bin"})


class Found(NamedTuple):
    """One file in a root. A tuple, because ten thousand of them are made at every look."""

    root: str
    #: Path inside the root with `/`, spelled as on the disk.
    rel: str
    size: int
    mtime_ns: int
    dev: int
    ino: int
    #: Names, sizes and times of what stands beside it under its name, as a hash; empty if nothing does.
    beside: str = ""
    #: A file beside it that says that it is still being downloaded.
    unfinished: str | None = None


@dataclass
class Scan:
    """What a whole scan saw. If something could not be read, what was not seen there must not count as gone."""

    found: list[Found] = field(default_factory=list)
    #: Files of kinds that are never opened, by path inside the root.
    pickles: list[str] = field(default_factory=list)
    #: Links to adapters and folders outside all roots, not followed: path inside the root, and where it leads.
    elsewhere: list[tuple[str, str]] = field(default_factory=list)
    #: What could not be looked at, in words.
    problems: list[str] = field(default_factory=list)

    #: The same as paths inside the root (`""`: the root itself).
    unread: list[str] = field(default_factory=list)

    def hides(self, rel: str) -> bool:
        """Whether this file may be there unseen, because it or a folder above it could not be looked at."""
        return any(rel == place or not place or rel.startswith(f"{place}/") for place in self.unread)


def scan(root: str, path: Path, roots: Sequence[Path] = ()) -> Scan:
    """Everything in a root, adapters in the order of their paths, and what could not be read.

    `roots` are all configured roots: links may lead into them, and into this one. Raises `OSError` if the root itself
    cannot be read.
    """
    return _Walk(root, path, roots).run()


def scan_named(root: str, path: Path, rels: Iterable[str]) -> list[Found]:
    """The adapters that these paths name, or that they stand beside: a part of what `scan` would find there now.

    For a quick look after a hint. What is reached through links, or cannot be looked at, is left to a whole scan.
    """
    by_folder: dict[str, set[str]] = {}
    for rel in rels:
        folder, _, name = rel.rpartition("/")
        by_folder.setdefault(folder, set()).add(_group_of(name))
    walk = _Walk(root, path, ())
    for folder, groups in sorted(by_folder.items()):
        walk.part_of_folder(folder, groups)
    return walk.result.found


def _group_of(name: str) -> str:
    """What an adapter and everything beside it have in common: the name up to its first dot."""
    return name.casefold().partition(".")[0]


class _Walk:
    """One scan: the real tree first, then what links lead to, so that a real path wins over a link to it."""

    def __init__(self, root: str, path: Path, roots: Sequence[Path]) -> None:
        self._root = root
        self._path = path
        self._inside = [os.path.realpath(one) for one in (path, *roots)]
        self._folders: set[tuple[int, int]] = set()
        self._files: set[tuple[int, int]] = set()
        self._links: list[tuple[str, str, int]] = []
        self.result = Scan()

    def run(self) -> Scan:
        with os.scandir(self._path):  # the root itself being unreadable is not an empty root
            pass
        self._folder(str(self._path), "", 0)
        while self._links:
            self._link(*self._links.pop(0))
        self.result.found.sort(key=itemgetter(1))
        self.result.pickles.sort()
        return self.result

    def _folder(self, path: str, rel: str, depth: int) -> None:
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in self._folders or depth > _MAX_DEPTH:
                return
            self._folders.add((status.st_dev, status.st_ino))
            with os.scandir(path) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            self._problem(f'The folder "{_shown(rel) or "."}" cannot be read', rel, error)
            return
        beside = _Beside([entry for entry in entries if not entry.name.endswith(SUFFIX)])
        start = f"{rel}/" if rel else ""
        for entry in entries:
            name = entry.name
            if name[0] == ".":
                continue
            place = start + name
            try:
                link, folder = entry.is_symlink(), entry.is_dir(follow_symlinks=False)
            except OSError as error:  # where a listing does not tell kinds, asking is a look at the item
                self._problem(f'"{_shown(place)}" cannot be looked at', place, error)
                continue
            if link:
                self._links.append((entry.path, place, depth))
            elif folder:
                if name.casefold() not in _SYSTEM_FOLDERS:
                    self._folder(entry.path, place, depth + 1)
            else:
                self._file(entry, name, place, beside)

    def part_of_folder(self, rel: str, groups: Collection[str]) -> None:
        """The adapters of these groups in one folder, if it is a real folder of the root."""
        parts = rel.split("/") if rel else []
        if len(parts) > _MAX_DEPTH or any(part[0] == "." or part.casefold() in _SYSTEM_FOLDERS for part in parts):
            return
        path = os.path.join(self._path, rel) if rel else str(self._path)
        if os.path.realpath(path) != os.path.join(self._inside[0], *rel.split("/")).rstrip(os.sep):
            return
        with contextlib.suppress(OSError), os.scandir(path) as listing:
            entries = sorted((e for e in listing if _group_of(e.name) in groups), key=lambda entry: entry.name)
            beside = _Beside([entry for entry in entries if not entry.name.endswith(SUFFIX)])
            for entry in entries:
                if entry.name[0] != "." and entry.is_file(follow_symlinks=False):
                    self._file(entry, entry.name, f"{rel}/{entry.name}" if rel else entry.name, beside)

    def _link(self, path: str, rel: str, depth: int) -> None:
        target = os.path.realpath(path)
        home = [one for one in self._inside if target == one or target.startswith(one.rstrip(os.sep) + os.sep)]
        if not home:
            if _is_adapter(rel) or os.path.isdir(target):
                self.result.elsewhere.append((_shown(rel), _shown(target)))
            return
        try:
            mode = os.stat(target).st_mode
        except OSError as error:
            gone = isinstance(error, FileNotFoundError | NotADirectoryError) and any(map(os.path.isdir, home))
            if not gone and error.errno != errno.ELOOP:  # what it leads to may only be offline
                self._problem(f'The link "{_shown(rel)}" cannot be followed', rel, error)
            return
        if stat.S_ISDIR(mode):
            self._folder(target, rel, depth + 1)
        else:
            self._file(path, rel.rpartition("/")[2], rel, _Beside([]))

    def _file(self, item: os.DirEntry[str] | str, name: str, rel: str, beside: _Beside) -> None:
        if not name.endswith(SUFFIX) and not _is_adapter(name):
            if name.lower().endswith(PICKLE_SUFFIXES):
                self.result.pickles.append(_shown(rel))
            return
        if not is_text(rel):
            return  # not a problem of the scan: the file was seen, and can never be named in a note
        try:
            status = look_at(item)
        except FileNotFoundError:
            return  # it went while we looked
        except OSError as error:
            self._problem(f'The file "{_shown(rel)}" cannot be looked at', rel, error)
            return
        key = (status.st_dev, status.st_ino)
        if key not in self._files and stat.S_ISREG(status.st_mode):
            self._files.add(key)
            self.result.found.append(Found(self._root, rel, *key_of(status), *beside.of(name)))

    def _problem(self, what: str, rel: str, error: OSError) -> None:
        self.result.problems.append(f"{what}: {error.strerror or error}.")
        self.result.unread.append(rel)


def look_at(item: os.DirEntry[str] | str) -> os.stat_result:
    """The stat of what an entry or a path leads to; an entry that is no link costs less."""
    return os.stat(item) if isinstance(item, str) else item.stat(follow_symlinks=False)


class _Beside:
    """What stands in a folder under the name of each adapter there: `ink.preview.png` under `ink` and `ink.preview`."""

    def __init__(self, entries: Iterable[os.DirEntry[str]]) -> None:
        self._under: dict[str, list[tuple[str, os.DirEntry[str]]]] = {}
        for entry in entries:
            if _is_adapter(entry.name):
                continue
            folded = entry.name.casefold()
            dot = folded.find(".")
            while dot > 0:
                self._under.setdefault(folded[:dot], []).append((folded, entry))
                dot = folded.find(".", dot + 1)

    def of(self, name: str) -> tuple[str, str | None]:
        """(signature, name of a file that says that the download goes on) for the adapter file of this name."""
        whole = name.casefold()
        found = self._under.get(whole[: -len(SUFFIX)])
        if found is None:
            return "", None
        parts, unfinished = [], None
        for folded, entry in sorted(found, key=_first) if len(found) > 1 else found:
            if folded.startswith(whole) and folded[len(whole) :] in _UNFINISHED_BESIDE:
                unfinished = entry.name
            try:
                status = entry.stat()
            except OSError:
                continue
            parts.append(f"{folded}\0{status.st_size}\0{status.st_mtime_ns}")
        text = "\0".join(parts).encode("utf-8", "surrogateescape")
        return hashlib.blake2b(text, digest_size=8).hexdigest(), unfinished


def _first(pair: tuple[str, os.DirEntry[str]]) -> str:
    return pair[0]


def _is_adapter(name: str) -> bool:
    return name.lower().endswith(SUFFIX)


def _shown(rel: str) -> str:
    return rel.encode("utf-8", "replace").decode("utf-8")
