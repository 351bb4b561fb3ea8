"""The folder for what our writes displaced: kept for a week, so that any write can be taken back by hand."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loravault.osdep import fsync_dir

KEEP_S = 7 * 24 * 3600.0
KEEP_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class Displaced:
    """The folder outside the vault; made (mode 0700) when the first file comes."""

    folder: Path
    now: Callable[[], float]

    def keep(self, path: Path, name: str) -> Path:
        """Move a file here under `<time>-<n>-<its name>`. Renamed where that is possible: then an editor that still has
        it open goes on writing into the kept copy."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(self.now()))
        base = name.rsplit("/", 1)[-1].encode()[:180].decode("utf-8", "ignore").replace("\0", "")
        target = next(t for n in range(100_000) if not (t := self.folder / f"{stamp}-{n}-{base}").exists())
        try:
            os.rename(path, target)
        except OSError:
            try:
                shutil.copyfile(path, target)
                with target.open("rb+") as file:
                    os.fsync(file.fileno())
            except OSError:  # disk full: no piece of a copy stays
                target.unlink(missing_ok=True)
                raise
            path.unlink()
        fsync_dir(self.folder)
        return target

    def discard_if(self, path: Path, *harmless: bytes) -> None:
        """Delete a file whose content is one of these; anything else is kept here."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return
        if content in harmless:
            path.unlink()
        else:
            self.keep(path, path.name)

    def prune(self) -> None:
        """Delete what is older than a week, and the oldest beyond 256 MiB."""
        try:
            files = [(p.stat().st_mtime, p.stat().st_size, p) for p in self.folder.iterdir() if _ours(p)]
        except OSError:
            return
        total = 0
        # The name starts with the time it came here; the mtime is the note's own.
        for _, size, path in sorted(files, key=lambda f: f[2].name, reverse=True):
            total += size
            if total > KEEP_BYTES or _stamp(path.name) < self.now() - KEEP_S:
                with contextlib.suppress(OSError):
                    path.unlink()


def _ours(path: Path) -> bool:
    return path.is_file() and _stamp(path.name) != float("inf")


def _stamp(name: str) -> float:
    try:
        return time.mktime(time.strptime(name[:15], "%Y%m%d-%H%M%S"))
    except (ValueError, OverflowError):
        return float("inf")  # not named by us: not ours to delete
