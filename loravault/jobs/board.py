"""Gathers what the dashboard shows and writes it when it changed, at most every ten seconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from loravault import resources
from loravault.errors import UserError
from loravault.index import commands, notes, work
from loravault.index.tables import JobRow, NoteRow, RunRow
from loravault.jobs.context import Context, log
from loravault.jobs.crew import Crew
from loravault.jobs.dispatch import Dispatcher
from loravault.jobs.lanes import Held
from loravault.jobs.libraryboard import LINES, Keeping, library, notes_to_look_at
from loravault.pages import own
from loravault.pages.dashboard import Dashboard, NoteLine, QueueLine, dashboard_path, render, second_path
from loravault.vault.walk import stat_key

#: The dashboard is written at most this often, and at least this often while the daemon runs (seconds).
LEAST_S, MOST_S = 10.0, 600.0

#: What people wait for comes first: between slices of work on the library it is written only this often (seconds).
BUSY_LEAST_S = 30.0

#: Failures that are named.
FAILURES = 5

#: The progress of the running job is written for the command line at most this often (seconds).
PROGRESS_S = 0.5


class Board:
    """The daemon's own account of itself."""

    def __init__(
        self,
        ctx: Context,
        dispatcher: Dispatcher,
        crew: Crew,
        keeping: Callable[[], Keeping] = Keeping,
    ) -> None:
        self._ctx = ctx
        self._keeping = keeping
        self._dispatcher = dispatcher
        self._crew = crew
        self._shown: Dashboard | None = None
        self._written_at = float("-inf")
        #: Pages that were edited, as was told.
        self._theirs: set[str] = set()
        self._seen: object = None
        #: What the pages looked like after they were written.
        self._left: object = None
        self._progress: dict[str, dict[str, str | float | None]] = {}
        self._progress_at = float("-inf")

    @property
    def rel(self) -> str:
        """Where the page is in the vault."""
        return dashboard_path(self._ctx.config.folder)

    def write(self, *, stopped: bool = False, busy: bool = False) -> None:
        """Write the page if it is due; while cards and galleries are written (`busy`), seldom.

        Trouble with it never stops the daemon.
        """
        self._write_progress()
        if "vault" in self._ctx.troubles:
            return  # it may be the mount point of a drive that is away
        elapsed = self._ctx.steady() - self._written_at
        if elapsed < (BUSY_LEAST_S if busy else LEAST_S) and not stopped:
            return
        seen = (self._ctx.index.data_version(), dict(self._ctx.troubles), self._keeping(), self._pages())
        if elapsed < MOST_S and not stopped and seen == self._seen:
            return
        try:
            board = self._gather(stopped=stopped)
            anew = self._shown is None or _timeless(board) != _timeless(self._shown) or self._pages() != self._left
            if stopped or elapsed >= MOST_S or anew:
                self._put(board)
                self._shown, self._left = board, self._pages()
                self._written_at = self._ctx.steady()
            self._seen = (*seen[:-1], self._left)
        except (OSError, UserError) as error:
            log.warning("the dashboard cannot be written: %s", error)
            self._written_at = self._ctx.steady()

    def _write_progress(self) -> None:
        dispatcher = self._dispatcher
        progress = {held.id: {"phase": _doing(held), "fraction": held.fraction} for held in dispatcher.shown}
        if progress == self._progress or self._ctx.steady() - self._progress_at < PROGRESS_S:
            return
        self._progress, self._progress_at = progress, self._ctx.steady()
        with self._ctx.index.session() as session:
            commands.set_fact(session, "progress", json.dumps(progress))

    def _pages(self) -> object:
        """What the two pages look like from outside: if that changes, somebody edited or deleted one."""
        folder = self._ctx.config.folder
        return [stat_key(self._ctx.path(rel)) for rel in (dashboard_path(folder), second_path(folder))]

    def _put(self, board: Dashboard) -> None:
        """Write the page; while it is the user's, one beside it, which goes as soon as there is no need for it."""
        second = second_path(self._ctx.config.folder)
        if self._write_page(self.rel, board):
            path = self._ctx.path(second)
            if path.is_file() and own.is_ours(path.read_bytes()):
                path.unlink()
            return
        self._write_page(second, replace(board, instead_of=self.rel))

    def _write_page(self, rel: str, board: Dashboard) -> bool:
        """False: it is the user's."""
        path = self._ctx.path(rel)
        old = path.read_bytes() if path.exists() else None
        if old is not None and not own.is_ours(old):
            if rel not in self._theirs:
                log.warning("%s was edited: it is yours now and is not updated; rename it to get a new one", rel)
            self._theirs.add(rel)
            return False
        self._theirs.discard(rel)
        self._ctx.writer.write_own(rel, own.seal(render(board, resources.templates())), old)
        return True

    def _gather(self, *, stopped: bool) -> Dashboard:
        ctx, keeping = self._ctx, self._keeping()
        if stopped:
            keeping = Keeping(notices=keeping.notices)
        with ctx.index.session() as session:
            jobs = work.open_jobs(session)
            shown = {held.id: _doing(held) for held in self._dispatcher.shown}
            running = [job for job in jobs if job.id in shown]
            waiting = [job for job in jobs if job.id not in shown]
            needy = [_problem_line(row) for row in notes.notes_with_problems(session)]
            needy += notes_to_look_at(session, keeping)
            failed = work.unmended_count(session)
            return Dashboard(
                heartbeat="stopped" if stopped else "running",
                when=datetime.fromtimestamp(ctx.now()).strftime("%Y-%m-%d %H:%M"),
                machine=ctx.config.machine,
                device=self._crew.devices or "the worker starts when there is work",
                vault_name=ctx.config.vault.name,
                running=tuple(QueueLine(job.note, _short(job), shown[job.id]) for job in running),
                waiting=tuple(QueueLine(job.note, _short(job)) for job in waiting[:LINES]),
                troubles=tuple(ctx.troubles[key] for key in sorted(ctx.troubles)) + _and_more(len(waiting)),
                failures=tuple(_run_line(run) for run in work.unmended_runs(session, FAILURES)),
                failures_more=max(0, failed - FAILURES),
                skipped=tuple(needy[:LINES]),
                skipped_more=max(0, len(needy) - LINES),
                recent=tuple(_run_line(run) for run in work.last_made(session, 5)),
                library=library(session, ctx, keeping),
            )


def _doing(held: Held) -> str:
    """What is done for a job, and where, if there are several workers."""
    return f"{held.phase} on {held.worker}" if held.worker else held.phase


def _and_more(waiting: int) -> tuple[str, ...]:
    return (f"{waiting - LINES} more blocks wait behind these.",) if waiting > LINES else ()


def _timeless(board: Dashboard) -> dict[str, object]:
    return {key: value for key, value in vars(board).items() if key != "when"}


def _short(job: JobRow) -> str:
    return job.first_line if len(job.first_line) <= 80 else job.first_line[:79] + "…"


def _run_line(run: RunRow) -> NoteLine:
    when = datetime.fromtimestamp(run.finished or run.created).strftime("%d %b %H:%M")
    return NoteLine(run.note, run.message or run.status or "", when)


def _problem_line(row: NoteRow) -> NoteLine:
    return NoteLine(row.path, " ".join(filter(None, (row.problem, row.write_problem))))
