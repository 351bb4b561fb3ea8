"""Making many new files at once: each is whole from its first moment, and the disk is waited for once, not per file.

One file after the other would wait for the disk twice each; ten thousand cards would take minutes. Paths are plain
strings here, and a folder is listed once, because at this number both count.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterable, MutableMapping
from pathlib import Path

from loravault.failpoints import reach
from loravault.osdep import replace_no_overwrite, sync_files, sync_folders
from loravault.vault.paths import PathRefused, inside

OWN_PREFIX = ".lv-own-"
#: What is wrong with one folder or name; anything else (a full disk, a drive that is gone) is about all of them.
_OF_ONE = {errno.EEXIST, errno.ENOTDIR, errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG}
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def temp_name_of(name: str) -> str:
    """One temp name per file of ours, so that a leftover of a crash is found by the next write of the same file."""
    return f"{OWN_PREFIX}{hashlib.blake2b(os.fsencode(name), digest_size=6).hexdigest()}.tmp"


class _Folders:
    """Where files go: resolved, made and listed once."""

    def __init__(self, root: Path, make: Callable[[Path], list[Path]]) -> None:
        self._root = root
        self._make = make
        self._known: dict[str, tuple[str, set[str]]] = {}
        #: Folder -> why nothing can be written into it.
        self._bad: dict[str, PathRefused | OSError] = {}
        self._grown: dict[Path, None] = {}

    def of(self, rel: str) -> tuple[str, set[str]]:
        """The real folder of a vault-relative path, and the names in it."""
        folder = rel.rpartition("/")[0]
        if folder in self._bad:
            raise self._bad[folder]
        if folder not in self._known:
            try:
                home = inside(self._root, rel).parent
                self._grown.update(dict.fromkeys(self._make(home)))
                self._known[folder] = str(home), set(os.listdir(home))
            except (PathRefused, OSError) as error:
                self._bad[folder] = error
                raise
        return self._known[folder]

    @property
    def all(self) -> list[Path]:
        """Every real folder that was used, and those in which folders were made: the outer ones first."""
        return list(dict.fromkeys([*self._grown, *(Path(home) for home, _ in self._known.values())]))


def create_many(
    root: Path,
    items: Iterable[tuple[str, bytes]],
    own_temp: Callable[[Path], Path],
    make_folders: Callable[[Path], list[Path]],
    refused: MutableMapping[str, str] | None = None,
) -> list[str]:
    """Make every file of `items` (vault-relative path, bytes). Returns the paths whose name was taken: left alone.

    Until the last step a file has a hidden temp name, `temp_name_of` its own; a crash leaves those, or whole files.
    `own_temp` clears the temp name of a path; `make_folders` makes a folder with those above it, and returns the
    folders in which it made some: they become durable together with the files.

    A folder that cannot be made or written costs its own files: each of their paths gets a sentence in `refused`.
    Without `refused` it is raised, as is always what concerns all files: a full disk, a vault that is gone.
    """
    folders = _Folders(root, make_folders)
    ready: list[tuple[str, str, str]] = []
    taken: list[str] = []
    placed = 0
    try:
        for rel, data in items:
            try:
                home, names = folders.of(rel)
                name = rel.rpartition("/")[2]
                if name in names:
                    taken.append(rel)
                    continue
                path = f"{home}{os.sep}{name}"
                temp_name = temp_name_of(name)
                if temp_name in names:  # a crash left it: it is put where nothing is lost
                    own_temp(Path(path))
                temp = f"{home}{os.sep}{temp_name}"
                descriptor = os.open(temp, _FLAGS, 0o666)
            except (PathRefused, OSError) as error:
                if refused is None or (isinstance(error, OSError) and error.errno not in _OF_ONE):
                    raise
                refused[rel] = _why(root, rel, error)
                continue
            ready.append((rel, temp, path))
            _write(descriptor, data)
        reach("bulk.written")
        sync_files([temp for _, temp, _ in ready])
        reach("bulk.synced")
        for rel, temp, path in ready:
            try:
                replace_no_overwrite(temp, path)
            except FileExistsError:
                taken.append(rel)
                os.unlink(temp)
            placed += 1
        reach("bulk.linked")
    finally:
        for _, temp, _ in ready[placed:]:
            with contextlib.suppress(OSError):
                os.unlink(temp)
    sync_folders(folders.all)
    return taken


def _why(root: Path, rel: str, error: PathRefused | OSError) -> str:
    """Why a file cannot be made in its folder, and what to do about it."""
    if isinstance(error, PathRefused):
        return error.message
    parts = rel.split("/")[:-1]
    for count in range(1, len(parts) + 1):
        part = root.joinpath(*parts[:count])
        if os.path.lexists(part) and not part.is_dir():
            return f"{'/'.join(parts[:count])} is no folder, and one of that name is needed: rename it or move it away."
    return f"{'/'.join(parts)} cannot be written to ({error.strerror or error}): make it a folder that can be."


def _write(descriptor: int, data: bytes) -> None:
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)
