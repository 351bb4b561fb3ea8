"""Vault-relative paths made absolute without ever leaving the vault."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from loravault.errors import UserError

_DRIVE = re.compile(r"[A-Za-z]:")


class VaultGone(UserError):  # noqa: N818 - a state that is told; whoever writes tries again later
    """The folder of the vault is not there, or is another one: a drive was unplugged. Nothing was written."""


class Home:
    """The vault's own folder, told from whatever else may later have its name.

    Where a drive was unplugged, its empty mount point stays: writing there would begin a second vault.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._identity = _identity(root)

    def must_be_there(self) -> None:
        """Raise `VaultGone` unless the folder is the one that was there first."""
        found = _identity(self._root)
        self._identity = self._identity or found
        if found is None or found != self._identity:
            what = "is not there" if found is None else "is not the folder it was at the start"
            raise VaultGone(
                f"The vault {self._root} {what}; nothing was written. Plug its drive in again, or restart loravault if "
                "the vault is really this one now."
            )


def _identity(folder: Path) -> tuple[int, int] | None:
    """What tells this folder from another one of the same name; None if there is none."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None


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
        raise PathRefused(_leads_out(home, parts))
    if any(part.startswith(".") for part in os.path.relpath(real, home).split(os.sep)):
        raise PathRefused(f"{rel!r} leads into a hidden folder through a link.")
    return Path(real)


def _leads_out(home: str, parts: list[str]) -> str:
    """The sentence for a link that leaves the vault, naming the link itself."""
    link = next(
        (
            "/".join(parts[:n])
            for n in range(1, len(parts) + 1)
            if not Path(os.path.realpath(os.path.join(home, *parts[:n]))).is_relative_to(home)
        ),
        "/".join(parts),
    )
    return (
        f"{link!r} is a link that leads outside the vault, and loravault writes only inside it: make it a real folder "
        "(another disk can be mounted there), and set `originals` if lossless copies should lie elsewhere."
    )
