"""Writing a file of our own: whole or not at all, and on disk when the call returns.

For what nobody else writes. A note of a person's goes through `vault/safewrite`, which looks before it replaces.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from loravault.osdep import fsync_dir


def write_whole(path: Path, data: bytes) -> None:
    """Writes the bytes to `path`; folders above it are made, an older file of that name is replaced.

    Until then they are in `.<name>.part` beside it, so one path is for one writer at a time. A failure leaves what was
    there before, and no part. Raises `OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    fsync_dir(path.parent)
