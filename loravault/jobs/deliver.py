"""Delivery: the receipt, the results and the last word of a run are written into its note.

Order of truth: the image is on disk, then its row, then the note, then the job is closed (design §2, rule 3). A crash
between any two is mended by running this again: an answer whose region already stands in the note is not written twice.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence

from sqlalchemy.exc import DatabaseError

from loravault.errors import UserError
from loravault.failpoints import reach
from loravault.index import notes, work
from loravault.index.tables import RunRow
from loravault.jobs import planning, whose
from loravault.jobs.context import Context, Event, log
from loravault.jobs.pending import Pending, compose, finish_run, has_something_to_say, is_due, stuck_message
from loravault.vault.answers import Applied
from loravault.vault.paths import VaultGone
from loravault.vault.properties import EditRefused
from loravault.vault.safewrite import NoteChanged
from loravault.vault.walk import walk_notes

#: After a write that failed (read-only, disk full): at most one attempt a minute.
RETRY_S = 60.0

#: The answer of a note that is gone waits this long for it (seconds): a phone may be offline for days.
GONE_S = 7 * 86400.0

_BLOCK_LINK = re.compile(rb"#\^(lv-[A-Za-z0-9-]+)")


class Deliverer:
    """Writes what waits, when the note is at rest."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        #: note -> when (steady clock) it was first not there.
        self._absent: dict[str, float] = {}

    def load(self) -> None:
        """At the start: find everything that an earlier process left unsaid."""
        with self._ctx.index.session() as session:
            self._ctx.to_deliver.update(run.note for run in work.open_runs(session))
            self._ctx.to_deliver.update(row.path for row in notes.notes_with_acks(session))

    @property
    def busy(self) -> bool:
        """Whether something waits for a note to come to rest (not for a disk, or for a person)."""
        return any(self._ctx.deliver_later.get(note, 0.0) <= self._ctx.now() for note in self._ctx.to_deliver)

    def step(self) -> None:
        """Write into every note that is due."""
        for note in sorted(self._ctx.to_deliver):
            if self._ctx.deliver_later.get(note, 0.0) > self._ctx.now():
                continue
            try:
                self._deliver(note)
            except NoteChanged:
                self._ctx.observe(note)  # somebody is typing: the quiet period starts again
            except VaultGone as error:
                self._refused(note, error.message, RETRY_S)
            except UserError as error:
                self._refused(note, error.message, float("inf"))
            except OSError as error:
                self._refused(note, f"it could not be written ({error.strerror or error}).", RETRY_S)
            except DatabaseError:
                raise
            except Exception as error:
                log.exception("%s cannot be answered", note)
                self._refused(note, f"a bug in loravault ({type(error).__name__}); its log says more.", float("inf"))

    def _deliver(self, note: str) -> None:
        ctx = self._ctx
        pending = self._load_pending(note)
        if not has_something_to_say(pending):
            ctx.to_deliver.discard(note)  # whoever ends a job or ticks a box puts it back
            return
        key = ctx.observe(note)
        if key is None:
            self._note_gone(pending)
            return
        self._absent.pop(note, None)
        if not is_due(pending, ctx.now(), ctx.config.together_s) or ctx.quiet_for(note, key) < ctx.config.write_quiet_s:
            return
        data = ctx.path(note).read_bytes()
        if pending.receipt_due and (pending.row is None or pending.row.sha != planning.sha(data)):
            ctx.look(note)  # a receipt is for what was read; this text was not read yet
            return
        over = [run for run in pending.runs if pending.is_over(run)]
        for run in over:
            finish_run(run, pending.jobs[run.id], ctx.now())

        cap = ctx.config.result_cap
        linked = linked_results(ctx) if cap is not None else None

        behind = ctx.waiting_behind  # as it is now: an edit that crosses the write gets the same answer seconds later

        def composition(text: bytes) -> Applied:
            return compose(text, pending, ctx.config.machine, cap, linked, behind=behind)

        def said(text: bytes) -> bytes:
            return composition(text).data

        try:
            composed = composition(data)
        except EditRefused as refused:
            if pending.answers:
                raise
            composed = Applied(data, {"run": refused.message})  # a receipt that cannot be given keeps no answer back
        reach("deliver.before-note")
        if composed.data != data:
            ctx.writer.replace(note, data, composed.data, rebase=said)  # an edit that crosses it gets the answer too
            log.info("wrote into %s", note)
        reach("deliver.after-note")
        self._close(pending, over, composed)

    def _load_pending(self, note: str) -> Pending:
        with self._ctx.index.session() as session:
            runs = list(work.open_runs(session, note))
            pending = Pending(note, notes.note_at(session, note), runs)
            pending.jobs = {run.id: list(work.jobs_of(session, run.id)) for run in runs}
            return pending

    def _close(self, pending: Pending, over: Sequence[RunRow], composed: Applied) -> None:
        """The note is on disk: now the index may say so."""
        stuck = {"run", "cancel"} & composed.unset.keys()
        delivered = {job.id for job in pending.answers}
        planned = {job.id: job.plan for job in pending.plans}
        copies: list[str] = []
        with self._ctx.index.session() as session:
            for run in pending.runs:
                row = work.run_by_id(session, run.id)
                if row is None:
                    continue
                row.accepted = True
                if run in over:
                    copies += [copy.path for copy in whose.followers(session, run)]
                    row.closed, row.status, row.message, row.finished = True, run.status, run.message, run.finished
                session.add(row)
                for job in work.jobs_of(session, run.id):
                    if job.id in delivered:
                        job.delivered = True
                    if job.id in planned and job.plan == planned[job.id]:
                        job.plan_delivered = True
                    session.add(job)
            note = notes.note_at(session, pending.note)
            if note is not None:
                # a box that cannot be reset was obeyed all the same: the same properties are not a new wish
                if stuck:
                    note.stuck_edge = planning.edge(composed.data)
                    note.problem = stuck_message(composed.unset)
                note.cancel_ack, note.run_ack, note.ack_message = False, False, None
                note.write_problem = None
                session.add(note)
        reach("deliver.after-close")
        for copy in copies:
            self._ctx.look(copy)  # it says that it waits
        self._ctx.deliver_later.pop(pending.note, None)
        self._ctx.observe(pending.note)
        for run in over:
            kind = "done" if run.status in ("done", "partial") else "failed"
            self._ctx.tell(Event(kind, f"{pending.note}: {run.message or run.status}", run=run.id))

    def _note_gone(self, pending: Pending) -> None:
        """The note is not where it was: follow it by `lv_job`, else tell on the dashboard and keep the images.

        Not at once: a sync tool or an editor may be about to put it back.
        """
        ctx = self._ctx
        if ctx.steady() - self._absent.setdefault(pending.note, ctx.steady()) < max(1.0, ctx.config.read_quiet_s * 2):
            return
        with ctx.index.session() as session:
            for run in pending.runs:
                for row in whose.followers(session, run):
                    if ctx.path(row.path).exists():
                        work.move_run(session, run, row.path)
                        notes.auto_move(session, pending.note, row.path)
                        notes.forget_note(session, pending.note)
                        ctx.to_deliver.add(row.path)
                        log.info("%s is now %s", pending.note, row.path)
                        break
            if not work.open_runs(session, pending.note):
                ctx.to_deliver.discard(pending.note)
                return
            row = notes.note_or_new(session, pending.note)
            made = any(json.loads(job.pictures) for jobs in pending.jobs.values() for job in jobs)
            kept = " The pictures are kept." if made else ""
            row.write_problem = f"the note is gone; its answer waits in case it comes back.{kept}"
            session.add(row)
            for run in pending.runs:
                if ctx.now() - run.created > GONE_S and pending.is_over(run):
                    finish_run(run, pending.jobs[run.id], ctx.now())
                    run.closed = True
                    session.add(run)
        ctx.deliver_later[pending.note] = ctx.now() + RETRY_S

    def _refused(self, note: str, message: str, wait_s: float) -> None:
        """Told on the dashboard, and tried again when the time comes or the user changes the note."""
        self._ctx.deliver_later[note] = self._ctx.now() + wait_s
        log.warning("%s: %s", note, message)
        with self._ctx.index.session() as session:
            row = notes.note_or_new(session, note)
            row.write_problem = message
            session.add(row)
        self._ctx.tell(Event("note", f"{note}: {message}"))


def linked_results(ctx: Context) -> frozenset[str]:
    """The block ids of results that some note of the vault links: a cap never removes one of these."""
    found: set[str] = set()
    for seen in walk_notes(ctx.config.vault, ctx.skip_folder):
        with contextlib.suppress(OSError):
            found.update(match.decode() for match in _BLOCK_LINK.findall(ctx.path(seen.rel).read_bytes()))
    return frozenset(found)
