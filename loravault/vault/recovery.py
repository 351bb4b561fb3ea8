"""What a crash left of our writes, brought to an end. Decides by content, as the ledger recorded it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loravault.errors import UserError
from loravault.failpoints import reach
from loravault.vault.displaced import Displaced
from loravault.vault.ledger import Ledger

COMPACT_BYTES = 1024 * 1024
#: `undo` knows what was moved for this long (seconds); the files stay in the trash until a person empties it.
UNDO_S = 90 * 24 * 3600.0
_ENDS = ("verified", "abandoned", "conflict", "recovered")
_WRITE_OPS = ("write", "placed", *_ENDS)
_MOVE_OPS = ("moves", "moved")


@dataclass(frozen=True)
class _Scene:
    """What there is to decide with."""

    root: Path
    temps: dict[str, Path]
    displaced: Displaced
    keep_conflict: Callable[[str, Path], str]


def recover(root: Path, ledger: Ledger, displaced: Displaced, keep_conflict: Callable[[str, Path], str]) -> list[str]:
    """Close every unfinished write. A temp that equals the new text is deleted, one that equals the base goes to
    `displaced/`, anything else is a user's edit and becomes a conflict copy. What nobody can explain is left and told.
    """
    scene = _Scene(root, {path.name: path for path in _temps(root)}, displaced, keep_conflict)
    sentences = []
    for ident, record in unfinished(ledger.read()).items():
        try:
            sentence = _close(scene, ident, record)
            if sentence:
                sentences.append(sentence)
            ledger.append({"op": "recovered", "id": ident})
        except (OSError, UserError) as error:  # the temp and the open intent stay: the next start tries again
            sentences.append(
                f"An interrupted write into {record.get('path', '')} could not be brought to its end "
                f"({in_words(error)}); what it left (.lv-{ident}.*) stays beside the note until the next start."
            )
            continue
        reach("write.verified")
    for path in scene.temps.values():
        rel = path.relative_to(root).as_posix()
        if path.name.startswith(".lv-own-"):
            try:
                _close_own(path, displaced)
            except OSError as error:
                sentences.append(f"{rel}, left by a crash, could not be put away ({in_words(error)}); it was left.")
        else:
            sentences.append(f"{rel} looks like a temporary file of ours, but nothing is known about it; it was left.")
    return sentences


def compact(ledger: Ledger, now: float) -> None:
    """Shorten a ledger of over 1 MiB: writes that came to their end go, and batches of moves after 90 days.

    Every record of another kind stays.
    """
    if ledger.size() <= COMPACT_BYTES:
        return
    still_open = unfinished(ledger.read())
    forgotten = _old_batches(ledger.read(), now - UNDO_S)

    def keep(record: dict[str, Any]) -> bool:
        if record.get("op") in _MOVE_OPS:
            return record.get("batch") not in forgotten
        if record.get("op") == "emptied":
            return not isinstance(record.get("at"), int | float) or record["at"] >= now - UNDO_S
        return record.get("op") not in _WRITE_OPS or record.get("id") in still_open

    ledger.rewrite(keep)


def _old_batches(records: Iterator[dict[str, Any]], before: float) -> set[str]:
    """Ids of the batches of moves that ended and began before that time."""
    old: set[str] = set()
    ended: set[str] = set()
    for record in records:
        batch, at = record.get("batch"), record.get("at")
        if record.get("op") == "moves" and isinstance(batch, str) and isinstance(at, int | float) and at < before:
            old.add(batch)
        elif record.get("op") == "moved" and isinstance(batch, str):
            ended.add(batch)
    return old & ended


def in_words(error: OSError | UserError) -> str:
    """The cause, without what a person has no use for."""
    return error.message.rstrip(".") if isinstance(error, UserError) else str(error.strerror or error)


def unfinished(records: Iterator[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The intents of a ledger that have no end, by id."""
    open_writes: dict[str, dict[str, Any]] = {}
    for record in records:
        ident = record.get("id")
        if not isinstance(ident, str):
            continue
        if record.get("op") == "write":
            open_writes[ident] = record
        elif record.get("op") in _ENDS:
            open_writes.pop(ident, None)
    return open_writes


def _close(scene: _Scene, ident: str, record: dict[str, Any]) -> str | None:
    """End one write. Its files are found by their unique names, wherever their folder went meanwhile."""
    rel = str(record.get("path", ""))
    part, temp, old = (scene.temps.pop(f".lv-{ident}{suffix}", None) for suffix in (".part", ".tmp", ".old"))
    if part is not None:
        part.unlink(missing_ok=True)  # never more than a piece of what we meant to write
    if old is not None and temp is not None:  # the fallback was cut before it replaced: the note is untouched
        old.unlink(missing_ok=True)
    left = temp or old
    if left is None:
        return None
    digest = _sha(left)
    if digest == record.get("new"):
        left.unlink()
    elif digest == record.get("base"):
        scene.displaced.keep(left, rel)
    else:
        beside = (left.parent / rel.rsplit("/", 1)[-1]).relative_to(scene.root).as_posix()
        copy = scene.keep_conflict(beside, left)
        return f"{rel} was edited while a crash cut a write short; the edit is in {copy}: merge the two."
    return None


def _close_own(path: Path, displaced: Displaced) -> None:
    if path.suffix == ".part":
        path.unlink(missing_ok=True)
    else:
        displaced.keep(path, path.name)


def _temps(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.startswith(".lv-") and name.endswith((".tmp", ".part", ".old")):
                yield Path(folder, name)


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
