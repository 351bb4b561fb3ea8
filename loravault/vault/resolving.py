"""Which file of the vault a link means, by Obsidian's rules.

A path that begins with `/` is from the vault's top, one that begins with `./` or `../` from the note's folder. Any
other is a file of that very path, else one whose path ends in it: those in or below the note's own folder first, then
the shortest path. Case and Unicode composition do not count.
"""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from loravault.vault.walk import is_text


def _fold(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


class LinkFinder:
    """The files of a vault at one moment."""

    def __init__(self, rels: Iterable[str]) -> None:
        """`rels`: vault-relative paths with `/`."""
        self._by_name: dict[str, list[tuple[str, str]]] = {}
        for rel in rels:
            folded = _fold(rel)
            self._by_name.setdefault(folded.rpartition("/")[2], []).append((folded, rel))

    @classmethod
    def of_vault(cls, root: Path) -> LinkFinder:
        """Every file that Obsidian sees: nothing hidden, and no folder behind a link."""
        return cls(_files(root))

    def find(self, link: str, note: str) -> str | None:
        """The vault-relative path that a link in a note (vault-relative) means; None if there is no such file."""
        wanted = _fold(link.strip().replace("\\", "/"))
        home = _fold(note.rpartition("/")[0])
        if wanted.startswith(("./", "../")):
            wanted = posixpath.normpath(posixpath.join(home, wanted))
            return None if wanted.startswith("..") else self._exactly(wanted)
        if wanted.startswith("/"):
            return self._exactly(wanted.strip("/"))
        exact = self._exactly(wanted)
        if exact is not None:
            return exact
        ending = f"/{wanted}"
        candidates = [one for one in self._named(wanted) if f"/{one[0]}".endswith(ending)]
        near = f"{home}/" if home else ""
        candidates.sort(key=lambda one: (not one[0].startswith(near), len(one[0]), one[0]))
        return candidates[0][1] if candidates else None

    def _named(self, wanted: str) -> list[tuple[str, str]]:
        return self._by_name.get(wanted.rpartition("/")[2], [])

    def _exactly(self, wanted: str) -> str | None:
        return next((rel for folded, rel in self._named(wanted) if folded == wanted), None)


def _files(root: Path) -> Iterable[str]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        home = Path(folder).relative_to(root).as_posix()
        for name in names:
            rel = name if home == "." else f"{home}/{name}"
            if not name.startswith(".") and is_text(rel):
                yield rel
