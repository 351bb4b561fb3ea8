"""Housekeeping by whoever holds the vault: clean, rename, undo, empty the trash. What moves can be moved back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqlmodel import Session

from loravault.errors import UserError
from loravault.index import adapters, images
from loravault.index.refresh import GONE
from loravault.jobs.context import Context
from loravault.keeping.batches import VAULT, Move, in_trash, is_in_trash
from loravault.keeping.renaming import plan_rename
from loravault.keeping.tidy import UNUSED_DAYS, CleanPlan, Item, plan_clean
from loravault.keeping.trash import Moved, Trash

#: The kinds of commands that are obeyed here.
COMMANDS = frozenset({"house.clean", "house.mv", "house.undo", "house.empty"})


class Housekeeper:
    """Obeys the commands of housekeeping. After something moved `changed` is told of which adapters (weight ids), and
    `refresh` looks at adapters and pictures again.
    """

    def __init__(
        self, ctx: Context, refresh: Callable[[], object], changed: Callable[[set[str]], None] = lambda _: None
    ) -> None:
        self._ctx = ctx
        self._refresh = refresh
        self._changed = changed
        self._trash = Trash(ctx.config, ctx.ledger, now=ctx.now)

    def recover(self) -> list[str]:
        """At the start: end what a crash cut short. Returns what a person should know."""
        return self._trash.recover()

    def obey(self, kind: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """Do one command. Raises `UserError`."""
        if kind == "house.clean":
            approved = {(str(area), str(rel)) for area, rel in args["approved"]}
            return self.clean([str(k) for k in args["kinds"]], approved, float(args.get("unused_days", UNUSED_DAYS)))
        if kind == "house.mv":
            return self.rename(str(args["name"]), str(args["new"]))
        if kind == "house.undo":
            return self.undo(None if args.get("batch") is None else str(args["batch"]))
        if kind == "house.empty":
            return self.empty({(str(area), str(rel)) for area, rel in args["approved"]})
        raise UserError(f'This daemon does not know the command "{kind}"; restart it.')

    def clean(
        self, kinds: Iterable[str], approved: set[tuple[str, str]], unused_days: float = UNUSED_DAYS
    ) -> dict[str, Any]:
        """Move into the trash what a person has approved (area, path), if it is still to go now that we look again."""
        kinds = list(kinds)
        with self._ctx.index.session() as session:
            plan = plan_clean(self._ctx.config, session, kinds, now=self._ctx.now(), unused_days=unused_days)
        going = [item for item in plan.items if {(piece.area, piece.rel) for piece in item.pieces} <= approved]
        batch = self._trash.new_batch()
        what = " ".join(["clean", *(f"--{kind}" for kind in kinds)])
        moved = self._trash.carry_out(what, _moves(going, batch), whole=False, batch=batch)
        self._tell(moved)
        return {**_reply(what, moved), "stayed": [*_stayed(moved), *_changed(plan, approved)]}

    def rename(self, name: str, new: str) -> dict[str, Any]:
        """Move an adapter and all its sidecars, or nothing."""
        with self._ctx.index.session() as session:
            plan = plan_rename(self._ctx.config, session, name, new)
        moves = [Move(plan.root, source, target) for source, target in plan.moves]
        what = f"mv {plan.root}/{plan.source} {plan.target}"
        moved = self._trash.carry_out(what, moves, whole=True)
        self._tell(moved)
        return {**_reply(what, moved), "shared": list(plan.shared), "notes": list(plan.notes)}

    def undo(self, batch: str | None) -> dict[str, Any]:
        """Move a batch back, the newest if none is named."""
        moved = self._trash.undo(batch)
        self._tell(moved)
        return _reply("undo", moved)

    def empty(self, approved: set[tuple[str, str]]) -> dict[str, Any]:
        """Delete folders of our trash for good: those that a person has approved (area, path)."""
        chosen = [one for one in self._trash.binned() if (one.area, one.rel) in approved]
        problems = self._trash.empty(chosen)
        return {"deleted": len(chosen), "bytes": sum(one.size for one in chosen), "problems": problems}

    def _tell(self, moved: Moved) -> None:
        """Bring the index in line at once: what a person threw away is no loss that a scan should doubt."""
        weight_ids: set[str] = set()
        with self._ctx.index.session() as session:
            for move in moved.moves:
                if not is_in_trash(move.target):
                    continue
                if move.area == VAULT:
                    images.forget_image(session, move.source)
                    self._ctx.pictures_changed.add(move.source)
                else:
                    weight_ids |= _thrown_away(session, move)
        if weight_ids:
            self._changed(weight_ids)
        if moved.moves:
            self._refresh()


def _thrown_away(session: Session, move: Move) -> set[str]:
    """A file of a root is in the trash. Returns the weight id if it was an adapter."""
    row = adapters.adapter_at(session, move.area, move.source)
    if row is None:
        return set()
    same = adapters.adapters_by_weight_id(session, row.weight_id) if row.weight_id else ()
    if any(other.state in ("ok", "duplicate") for other in same if (other.root, other.rel) != (row.root, row.rel)):
        session.delete(row)
    else:
        row.state, row.reason, row.unseen = "missing", GONE, 2
        session.add(row)
    return {row.weight_id} if row.weight_id else set()


def _moves(items: Iterable[Item], batch: str) -> list[Move]:
    return [
        Move(piece.area, piece.rel, piece.to or in_trash(piece.area, piece.rel, batch))
        for item in items
        for piece in item.pieces
    ]


def _changed(plan: CleanPlan, approved: set[tuple[str, str]]) -> list[list[str]]:
    """What was approved and is not to go any more, with the reason."""
    planned = {(piece.area, piece.rel) for item in plan.items for piece in item.pieces}
    why = dict(plan.stays)
    return [
        [shown, why.get(shown, "something has changed since it was listed")]
        for area, rel in sorted(approved - planned)
        for shown in [f"{area}/{rel}" if area else rel]
    ]


def _stayed(moved: Moved) -> list[list[str]]:
    return [[f"{move.area}/{move.source}" if move.area else move.source, why] for move, why in moved.stayed]


def _reply(what: str, moved: Moved) -> dict[str, Any]:
    return {
        "batch": moved.batch,
        "what": what,
        "moved": [[move.area, move.source, move.target] for move in moved.moves],
        "stayed": _stayed(moved),
    }
