"""From a settled note to a run: what a tick, a cancel, `auto` or a lost index means for it.

Nothing here writes into a note; what has to be said there waits in the index for the deliverer.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator

from sqlmodel import Session

from loravault.errors import UserError
from loravault.failpoints import reach
from loravault.index import images, notes, work
from loravault.index.tables import NoteRow, RunRow
from loravault.jobs import planning, trainingplans, whose
from loravault.jobs.autos import Autos
from loravault.jobs.cancelling import Cancelling
from loravault.jobs.context import Context, Event, log
from loravault.jobs.patience import Patience
from loravault.jobs.plans import Plans
from loravault.jobs.reading import CardReader, NoteReader, ReadNote
from loravault.jobs.showing import Showing
from loravault.requests.model import Request
from loravault.requests.parse import parse_request
from loravault.vault.paths import inside
from loravault.vault.walk import stat_key, walk_notes

#: Invalid properties that visibly say `run: true` are answered after this time (seconds): the user may be typing.
INVALID_S = 30.0


class Intake:
    """Decides, for every note that changed, whether something is asked."""

    def __init__(self, ctx: Context, cards: CardReader | None = None) -> None:
        self._ctx = ctx
        self._cards = cards
        self._cancelling = Cancelling(ctx)
        self._plans = Plans(ctx)
        self._showing = Showing(ctx.steady)
        #: rel -> when (steady clock) its properties were first seen to be invalid while they say `run: true`.
        self._invalid: dict[str, float] = {}
        with ctx.index.session() as session:
            #: Notes that have a row: all others cost no question to the index.
            self._rows = set(notes.paths(session))
        self._reader = NoteReader(ctx, self._concerns_us)
        self._patience = Patience(ctx, cards, self._reader)
        self._autos = Autos(ctx, self._insert, plans=self._plans, showing=self._showing, patience=self._patience)

    # ---- what the loop calls

    def consider(self, rel: str) -> None:
        """A note changed and has come to rest."""
        if self._cards is not None and self._cards.is_known(rel, stat_key(self._ctx.path(rel))):
            return
        read = self._reader.read(rel)
        self._invalid.pop(rel, None)
        self._ctx.deliver_later.pop(rel, None)
        if read is None or (not read.names_us and not self._concerns_us(rel)):
            return
        problem = self._reader.why_skipped(read) if read.names_us else None
        if self._cards is not None and self._cards.concerns(rel, read.note):
            self._cards.card_seen(rel, read.note, read.key, problem)
            if rel not in self._rows:
                return
        if problem is not None and read.is_invalid_tick:
            self._invalid[rel] = self._ctx.steady()
        taken = False
        if not self._ctx.cards_unread():
            self._know_cards()
        with self._ctx.index.session() as session:
            taken = self._record(session, read, problem)
        if taken:
            reach("intake.recorded")

    def _record(self, session: Session, read: ReadNote, problem: str | None) -> bool:
        """What the note comes to, as rows; whether it is a request."""
        request = None if problem else parse_request(read.note)
        if problem is None and request is None:
            self._no_request(session, read)
            return False
        if request is not None and request.run and not notes.was_seen_unticked(session, read.rel):
            problem = self._reader.why_twin(read)
        row = self._remember(session, read, request, problem)
        if request is None or problem is not None:
            return False
        self._take(session, read, request, row)
        return True

    def show_cards(self) -> None:
        """Hand every card of the vault to who reads them: for commands that look after cards."""
        self._patience.cards.show_all()
        self._know_cards()

    def _know_cards(self) -> None:
        if self._patience.cards.into_index():  # what they said when they were last read counts for the next wish
            self._plans.library_changed()

    def _concerns_us(self, rel: str) -> bool:
        """Whether a note is looked at whatever it says now: it was a request, or a card."""
        return rel in self._rows or (self._cards is not None and self._cards.was_card(rel))

    def _no_request(self, session: Session, read: ReadNote) -> None:
        """It is a note like any other, or has become one. What was asked in it before is still answered in it."""
        if work.open_runs(session, read.rel):
            self._remember(session, read, None, None)
        else:
            notes.forget_note(session, read.rel)
            self._rows.discard(read.rel)

    def gone(self, rel: str) -> None:
        """Two scans did not find the note. Its runs, if any, are followed by the deliverer."""
        self._invalid.pop(rel, None)
        self._patience.drop(rel)
        self._showing.gone(rel)
        if self._cards is not None:
            self._cards.card_gone(rel)
        with self._ctx.index.session() as session:
            if work.open_runs(session, rel):
                self._ctx.to_deliver.add(rel)
            else:
                notes.forget_note(session, rel)
                self._rows.discard(rel)

    def baseline_taken(self, unread: Collection[str] = ()) -> None:
        """The first look at an unknown vault is over: `auto` runs what is new, but in notes still `unread`."""
        self._autos.baseline_taken(unread)

    def waited(self) -> Iterator[str]:
        """Notes to consider again, because what they waited for is over."""
        return self._patience.due()

    def look_at_invalid(self) -> None:
        """Answer notes whose properties have been invalid for a while although they say `run: true`."""
        for rel, since in list(self._invalid.items()):
            if self._ctx.steady() - since >= INVALID_S:
                del self._invalid[rel]
                self._answer_invalid(rel)

    def library_changed(self) -> None:
        """Adapters or bases may have come or gone: names are looked up anew."""
        self._plans.library_changed()
        self._showing.ask_again()

    def look_for_previews(self) -> None:
        """Notes that show adapters without a picture by themselves go on when nothing else waits or runs."""
        if self._autos.baseline or not self._showing.is_due():
            return
        with self._ctx.index.session() as session:
            if work.open_jobs(session):
                return
        for rel in self._showing.take():
            self.consider(rel)

    # ---- what commands call

    def start(self, rel: str, kind: str | None = None) -> str:
        """Run a note now (of this kind), as if it were ticked. Returns the run's id. Raises `UserError`."""
        inside(self._ctx.config.vault, rel)
        read = self._reader.read(rel)
        if read is None:
            raise UserError(f"There is no note {rel} in {self._ctx.config.vault}.")
        problem = self._reader.why_skipped(read)
        if problem:
            raise UserError(f"{rel} cannot run: {problem}")
        request = parse_request(read.note)
        if request is None:
            raise UserError(
                f"{rel} is not a request: it needs the property `loravault: {kind or 'generate'}` and "
                + ("pictures to learn from." if kind == "train" else "a ```prompt block.")
            )
        if kind is not None and request.kind != kind:
            raise UserError(f"{rel} is a request of the kind `{request.kind}`, not `{kind}`: `loravault run` runs it.")
        self._patience.cards.now()
        self._know_cards()
        self._patience.at_once(rel, lambda: self._plan_of(rel))
        read = self._reader.read(rel) or read
        with self._ctx.index.session() as session:
            self._remember(session, read, request, None)
            return self._tick(session, read, request, ticked=request.run)

    def must_wait(self, rels: Collection[str]) -> bool:
        """Whether notes that a command is to run name LoRAs that a look at the library may find yet."""
        return self._patience.holds_command({rel: self._plan_of(rel) for rel in rels})

    def _plan_of(self, rel: str) -> planning.Plan:
        """What a note would come to now."""
        read = self._reader.read(rel)
        request = parse_request(read.note) if read is not None else None
        if read is None or request is None:
            return planning.Plan()
        with self._ctx.index.session() as session:
            return self._plans.tick(session, read, request)

    def cancel(self, target: str | None) -> str:
        """Stop a note, a run or a job by name; everything when none is given. Returns what happened, in words."""
        waited = [rel for rel in sorted(self._patience.ticked) if target in (None, rel, rel.removesuffix(".md"))]
        with self._ctx.index.session() as session:
            said = self._cancelling.named(session, target)
            for rel in waited:
                self._cancelling.note(session, rel, notes.note_or_new(session, rel), also_run=True, waited=True)
        for rel in waited:
            self._patience.drop(rel)
        return (
            f"Cancelled what had not begun in {', '.join(waited)}." if waited and said.startswith("Nothing") else said
        )

    def adopt_all(self) -> int:
        """Look at every note, so that lost runs are found again. Returns how many requests there are."""
        found = 0
        self.show_cards()
        for seen in walk_notes(self._ctx.config.vault, self._ctx.skip_folder):
            read = self._reader.read(seen.rel)
            if read is None or not read.names_us or self._reader.why_skipped(read):
                continue
            request = parse_request(read.note)
            found += request is not None
            if request is not None and not request.run and not request.cancel:
                with self._ctx.index.session() as session:
                    self._remember(session, read, request, None)
                    self._recover(session, read, request)
        return found

    # ---- reading

    def _remember(self, session: Session, read: ReadNote, request: Request | None, problem: str | None) -> NoteRow:
        row = notes.note_or_new(session, read.rel)
        self._rows.add(read.rel)
        if row.sha != read.sha:
            row.write_problem = None
        row.sha, row.dev, row.ino = read.sha, read.key[2], read.key[3]
        row.problem = problem
        row.lv_job = request.job if request else None
        row.seen_unticked = row.seen_unticked or (request is not None and not request.run)
        session.add(row)
        if work.open_runs(session, read.rel):
            self._ctx.to_deliver.add(read.rel)
        return row

    # ---- deciding

    def _take(self, session: Session, read: ReadNote, request: Request, row: NoteRow) -> None:
        if row.stuck_edge is not None and row.stuck_edge == planning.edge(read.note.data):
            return
        row.stuck_edge = None
        self._showing.seen(read.rel, request)
        if request.cancel:
            self._showing.hold(read.rel, request)
            waited = read.rel in self._patience.ticked
            self._cancelling.note(session, read.rel, row, also_run=request.run, waited=waited)
            self._patience.drop(read.rel)
        elif request.run:
            if not whose.is_renamed(self._ctx, session, read):
                self._tick(session, read, request, ticked=True, may_wait=True)
        elif not self._recover(session, read, request) and request.auto:
            self._autos.take(session, read, request)

    def _tick(self, session: Session, read: ReadNote, request: Request, *, ticked: bool, may_wait: bool = False) -> str:
        """An explicit wish to run. Until its receipt is on disk, it is one and the same wish.

        Where it `may_wait`, for cards or for a look at the library, nothing is done until then, but that what it takes
        the place of is not drawn meanwhile.
        """
        earlier = work.unaccepted_run_of(session, read.rel)
        if may_wait and earlier is None and self._patience.cards.holds(read.rel):
            return ""
        run_id = secrets.token_hex(4)
        if earlier is not None and self._is_another_wish(session, earlier, read, request, ticked=ticked):
            earlier.accepted = True
            session.add(earlier)
        elif earlier is not None:
            begun = any(job.attempts for job in work.jobs_of(session, earlier.id))
            if begun or earlier.note_sha == read.sha:
                earlier.ticked = earlier.ticked or ticked
                session.add(earlier)
                return earlier.id
            if held := [job.id for job in work.jobs_of(session, earlier.id) if job.state == "claimed"]:
                self._ctx.to_withdraw.update(held)  # when they have come back, the note is looked at again
                return earlier.id
            # the user went on typing before anything started: plan again from what stands there now
            may_wait = may_wait and earlier.ticked  # else somebody follows that run
            run_id, ticked = earlier.id, ticked or earlier.ticked
            work.delete_run(session, earlier.id)
        plan = self._plans.tick(session, read, request)
        if may_wait and self._patience.holds(read.rel, plan, ticked=True):
            return ""
        self._patience.drop(read.rel)
        if plan.training is not None:
            self._cancelling.training(session, read.rel)
        while any(work.job_by_id(session, job) for job in (*_ids(run_id, plan), trainingplans.training_id(run_id))):
            run_id = secrets.token_hex(4)  # ids are short, for the block ids' sake; they must not meet
        self._insert(session, read, run_id, plan, ticked=ticked)
        return run_id

    def _is_another_wish(
        self, session: Session, earlier: RunRow, read: ReadNote, request: Request, *, ticked: bool
    ) -> bool:
        """Whether a tick is a new one although the index does not know that the earlier run's receipt was given.

        It was given if the note names that run (we died before we could record it). A run that a command or `auto` set
        going has no box to reset; once it has begun, a tick in a changed note is a wish of its own.
        """
        if request.job == f"{earlier.id}@{self._ctx.config.machine}":
            return True
        begun = any(job.attempts for job in work.jobs_of(session, earlier.id))
        return ticked and not earlier.ticked and begun and earlier.note_sha != read.sha

    def _recover(self, session: Session, read: ReadNote, request: Request) -> bool:
        """A note waits for a run of this machine that the index does not know, as it was deleted: queue it again."""
        run_id, _, machine = (request.job or "").partition("@")
        if request.status not in ("queued", "running") or machine != self._ctx.config.machine or not run_id:
            return False
        run = work.run_by_id(session, run_id)
        if run is not None:
            return self._is_behind(session, read, run)
        if whose.original_waits(self._ctx, read):
            return False
        if self._patience.cards.holds(read.rel):
            return True
        plan = self._plans.recovery(session, read, request, run_id)
        if self._patience.holds(read.rel, plan):
            return True
        self._insert(session, read, run_id, plan, ticked=False, found_again=True)
        log.info("%s waits for run %s, which the index does not know: queued again", read.rel, run_id)
        return True

    def _is_behind(self, session: Session, read: ReadNote, run: RunRow) -> bool:
        """A note still waits for a run that is over: it is a copy, or an older version was put back over the answer."""
        if not run.closed:
            return False  # the answer is on its way; whoever waits for it as well is looked at again then
        if run.note == read.rel:
            return whose.answer_once_more(self._ctx, session, run)
        self._insert(session, read, secrets.token_hex(4), whose.nothing_for_a_copy(run.note), ticked=False)
        return True

    def _insert(
        self,
        session: Session,
        read: ReadNote,
        run_id: str,
        plan: planning.Plan,
        *,
        ticked: bool,
        found_again: bool = False,
    ) -> None:
        run = RunRow(
            id=run_id,
            note=read.rel,
            note_sha=read.sha,
            note_dev=read.key[2],
            note_ino=read.key[3],
            created=self._ctx.now(),
            ticked=ticked,
            message=plan.message,
            status=plan.status,
        )
        jobs = planning.job_rows(plan, run, draw_seed)
        if plan.training is not None:
            jobs.append(trainingplans.row_of(plan.training, run))
        if found_again:
            for job in jobs:
                planning.adopt_pictures(job, images.images_of_job(session, job.id))
        work.insert_run(session, run, jobs)
        self._ctx.to_deliver.add(read.rel)
        log.info(
            "%s: run %s with %d block(s)%s", read.rel, run_id, len(jobs), f": {plan.message}" if plan.message else ""
        )
        self._ctx.tell(Event("queued", f"{read.rel}: {len(jobs)} block(s)", run=run_id))

    def _answer_invalid(self, rel: str) -> None:
        """A failure callout at the end of a note whose properties cannot be read; once per text of the properties."""
        read = self._reader.read(rel)
        if read is None or read.note.frontmatter is None or not read.note.frontmatter.problem:
            return
        front = read.note.frontmatter
        run_id = planning.sha(f"{rel}\n{planning.edge(read.note.data)}".encode())[:8]
        with self._ctx.index.session() as session:
            if work.run_by_id(session, run_id) is None:
                self._insert(session, read, run_id, planning.plan_invalid(front.problem or ""), ticked=False)


def _ids(run_id: str, plan: planning.Plan) -> list[str]:
    return [planning.id_of(run_id, item) for item in plan.items]


def draw_seed(count: int) -> int:
    """A seed for `count` pictures. 32 bits, as other tools draw: short enough to read out."""
    return secrets.randbelow(2**32 - count)
