"""Vault-relative paths made absolute without ever leaving the vault."""

from __future__ import annotations

import os
import re
from pathlib import Path

from loravault.errors import UserError

_DRIVE = re.compile(r"[A-Za-z]:")


class PathRefused(UserError):  # noqa: N818 - said to the user as it is
    """A path that leads outside the vault or into its hidden folders."""


def inside(root: Path, rel: str) -> Path:
    """The real path of `rel` below `root`. Symlinks are resolved first; what then lies outside is refused.

    Refused as well: absolute paths, drives, `..`, NUL, backslashes, and hidden folders (Obsidian's own among them).
    """
    parts = rel.split("/")
    if not rel or "\0" in rel or "\\" in rel or rel.startswith("/") or _DRIVE.match(rel):
        raise PathRefused(f"{rel!r} is not a path inside the vault.")
    if any(part in ("", ".", "..") or part.startswith(".") for part in parts):
        raise PathRefused(f"{rel!r} leads outside the vault or into a hidden folder.")
    home = os.path.realpath(root)
    real = os.path.realpath(os.path.join(home, *parts))
    if not Path(real).is_relative_to(home) or real == home:
        raise PathRefused(f"{rel!r} leads outside the vault through a link.")
    if any(part.startswith(".") for part in os.path.relpath(real, home).split(os.sep)):
        raise PathRefused(f"{rel!r} leads into a hidden folder through a link.")
    return Path(real)
