"""Housekeeping, seen from the command line: what would happen is shown by a look, what happens is a command."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from loravault.config import VaultConfig
from loravault.keeping.batches import Batch
from loravault.keeping.renaming import RenamePlan, plan_rename
from loravault.keeping.tidy import UNUSED_DAYS, CleanPlan, confirm_twins, plan_clean
from loravault.keeping.trash import Binned, Trash
from loravault.vault.ledger import Ledger


@dataclass(frozen=True)
class MovedView:
    """What a command moved, with its batch for `undo`, and what stayed and why."""

    batch: str
    what: str
    #: (root, or empty for the vault; from; to)
    moved: tuple[tuple[str, str, str], ...]
    stayed: tuple[tuple[str, str], ...]
    #: Of a rename: files that may be another model's, and notes that name the adapter by its old name.
    shared: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class EmptiedView:
    """What was deleted for good."""

    deleted: int
    bytes: int
    problems: tuple[str, ...]


class Tidying:
    """One vault. `look` runs a function over the current index; `obey` has the holder of the lock do something."""

    def __init__(
        self,
        config: VaultConfig,
        look: Callable[[Callable[[Session], Any]], Any],
        obey: Callable[..., dict[str, Any]],
    ) -> None:
        self._config = config
        self._look = look
        self._obey = obey

    def plan_clean(self, kinds: Iterable[str], unused_days: float = UNUSED_DAYS) -> CleanPlan:
        """What would go. Changes nothing."""
        wanted = tuple(kinds)
        plan: CleanPlan = self._look(
            lambda session: plan_clean(self._config, session, wanted, now=time.time(), unused_days=unused_days)
        )
        return plan

    def clean(
        self,
        kinds: Iterable[str],
        plan: CleanPlan,
        unused_days: float = UNUSED_DAYS,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> MovedView:
        """Move what a plan shows into the trash, after all bytes of duplicates were compared."""
        confirmed = confirm_twins(self._config, plan, on_progress)
        approved = [[piece.area, piece.rel] for item in confirmed.items for piece in item.pieces]
        reply = self._obey("house.clean", kinds=list(kinds), unused_days=unused_days, approved=approved)
        stayed = [stay for stay in confirmed.stays if stay not in plan.stays]
        return _moved({**reply, "stayed": [*stayed, *reply["stayed"]]})

    def plan_rename(self, name: str, new: str) -> RenamePlan:
        """What `mv` would move. Changes nothing."""
        plan: RenamePlan = self._look(lambda session: plan_rename(self._config, session, name, new))
        return plan

    def rename(self, name: str, new: str) -> MovedView:
        """Move an adapter with all its sidecars, or nothing."""
        return _moved(self._obey("house.mv", name=name, new=new))

    def batches(self) -> list[Batch]:
        """What can be undone, newest first."""
        return self._trash().batches()

    def undo(self, batch: str | None) -> MovedView:
        """Move a batch back, the newest one if none is named."""
        return _moved(self._obey("house.undo", batch=batch))

    def binned(self, older_than_s: float) -> list[Binned]:
        """What lies in the trash for so long."""
        return self._trash().binned(older_than_s)

    def empty(self, chosen: Sequence[Binned]) -> EmptiedView:
        """Delete that for good."""
        reply = self._obey("house.empty", approved=[[one.area, one.rel] for one in chosen])
        return EmptiedView(int(reply["deleted"]), int(reply["bytes"]), tuple(reply["problems"]))

    def _trash(self) -> Trash:
        return Trash(self._config, Ledger(self._config.state_path / "ledger.jsonl"))


def _moved(reply: dict[str, Any]) -> MovedView:
    return MovedView(
        batch=str(reply["batch"]),
        what=str(reply["what"]),
        moved=tuple((str(area), str(source), str(target)) for area, source, target in reply["moved"]),
        stayed=tuple((str(name), str(why)) for name, why in reply["stayed"]),
        shared=tuple(map(str, reply.get("shared", ()))),
        notes=tuple(map(str, reply.get("notes", ()))),
    )
