"""Batches of moves as the ledger tells them. Pure; `keeping/trash.py` makes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from loravault.errors import UserError

#: The vault's area. Roots have names that are never empty.
VAULT = ""

#: Obsidian's own trash in the vault, and ours in a root. Both are dot folders: no scan and no note walk enters them.
VAULT_TRASH, ROOT_TRASH = ".trash", ".loravault-trash"


@dataclass(frozen=True)
class Move:
    """One file, within its area. Paths with `/`."""

    area: str
    source: str
    target: str

    @property
    def back(self) -> Move:
        """The move that takes this one back."""
        return Move(self.area, self.target, self.source)


@dataclass(frozen=True)
class Batch:
    """What was moved together. `left`: what `undo` would still move back."""

    id: str
    at: float
    what: str
    moves: tuple[Move, ...]
    left: tuple[Move, ...]
    undoes: str | None = None
    #: (area, path) of the folders that were made for it, the outermost first.
    folders: tuple[tuple[str, str], ...] = ()


def in_trash(area: str, rel: str, batch: str) -> str:
    """Where a file goes when it is thrown away: below the folder of its batch, at the path it had."""
    return f"{VAULT_TRASH}/loravault-{batch}/{rel}" if area == VAULT else f"{ROOT_TRASH}/{batch}/{rel}"


def is_in_trash(move_end: str) -> bool:
    """Whether a path of a move lies in one of our folders in a trash."""
    return move_end.startswith((f"{VAULT_TRASH}/", f"{ROOT_TRASH}/"))


def batches_of(records: Iterable[dict[str, Any]]) -> list[Batch]:
    """The batches of a ledger that were made, newest first, with what of each was not moved back yet. Pure."""
    begun: dict[str, dict[str, Any]] = {}
    made: dict[str, tuple[Move, ...]] = {}
    folders: dict[str, tuple[tuple[str, str], ...]] = {}
    emptied: set[tuple[str, str]] = set()
    for record in records:
        if record.get("op") == "emptied":
            emptied.add((str(record.get("area")), str(record.get("rel"))))
        batch = record.get("batch")
        if not isinstance(batch, str):
            continue
        if record.get("op") == "moves":
            begun[batch] = record
        elif record.get("op") == "moved" and batch in begun:
            moves = moves_of(begun[batch])
            made[batch] = tuple(moves[index] for index in record.get("done", ()) if 0 <= index < len(moves))
            folders[batch] = tuple((str(area), str(rel)) for area, rel in record.get("folders", ()))
    undone: dict[str, set[Move]] = {}
    for batch, record in begun.items():
        if record.get("undoes"):
            undone.setdefault(str(record["undoes"]), set()).update(move.back for move in made.get(batch, ()))
    return [
        Batch(
            batch,
            float(begun[batch].get("at", 0)),
            str(begun[batch].get("what", "")),
            moves,
            tuple(
                move
                for move in moves
                if move not in undone.get(batch, ()) and (move.area, _folder_in_trash(move.target)) not in emptied
            ),
            folders=folders[batch],
        )
        for batch, moves in reversed(made.items())
        if moves and not begun[batch].get("undoes")
    ]


def _folder_in_trash(rel: str) -> str:
    """`.loravault-trash/<batch>` of what lies in it."""
    return "/".join(rel.split("/")[:2])


def choose_batch(batches: Sequence[Batch], wanted: str | None) -> Batch:
    """The batch that is meant. Raises `UserError` when there is none."""
    if wanted is None:
        chosen = next((batch for batch in batches if batch.left), None)
        if chosen is None:
            raise UserError(
                "There is nothing to undo: nothing was moved in the last 90 days, or it is back or deleted."
            )
        return chosen
    found = [batch for batch in batches if batch.id == wanted] or [b for b in batches if b.id.startswith(wanted)]
    if len(found) != 1:
        raise UserError(f"There is no batch {wanted}; `loravault undo --list` shows those there are.")
    if not found[0].left:
        raise UserError(f"Nothing of {found[0].id} is left to move back.")
    return found[0]


def open_batches(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of batches that were begun and not ended, in order."""
    begun: dict[str, dict[str, Any]] = {}
    for record in records:
        batch = record.get("batch")
        if isinstance(batch, str) and record.get("op") == "moves":
            begun[batch] = record
        elif isinstance(batch, str) and record.get("op") == "moved":
            begun.pop(batch, None)
    return list(begun.values())


def moves_of(record: dict[str, Any]) -> list[Move]:
    """The moves of the record that began a batch."""
    return [Move(str(area), str(source), str(target)) for area, source, target in record.get("moves", ())]
