"""What a note with `auto: true` runs by itself: blocks that nobody has met yet, never what was there before us."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from typing import Protocol

from sqlmodel import Session

from loravault.index import commands, notes, work
from loravault.jobs import planning
from loravault.jobs.context import Context
from loravault.jobs.patience import Patience
from loravault.jobs.plans import Plans
from loravault.jobs.reading import ReadNote
from loravault.jobs.showing import Showing
from loravault.requests.model import Request


class Insert(Protocol):
    """Puts a run into the index."""

    def __call__(self, session: Session, read: ReadNote, run_id: str, plan: planning.Plan, *, ticked: bool) -> None:
        """Whether a box was ticked for it: `ticked`."""


class Autos:
    """Decides about notes with `auto`; what is made of one goes to `insert`."""

    def __init__(
        self,
        ctx: Context,
        insert: Insert,
        *,
        plans: Plans,
        showing: Showing,
        patience: Patience,
    ) -> None:
        self._ctx = ctx
        self._plans = plans
        self._showing = showing
        self._patience = patience
        self._insert = insert
        self._unread: Collection[str] = ()
        with ctx.index.session() as session:
            #: The first look at an unknown vault is not over: nothing runs by itself.
            self.baseline = commands.fact(session, "baseline") is None

    def baseline_taken(self, unread: Collection[str] = ()) -> None:
        """The first look is over, but for notes still `unread`."""
        if self.baseline:
            self.baseline, self._unread = False, unread
            with self._ctx.index.session() as session:
                commands.set_fact(session, "baseline", str(int(self._ctx.now())))

    def take(self, session: Session, read: ReadNote, request: Request) -> None:
        """A note with `auto` was read, and waits for no earlier run."""
        if request.kind == "preview":
            self._previews(session, read, request)
            return
        if request.kind == "train":
            return  # hours of work begin because a person asks for them
        looked = self._plans.look_up(session, read, request)
        known = notes.auto_known(session, read.rel) | work.fingerprints_tried(session, read.rel)
        if self.baseline or read.rel in self._unread:
            notes.auto_remember(session, read.rel, [planning.place_of(item) for item in looked])
            known.update(planning.place_of(item) for item in looked)
        known |= self._there_before(session, read, looked, known)
        plan = planning.plan_auto(looked, known)
        if not plan.items or self._patience.cards.holds(read.rel) or self._patience.holds(read.rel, plan):
            return
        if work.unaccepted_run_of(session, read.rel) is None:
            # else: the receipt changes the note, and with that it comes here again
            notes.auto_remember(session, read.rel, [item.fingerprint for item in plan.items])
            self._insert(session, read, secrets.token_hex(4), plan, ticked=False)

    def _previews(self, session: Session, read: ReadNote, request: Request) -> None:
        """The next adapters without a picture: when nothing else waits or runs, and none that was tried before."""
        catalog = self._plans.catalog(session)
        plan = self._showing.next_plan(session, read, request, catalog, may_begin=not self.baseline)
        if plan.items and not self._patience.holds(read.rel, plan):
            notes.auto_remember(session, read.rel, [item.fingerprint for item in plan.items])
            self._insert(session, read, secrets.token_hex(4), plan, ticked=False)

    def _there_before(
        self, session: Session, read: ReadNote, looked: Collection[planning.Looked], known: Collection[str]
    ) -> set[str]:
        """The fingerprints of blocks that were there before us: nothing old runs by itself.

        What such a block asks for is not certain before all cards and LoRAs were looked at, so until then it is known
        by its text.
        """
        old = [item for item in looked if planning.place_of(item) in known]
        found = {item.fingerprint for item in old}
        if old:
            notes.auto_remember(session, read.rel, sorted(found))
            waits = [self._patience.cards.holds(read.rel), self._patience.holds(read.rel, planning.Plan(tuple(old)))]
            if not any(waits):
                notes.auto_forget(session, read.rel, [place for place in known if planning.is_place(place)])
        return found
