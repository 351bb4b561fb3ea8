"""Putting a new adapter file into a loras folder: whole or not at all, durably, and never over another file.

The name is written down (`chosen`) before the file gets it. So whoever does it again after a crash finds its own file
under that name and makes no second one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from loravault.osdep import fsync_dir, replace_no_overwrite
from loravault.vault.names import safe_stem

_ENDING = ".safetensors"
#: So many names are tried.
_MOST = 1000


def place_adapter(
    source: Path,
    root: Path,
    *,
    folder: str,
    name: str,
    token: str,
    earlier: str | None,
    is_taken: Callable[[str], bool],
    chosen: Callable[[str], None],
) -> str:
    """Copy `source` to `root/folder/name.safetensors`, or `name-2`, `-3`, … Returns its path below the root.

    `token` is for the temporary name. `earlier`: the path that an earlier try had chosen. `is_taken`: whether a name
    (without ending) means another adapter already, wherever that lies. Raises `OSError`; `FileNotFoundError` if the
    root is not there, which is never made: its drive may be away.
    """
    if not root.is_dir():
        raise FileNotFoundError(2, "the folder is not there", str(root))
    if earlier is not None and _is_same(source, root / earlier):
        fsync_dir((root / earlier).parent)
        return earlier
    home = root / folder if folder else root
    _make(root, home)
    temporary = home / f".lv-{token}.part"
    try:
        _copy(source, temporary)
        for stem in _names(name):
            rel = f"{folder}/{stem}{_ENDING}" if folder else f"{stem}{_ENDING}"
            if rel != earlier and (is_taken(stem) or os.path.lexists(root / rel)):
                continue
            chosen(rel)
            try:
                replace_no_overwrite(temporary, root / rel)
            except FileExistsError:
                continue
            fsync_dir(home)
            return rel
    finally:
        temporary.unlink(missing_ok=True)
    raise FileExistsError(17, "every name is taken", str(home / f"{name}{_ENDING}"))


def _names(name: str) -> Iterator[str]:
    yield name
    for number in range(2, _MOST):
        yield f"{safe_stem(name, 100)}-{number}"


def _make(root: Path, home: Path) -> None:
    """The folder with everything above it, as far as that is below the root; durable. No link is followed out of it."""
    made = []
    for folder in [*reversed(home.relative_to(root).parents), home.relative_to(root)]:
        path = root / folder
        if not path.is_dir():
            path.mkdir(exist_ok=True)
            made.append(path)
    for path in made:
        fsync_dir(path.parent)


def _copy(source: Path, temporary: Path) -> None:
    with source.open("rb") as reader, temporary.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())


def _is_same(one: Path, other: Path) -> bool:
    """Whether both are there and hold the same bytes."""
    try:
        return os.stat(one).st_size == os.stat(other).st_size and _digest(one) == _digest(other)
    except OSError:
        return False


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
