"""Which note a person means on the command line."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from loravault.errors import UserError


def note_in_vault(vault: Path, cwd: Path, given: str) -> str:
    """The note's path below the vault, with `/`.

    `given` is a path from `cwd` or from the top of the vault; `.md` may be missing.
    """
    real_vault = Path(os.path.realpath(vault))
    outside: Path | None = None
    for start in (cwd, vault):
        for ending in ("", ".md"):
            # Only the folder is resolved: a note that is a symbolic link is named by where it stands.
            candidate = start / (given + ending)
            path = Path(os.path.realpath(candidate.parent)) / candidate.name
            if not path.is_file():
                continue
            if path.is_relative_to(real_vault):
                return path.relative_to(real_vault).as_posix()
            outside = path
    if outside is not None:
        raise UserError(f"{outside} is not in the vault {vault}: name a note of the vault, or another --vault.")
    near = difflib.get_close_matches(Path(given).stem, sorted(_names(real_vault)), n=3, cutoff=0.5)
    hint = f" Close names: {', '.join(near)}." if near else ""
    raise UserError(f"There is no note {given!r}, neither here nor in the vault {vault}.{hint}")


def _names(vault: Path) -> set[str]:
    names: set[str] = set()
    for _, folders, files in os.walk(vault):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        names.update(file[:-3] for file in files if file.endswith(".md"))
    return names
