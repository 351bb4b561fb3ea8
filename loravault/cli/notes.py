"""Which note a person means on the command line."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from loravault.errors import UserError
from loravault.vault.walk import walk_notes

_RUN = re.compile(r"[0-9a-f]{8}(@.+)?")


def note_in_vault(vault: Path, cwd: Path, given: str) -> str:
    """The note's path below the vault, with `/`.

    `given` is a path from `cwd` or from the top of the vault, or a name that one note in it has; `.md` may be missing.
    """
    real_vault = Path(os.path.realpath(vault))
    outside: Path | None = None
    for start in (cwd, vault):
        for ending in ("", ".md"):
            # Only the folder is resolved: a note that is a symbolic link is named by where it stands.
            candidate = start / (given + ending)
            path = Path(os.path.realpath(candidate.parent)) / candidate.name
            if not os.path.isfile(path):  # False, too, for a name that is too long
                continue
            if path.is_relative_to(real_vault):
                return path.relative_to(real_vault).as_posix()
            outside = path
    if outside is not None:
        raise UserError(f"{outside} is not in the vault {vault}: name a note of the vault, or another --vault.")
    return _by_name(real_vault, Path(given).name, given)


def note_or_run(vault: Path, cwd: Path, given: str) -> str:
    """The note's path below the vault, or `given` when it looks like a run (`1a2b3c4d`, `1a2b3c4d@machine`)."""
    try:
        return note_in_vault(vault, cwd, given)
    except UserError:
        if _RUN.fullmatch(given):
            return given
        raise


def note_or_any(vault: Path, cwd: Path, given: str) -> str:
    """The note's path below the vault, or `given` itself: a job, a run, or a note that is gone."""
    try:
        return note_in_vault(vault, cwd, given)
    except UserError:
        return given


def _by_name(vault: Path, name: str, given: str) -> str:
    """The one note of this name wherever it is, as a link in Obsidian would find it."""
    notes = sorted(seen.rel for seen in walk_notes(vault, lambda _folder: False))
    wanted = name.removesuffix(".md").casefold()
    found = [rel for rel in notes if Path(rel).stem.casefold() == wanted and given == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"Several notes are called {given!r}, write the path of one: {', '.join(found)}.")
    stems = sorted({Path(rel).stem for rel in notes})
    near = difflib.get_close_matches(name.removesuffix(".md"), stems, n=3, cutoff=0.5)
    hint = f" Close names: {', '.join(near)}." if near else ""
    raise UserError(f"There is no note {given!r}, neither here nor in the vault {vault}.{hint}")
