"""Making many new files at once: each is whole from its first moment, and the disk is waited for once, not per file.

One file after the other would wait for the disk twice each; ten thousand cards would take minutes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from loravault.failpoints import reach
from loravault.osdep import fsync_dir, replace_no_overwrite, sync_files
from loravault.vault.paths import inside


def create_many(
    root: Path,
    items: Iterable[tuple[str, bytes]],
    own_temp: Callable[[Path], Path],
    make_folders: Callable[[Path], None],
) -> list[str]:
    """Make every file of `items` (vault-relative path, bytes). Returns the paths whose name was taken: left alone.

    Until the last step a file has a hidden temp name, `own_temp` of its path; a crash leaves those, or whole files.
    """
    homes: dict[str, Path] = {}
    ready: list[tuple[str, Path, Path]] = []
    taken: list[str] = []
    try:
        for rel, data in items:
            folder, _, name = rel.rpartition("/")
            if folder not in homes:
                homes[folder] = inside(root, rel).parent
                make_folders(homes[folder])
            path = homes[folder] / name
            if os.path.lexists(path):
                taken.append(rel)
                continue
            temp = own_temp(path)
            temp.write_bytes(data)
            ready.append((rel, temp, path))
        reach("bulk.written")
        sync_files([temp for _, temp, _ in ready])
        reach("bulk.synced")
        for rel, temp, path in ready:
            try:
                replace_no_overwrite(temp, path)
            except FileExistsError:
                taken.append(rel)
        reach("bulk.linked")
    finally:
        for _, temp, _ in ready:
            with contextlib.suppress(OSError):
                temp.unlink(missing_ok=True)
    for folder_path in {path.parent for _, _, path in ready}:
        fsync_dir(folder_path)
    return taken
