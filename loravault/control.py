"""The command line's one door to a vault.

Beside a running daemon it leaves a command row and follows what comes of it; without one it takes the lock and does the
same in the foreground, with the same parts.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from loravault.config import VaultConfig
from loravault.daemon import Daemon, check_vault, holder
from loravault.errors import UserError
from loravault.index import adapters as adapter_rows
from loravault.index import commands, images, work
from loravault.index.database import Index
from loravault.index.tables import AdapterRow, JobRow, RunRow
from loravault.jobs.context import Event

log = logging.getLogger("loravault")

OnEvent = Callable[[Event], None]

#: How often a running daemon's answer is looked for (seconds), and how long it may take to appear.
POLL_S, ANSWER_S = 0.2, 120.0

#: How long a command without a daemon waits for notes to come to rest; what is not written then is written later.
DELIVER_S = 5.0


@dataclass(frozen=True)
class RunView:
    """One tick and what came of it."""

    id: str
    note: str
    #: `done`, `partial`, `failed` or `cancelled`; None while it is open.
    status: str | None
    message: str | None
    #: Vault-relative paths of the pictures.
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobView:
    """One block in the queue."""

    id: str
    run: str
    note: str
    status: str
    prompt: str
    base: str
    #: Unix time.
    created: float
    #: 0 … 1 while it runs.
    progress: float | None = None
    message: str = ""


@dataclass(frozen=True)
class ReindexView:
    """What a reindex found."""

    adapters: int
    broken: int
    missing: int
    images: int
    notes: int
    seconds: float
    troubles: tuple[str, ...] = field(default_factory=tuple)


class Control:
    """One vault, seen from the command line."""

    def __init__(self, config: VaultConfig, worker_command: Sequence[str] | None = None) -> None:
        self._config = config
        self._worker_command = worker_command

    def daemon_pid(self) -> int | None:
        """The process that holds the vault, if there is one."""
        return holder(self._config)

    def watch(self, stop: threading.Event, on_open: Callable[[], None] | None = None) -> None:
        """Be the daemon until `stop` is set. Raises `AlreadyRunning`."""
        daemon = Daemon(self._config, worker_command=self._worker_command)
        daemon.open()
        try:
            if on_open is not None:
                on_open()
            daemon.run(stop)
        finally:
            daemon.close()
        if daemon.restart_wanted:
            log.info("upgraded, restarting")
            os.execv(sys.executable, [sys.executable, "-m", "loravault", *sys.argv[1:]])

    def run_note(self, rel: str, on_event: OnEvent) -> RunView:
        """Run a note's blocks as a tick would, and wait for the answer to stand in the note."""
        check_vault(self._config)
        if self.daemon_pid() is not None:
            return self._follow_runs([str(self._ask("run", note=rel)["run"])], on_event)[0]
        with self._foreground({rel}, on_event) as daemon:
            return self._work_off(daemon, [daemon.intake.start(rel)])[0]

    def retry(self, target: str | None, on_event: OnEvent) -> list[RunView]:
        """Run failed blocks again: of a note or run, or all."""
        check_vault(self._config)
        if self.daemon_pid() is not None:
            return self._follow_runs(self._ask("retry", target=target)["runs"], on_event)
        only: set[str] = set()
        with self._foreground(only, on_event) as daemon:
            runs = daemon.orders.obey("retry", {"target": target})["runs"]
            only.update(self._run(daemon.ctx.index, run).note for run in runs)
            return self._work_off(daemon, runs)

    def cancel(self, target: str | None) -> str:
        """Stop a note's, a run's or a job's work (None: everything). Returns what was done, in words."""
        if self.daemon_pid() is not None:
            return str(self._ask("cancel", target=target)["message"])
        with self._foreground(set(), lambda _event: None) as daemon:
            message = str(daemon.orders.obey("cancel", {"target": target})["message"])
            give_up = time.monotonic() + self._config.write_quiet_s + DELIVER_S
            daemon.run(threading.Event(), lambda: not daemon.ctx.to_deliver or time.monotonic() > give_up)
            return message

    def reindex(self, on_event: OnEvent) -> ReindexView:
        """Look at every adapter, picture and note again."""
        check_vault(self._config)
        began = time.monotonic()
        if self.daemon_pid() is not None:
            reply = self._ask("reindex")
        else:
            with self._foreground(set(), on_event) as daemon:
                reply = daemon.orders.obey("reindex", {})
        troubles = tuple(reply.pop("troubles"))
        return ReindexView(**reply, seconds=time.monotonic() - began, troubles=troubles)

    def queue(self) -> list[JobView]:
        """Jobs that wait or run, in the order in which they were asked for."""
        with self._index() as index, index.session() as session:
            progress = json.loads(commands.fact(session, "progress") or "{}")
            return [_job_view(job, progress) for job in work.open_jobs(session)]

    def last_runs(self, limit: int = 10) -> list[RunView]:
        """The newest finished runs."""
        with self._index() as index, index.session() as session:
            return [_run_view(run, work.jobs_of(session, run.id)) for run in work.last_runs(session, limit)]

    def adapters(self) -> list[AdapterRow]:
        """Every adapter that is indexed."""
        with self._index() as index, index.session() as session:
            return list(adapter_rows.adapters(session))

    def images_made_with(self, weight_id: str) -> list[str]:
        """Vault-relative paths of the pictures that an adapter made, newest first."""
        with self._index() as index, index.session() as session:
            return images.images_of_adapter(session, weight_id)

    # ---- without a daemon

    @contextmanager
    def _foreground(self, only: set[str], on_event: OnEvent) -> Iterator[Daemon]:
        daemon = Daemon(self._config, worker_command=self._worker_command, only=only, watch=False)
        daemon.open()
        try:
            daemon.ctx.listeners.append(on_event)
            daemon.refresh()
            yield daemon
        finally:
            daemon.close()

    def _work_off(self, daemon: Daemon, runs: Sequence[str]) -> list[RunView]:
        def over() -> bool:
            return all(self._run(daemon.ctx.index, run).status is not None for run in runs)

        daemon.run(threading.Event(), until=over)
        return [self._run(daemon.ctx.index, run) for run in runs]

    # ---- beside a daemon

    def _ask(self, kind: str, **args: Any) -> dict[str, Any]:
        with self._index() as index:
            with index.session() as session:
                number = commands.ask(session, kind, args, time.time())
            give_up = time.monotonic() + ANSWER_S
            while time.monotonic() < give_up:
                with index.session() as session:
                    row = commands.command(session, number)
                if row is None or row.state != "new":
                    break
                self._must_live()
                time.sleep(POLL_S)
            else:
                raise UserError(
                    f"The daemon did not answer within {ANSWER_S:.0f} s; look into its log with `loravault doctor`."
                )
        if row is None:
            raise UserError("The daemon was restarted and did not get the command; try again.")
        reply: dict[str, Any] = json.loads(row.reply)
        if row.state == "failed":
            raise UserError(str(reply["message"]))
        return reply

    def _follow_runs(self, runs: Sequence[str], on_event: OnEvent) -> list[RunView]:
        with self._index() as index:
            shown: tuple[Any, ...] = ()
            while True:
                views = [self._run(index, run) for run in runs]
                if all(view.status is not None for view in views):
                    return views
                self._must_live()
                with index.session() as session:
                    progress = json.loads(commands.fact(session, "progress") or "{}")
                now = (progress.get("job"), progress.get("phase"), progress.get("fraction"))
                if now != shown:
                    shown = now
                    on_event(Event("progress", str(now[1] or "waiting"), now[2], job=now[0]))
                time.sleep(POLL_S)

    def _must_live(self) -> None:
        if self.daemon_pid() is None:
            raise UserError(
                "The daemon has stopped. The request is kept and goes on when `loravault watch` runs again."
            )

    @contextmanager
    def _index(self) -> Iterator[Index]:
        index = Index(self._config.state_dir / "index.sqlite")
        try:
            yield index
        finally:
            index.close()

    @staticmethod
    def _run(index: Index, run_id: str) -> RunView:
        with index.session() as session:
            run = work.run_by_id(session, run_id)
            if run is None:
                raise UserError(
                    "The request was planned again, because its note was changed meanwhile; look into the note."
                )
            return _run_view(run, work.jobs_of(session, run_id))


def _run_view(run: RunRow, jobs: Sequence[JobRow]) -> RunView:
    made = tuple(path for job in jobs for path in json.loads(job.pictures))
    return RunView(run.id, run.note, run.status if run.closed else None, run.message, made)


def _job_view(job: JobRow, progress: dict[str, Any]) -> JobView:
    mine = progress.get("job") == job.id
    spec = json.loads(job.spec) if job.spec else {}
    return JobView(
        id=job.id,
        run=job.run,
        note=job.note,
        status=job.state,
        prompt=job.first_line,
        base=spec.get("base", {}).get("name", ""),
        created=job.created,
        progress=progress.get("fraction") if mine else None,
        message=str(progress.get("phase") or "") if mine else "",
    )
