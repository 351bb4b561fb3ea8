"""Delivery: the receipt, the results and the last word of a run are written into its note.

Order of truth: the image is on disk, then its row, then the note, then the job is closed (design §2, rule 3). A crash
between any two is mended by running this again: an answer whose region already stands in the note is not written twice.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy.exc import DatabaseError

from loravault.errors import UserError
from loravault.failpoints import reach
from loravault.index import notes, work
from loravault.index.tables import JobRow, NoteRow, RunRow
from loravault.jobs import planning, words
from loravault.jobs.context import Context, Event, log
from loravault.jobs.sheets import sheet_answers
from loravault.vault.answers import Answer, Applied, apply_answers_told
from loravault.vault.links import wikilink
from loravault.vault.paths import VaultGone
from loravault.vault.properties import EditRefused
from loravault.vault.safewrite import NoteChanged
from loravault.vault.walk import walk_notes

#: After a write that failed (read-only, disk full): at most one attempt a minute.
RETRY_S = 60.0

#: The answer of a note that is gone waits this long for it (seconds): a phone may be offline for days.
GONE_S = 7 * 86400.0

_BLOCK_LINK = re.compile(rb"#\^(lv-[A-Za-z0-9-]+)")


@dataclass
class Pending:
    """Everything that waits to be said in one note."""

    note: str
    row: NoteRow | None
    runs: list[RunRow]
    jobs: dict[str, list[JobRow]] = field(default_factory=dict)

    @property
    def receipt_due(self) -> bool:
        """A checkbox of the user's waits to be reset."""
        acks = self.row is not None and (self.row.cancel_ack or self.row.run_ack)
        return acks or any(not run.accepted for run in self.runs)

    @property
    def answers(self) -> list[JobRow]:
        """Jobs that ended and are not delivered. Those that share a callout come together, when all of them ended."""
        return [
            job
            for run in self.runs
            for job in self.jobs[run.id]
            if not job.delivered and job.state not in work.OPEN_STATES and (not job.sheet or self.is_over(run))
        ]

    @property
    def plans(self) -> list[JobRow]:
        """Trainings that have not ended, of which the first answer is not delivered."""
        return [job for job in self.open_jobs if job.plan is not None and not job.plan_delivered]

    @property
    def open_jobs(self) -> list[JobRow]:
        """Jobs that still wait or run."""
        return [job for run in self.runs for job in self.jobs[run.id] if job.state in work.OPEN_STATES]

    def is_over(self, run: RunRow) -> bool:
        """Every job of the run has ended."""
        return all(job.state not in work.OPEN_STATES for job in self.jobs[run.id])


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

        def said(text: bytes) -> bytes:
            return compose(text, pending, ctx.config.machine, cap, linked).data

        try:
            composed = compose(data, pending, ctx.config.machine, cap, linked)
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
        with self._ctx.index.session() as session:
            for run in pending.runs:
                row = work.run_by_id(session, run.id)
                if row is None:
                    continue
                row.accepted = True
                if run in over:
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
                for row in notes.notes_with_job(session, run.id):
                    if row.path != pending.note and ctx.path(row.path).exists():
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


def has_something_to_say(pending: Pending) -> bool:
    """Whether anything of this note waits to be written, now or soon. Pure."""
    return (
        pending.receipt_due
        or bool(pending.answers or pending.plans)
        or any(pending.is_over(run) for run in pending.runs)
    )


def is_due(pending: Pending, now: float, together_s: float) -> bool:
    """Whether there is something to write now. Blocks that finish within `together_s` are written together. Pure."""
    if pending.receipt_due or pending.plans:
        return True
    answers = pending.answers
    if any(pending.is_over(run) for run in pending.runs):
        return True
    oldest = min((job.finished or now for job in answers), default=now)
    return bool(answers) and now - oldest >= together_s


def finish_run(run: RunRow, jobs: Sequence[JobRow], now: float) -> None:
    """Give a run whose jobs have all ended its status, its message and its time."""
    if run.status is None:
        run.status = words.run_status([job.state for job in jobs])
    if run.message is None:
        run.message = words.run_message([ended(job) for job in jobs])
    run.finished = run.finished or now


def ended(job: JobRow) -> words.Ended:
    """What the run's message needs of a job."""
    made = len(json.loads(job.pictures))
    lines = json.loads(job.answer) if job.answer else []
    trouble = lines[1].removeprefix("- ") if job.state == "failed" and len(lines) > 1 else None
    return words.Ended(job.state, made, job.seconds, trouble)


def linked_results(ctx: Context) -> frozenset[str]:
    """The block ids of results that some note of the vault links: a cap never removes one of these."""
    found: set[str] = set()
    for seen in walk_notes(ctx.config.vault, ctx.skip_folder):
        with contextlib.suppress(OSError):
            found.update(match.decode() for match in _BLOCK_LINK.findall(ctx.path(seen.rel).read_bytes()))
    return frozenset(found)


def compose(
    data: bytes, pending: Pending, machine: str, cap: int | None = None, linked: Collection[str] | None = None
) -> Applied:
    """The note with everything that waits said in it. Pure.

    A checkbox that cannot be reset is said in the answer, for that is what the user will look at.
    """
    answers = answers_of(pending)
    wanted = properties(pending, machine)
    applied = apply_answers_told(data, answers, wanted, cap=cap, linked=linked)
    if answers and {"run", "cancel"} & applied.unset.keys():
        last = answers[-1]
        answers[-1] = replace(last, lines=(*last.lines, words.sentence(stuck_message(applied.unset))))
        applied = apply_answers_told(data, answers, wanted, cap=cap, linked=linked)
    return applied


def answers_of(pending: Pending) -> list[Answer]:
    """What waits to be said, in the order of the runs."""
    waiting = pending.answers
    answers: list[Answer] = []
    for run in pending.runs:
        mine = [job for job in waiting if job.run == run.id]
        told = [job for job in mine if not job.sheet and not _is_superseded(pending, job)]
        answers += [answer_of(job) for job in told if json.loads(job.answer or "[]")]
        answers += sheet_answers([job for job in mine if job.sheet])
        answers += [plan_of(job) for job in pending.plans if job.run == run.id]
    return answers


def _is_superseded(pending: Pending, job: JobRow) -> bool:
    """Whether a training was stopped for a later one of the same note: that takes the place of its plan."""
    if job.kind != "train" or job.state != "cancelled":
        return False
    later = [run.id for run in pending.runs]
    later = later[later.index(job.run) + 1 :]
    return any(one.kind == "train" for run in later for one in pending.jobs[run])


def stuck_message(unset: Mapping[str, str]) -> str:
    """Why a checkbox stays ticked although it was obeyed."""
    key = "run" if "run" in unset else "cancel"
    return f"`{key}` could not be reset: {unset[key].rstrip('.')}. It counts again when you change the properties."


def answer_of(job: JobRow) -> Answer:
    """The answer of an ended job, for the room that knows where it goes."""
    return Answer(
        job=job.id,
        block_hash=job.block_hash,
        ordinal=job.ordinal,
        kind=_kind_of(job),
        lines=tuple(json.loads(job.answer or "[]")),
        prompt_first_line=job.first_line,
        whole=job.kind == "train",
    )


def _kind_of(job: JobRow) -> str:
    """A cancelled job shows what it had finished; a training that was stopped may still go on."""
    if job.state == "failed":
        return "failure"
    return "plan" if job.kind == "train" and job.state == "cancelled" else "result"


def plan_of(job: JobRow) -> Answer:
    """The first answer of a training; its end takes the place of it."""
    return Answer(
        job=job.id, block_hash=None, ordinal=0, kind="plan", lines=tuple(json.loads(job.plan or "[]")), whole=True
    )


def properties(pending: Pending, machine: str) -> dict[str, str | bool | None]:
    """Our keys as they shall stand. The newest run speaks for the note."""
    changes: dict[str, str | bool | None] = {}
    row = pending.row
    stuck = row is not None and row.stuck_edge is not None  # tried again with every answer: it may say why
    if stuck or any(not run.accepted and run.ticked for run in pending.runs) or (row is not None and row.run_ack):
        changes["run"] = False
    if row is not None and row.cancel_ack:
        changes["cancel"] = False
        changes["lv_message"] = row.ack_message
    if not pending.runs:
        return changes
    newest = pending.runs[-1]
    changes["lv_job"] = f"{newest.id}@{machine}"
    if pending.open_jobs:
        running = any(job.state == "running" for job in pending.open_jobs)
        changes["lv_status"] = "running" if running else "queued"
        changes["lv_message"] = waiting_message(pending)
    else:
        changes["lv_status"] = newest.status
        changes["lv_finished"] = datetime.fromtimestamp(newest.finished or 0).strftime("%Y-%m-%dT%H:%M:%S")
        changes["lv_message"] = newest.message or None
    pictures = [path for job in pending.answers for path in json.loads(job.pictures)]
    if pictures:
        changes["lv_cover"] = wikilink(pictures[-1])
    return changes


def waiting_message(pending: Pending) -> str:
    """What a person who looks at the note meanwhile wants to know."""
    count = len(pending.open_jobs)
    trainings = [job for job in pending.open_jobs if job.kind == "train"]
    if trainings and len(trainings) == count:
        known = f", {trainings[0].steps:,} steps" if trainings[0].steps else ""
        return f"{trainings[0].first_line}{known}; the dashboard shows how far it is"
    return "1 block to make" if count == 1 else f"{count} blocks to make"
