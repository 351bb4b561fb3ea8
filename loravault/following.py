"""Beside a running daemon: ask it by a row of the index, wait for its answer, and follow runs to their end."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy.exc import DatabaseError
from sqlmodel import Session

from loravault.config import VaultConfig
from loravault.errors import UserError
from loravault.holding import holder
from loravault.index import commands, notes, work
from loravault.index.database import Index, IndexAbsent, is_passing
from loravault.jobs.context import Event
from loravault.views import RunView, run_view

log = logging.getLogger("loravault")

OnEvent = Callable[[Event], None]
T = TypeVar("T")

#: How often a running daemon's answer is looked for (seconds), and how long it may take to be begun.
POLL_S, ANSWER_S = 0.2, 120.0

#: How long an index that its holder is just making, or that cannot be read at the moment, is waited for (seconds).
INDEX_S = 15.0

#: A daemon that restarts itself after an upgrade holds nothing for a moment (seconds).
RESTART_S = 5.0

#: Beyond the quiet that a note needs, a write that failed is given this long to succeed after all (seconds).
STUCK_S = 3.0

GONE = (
    "The request is no longer known: its note was changed meanwhile and it was planned again, or the index was built "
    "anew. Look into the note."
)


class Window:
    """The index of a vault that somebody else holds: only looked into, and looked for again when it was built anew."""

    def __init__(self, config: VaultConfig) -> None:
        self._path = config.state_path / "index.sqlite"
        self._index: Index | None = None

    def index(self) -> Index:
        """The index that is there now. Raises `IndexAbsent` when there is none, `UserError` when it cannot be used."""
        if self._index is not None and self._index.is_replaced():
            self.close()
        if self._index is None:
            self._index = Index(self._path, may_rebuild=False)
        return self._index

    def close(self) -> None:
        """Give the file back."""
        if self._index is not None:
            self._index.close()
            self._index = None


@contextmanager
def window(config: VaultConfig) -> Iterator[Window]:
    """A window that is closed when the block ends."""
    opened = Window(config)
    try:
        yield opened
    finally:
        opened.close()


class Runs:
    """Some runs on their way into their notes."""

    def __init__(self, ids: Sequence[str], patience_s: float) -> None:
        """`patience_s`: how long after its last job a note that could not be written is still given (seconds)."""
        self._ids = ids
        self._patience_s = patience_s
        self._stuck_since: float | None = None
        self.views: list[RunView] = []
        self._jobs: set[str] = set()
        #: Why the rest will not end: all jobs have ended, and the notes cannot be written.
        self.stuck: str | None = None

    def look(self, session: Session) -> bool:
        """Whether it is over, one way or the other. Raises `UserError` when a run is not known (any more)."""
        self.views, problems = [], []
        self._jobs.clear()
        for run_id in self._ids:
            run = work.run_by_id(session, run_id)
            if run is None:
                raise UserError(GONE)
            jobs = work.jobs_of(session, run_id)
            self._jobs.update(job.id for job in jobs)
            self.views.append(run_view(run, jobs))
            note = notes.note_at(session, run.note)
            if not run.closed:
                ended = all(job.state not in work.OPEN_STATES for job in jobs)
                problems.append(note.write_problem if ended and note is not None else None)
        if not problems or None in problems:
            self._stuck_since = None
            return not problems
        return self._is_stuck([view.note for view in self.views if view.status is None], problems)

    def shown(self, progress: Mapping[str, Mapping[str, Any]]) -> tuple[str | None, str, float | None]:
        """Job, phase and fraction of what is drawn: of these runs if one is at it, else of what they wait for."""
        for job in sorted(progress, key=lambda job: job not in self._jobs):
            return job, str(progress[job].get("phase") or ""), progress[job].get("fraction")
        return None, "", None

    def _is_stuck(self, rels: Sequence[str], problems: Sequence[str | None]) -> bool:
        self._stuck_since = self._stuck_since or time.monotonic()
        if time.monotonic() - self._stuck_since < self._patience_s:
            return False  # what could not be written a moment ago may be on its way now
        told = " ".join(f"{rel}: {(why or '').rstrip('.')}." for rel, why in zip(rels, problems, strict=True))
        self.stuck = f"Not everything could be written into the notes; it waits until it can be. {told}"
        return True


class Asking:
    """One command's dealings with the daemon that holds the vault."""

    def __init__(self, config: VaultConfig) -> None:
        self._config = config
        self._last_alive = time.monotonic()

    def ask(self, kind: str, **args: Any) -> dict[str, Any]:
        """Have a command obeyed. Raises `UserError` with the daemon's refusal, or when it does not answer.

        A command that nobody waits for any more is taken back, so that it is not obeyed some time later.
        """
        with window(self._config) as opened:
            index = self._wait_for(opened)
            with index.session() as session:
                number = commands.ask(session, kind, args, time.time())
            try:
                return self._answer(opened, number)
            except KeyboardInterrupt:
                if _take_back(index, number):
                    raise KeyboardInterrupt(
                        "Interrupted before the daemon took the command; it was taken back."
                    ) from None
                raise
            except BaseException:
                _take_back(index, number)
                raise

    def follow(self, runs: Sequence[str], on_event: OnEvent) -> list[RunView]:
        """Wait until the answers of these runs are in their notes. Raises `UserError` when they cannot get there."""
        shown: tuple[Any, ...] = ()
        mine = Runs(runs, self._config.write_quiet_s + STUCK_S)

        def look(session: Session) -> tuple[bool, dict[str, Any]]:
            return mine.look(session), json.loads(commands.fact(session, "progress") or "{}")

        with window(self._config) as opened:
            while True:
                self._must_live("The request is kept and goes on when `loravault watch` runs again.")
                over, progress = self._patiently(opened, look)
                if mine.stuck:
                    raise UserError(mine.stuck)
                if over:
                    return mine.views
                now = mine.shown(progress)
                if now != shown:
                    shown = now
                    on_event(Event("progress", str(now[1] or "waiting"), now[2], job=now[0]))
                time.sleep(POLL_S)

    def _answer(self, opened: Window, number: int) -> dict[str, Any]:
        give_up = time.monotonic() + ANSWER_S
        while True:
            row = self._patiently(opened, lambda session: commands.command(session, number))
            if row is None:
                raise UserError("The daemon started anew and did not get the command; try again.")
            if row.state in ("done", "failed"):
                break
            if row.state == "new":
                self._must_live("The command was not taken and does not wait: give it again.")
                if time.monotonic() > give_up:
                    raise UserError(self._silence())
            else:
                self._must_live(
                    "Whether the command was carried out is not known: `loravault queue` shows what is there."
                )
            time.sleep(POLL_S)
        reply: dict[str, Any] = json.loads(row.reply)
        if row.state == "failed":
            raise UserError(str(reply["message"]))
        return reply

    def _silence(self) -> str:
        return (
            f"The daemon (pid {holder(self._config)}) did not take the command within {ANSWER_S:.0f} s, so it was "
            "taken back. What the daemon says is in the terminal (or the log) of `loravault watch`, what its worker "
            f"says in {self._config.state_path / 'worker.log'}."
        )

    def _wait_for(self, opened: Window) -> Index:
        """The index; one that is just being made is waited for."""
        give_up = time.monotonic() + INDEX_S
        while True:
            try:
                return opened.index()
            except IndexAbsent as error:
                self._must_live("The command was not given: try again.")
                if time.monotonic() > give_up:
                    raise UserError(
                        f"The daemon runs, but its index {self._config.state_path / 'index.sqlite'} is not there: stop "
                        "`loravault watch` and start it again, it is built anew."
                    ) from error
                time.sleep(POLL_S)

    def _patiently(self, opened: Window, look: Callable[[Session], T]) -> T:
        """What a look into the index shows. An index that cannot be read at the moment is looked at again."""
        give_up = time.monotonic() + INDEX_S
        while True:
            try:
                with self._wait_for(opened).session() as session:
                    return look(session)
            except DatabaseError as error:
                if not is_passing(error) or time.monotonic() > give_up:
                    raise
                log.debug("the index cannot be read at the moment: %s", error.orig)
                time.sleep(POLL_S)

    def _must_live(self, what_then: str) -> None:
        if holder(self._config) is not None:
            self._last_alive = time.monotonic()
        elif time.monotonic() - self._last_alive > RESTART_S:
            raise UserError(f"The daemon has stopped. {what_then}")


def _take_back(index: Index, number: int) -> bool:
    """Withdraw a command that was not begun. True if it will not be obeyed."""
    if index.is_replaced():
        return True  # it went with the old index; the new one may have another of its number
    try:
        with index.session() as session:
            row = commands.command(session, number)
            if row is not None and row.state == "new":
                session.delete(row)
            return row is None or row.state == "new"
    except DatabaseError as error:
        log.debug("a command could not be taken back: %s", error.orig)
        return False
