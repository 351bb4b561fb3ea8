"""The command line's one door to a vault.

Beside a running daemon it leaves a command row and follows what comes of it; without one it takes the lock and does the
same in the foreground, with the same parts.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlmodel import Session

from loravault import __version__
from loravault.config import VaultConfig
from loravault.daemon import Daemon
from loravault.errors import UserError
from loravault.following import STUCK_S, Asking, OnEvent, Runs, Window, window
from loravault.holding import check_vault, holder
from loravault.index import adapters as adapter_rows
from loravault.index import cards, commands, overview, search, work
from loravault.index.database import IndexAbsent
from loravault.index.search import Found, Sort
from loravault.index.search_words import Filter
from loravault.index.tables import AdapterRow
from loravault.jobs.context import Event
from loravault.library import overview as library
from loravault.library.names import GivenNames
from loravault.library.overview import Duplicate, Statistics
from loravault.tidying import Tidying
from loravault.views import AdapterView, CancelView, JobView, ReindexView, RunView, adapter_view, job_view, run_view

__all__ = ["AdapterView", "CancelView", "Control", "JobView", "OnEvent", "ReindexView", "RunView"]

log = logging.getLogger("loravault")

T = TypeVar("T")

#: How long a command without a daemon waits for notes to come to rest; what is not written then is written later.
DELIVER_S = 5.0

#: Tells a process that it is the restart after an upgrade, and which version it was before.
RESTARTED = "LORAVAULT_RESTARTED"


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
            _restart()

    def run_note(self, rel: str, on_event: OnEvent, *, kind: str | None = None) -> RunView:
        """Run a note as a tick would, and wait for the answer to stand in it. `kind`: what it must be a request for."""
        check_vault(self._config)
        if self.daemon_pid() is not None:
            asking = Asking(self._config)
            return asking.follow([str(asking.ask("run", note=rel, of=kind)["run"])], on_event)[0]
        with self._foreground({rel}, on_event) as daemon:
            return self._work_off(daemon, [str(daemon.orders.obey("run", {"note": rel, "of": kind})["run"])])[0]

    def train_folder(
        self, folder: Path, properties: Mapping[str, Any], prompts: Sequence[str], on_event: OnEvent
    ) -> RunView:
        """Make a training note for a folder of pictures, run it, and wait for its answer."""
        check_vault(self._config)
        args = {"folder": str(folder), "properties": dict(properties), "prompts": list(prompts)}
        if self.daemon_pid() is not None:
            asking = Asking(self._config)
            return asking.follow([str(asking.ask("train", **args)["run"])], on_event)[0]
        only: set[str] = set()
        with self._foreground(only, on_event) as daemon:
            daemon.rescan()  # the names that are taken
            reply = daemon.orders.obey("train", args)
            only.add(str(reply["note"]))
            return self._work_off(daemon, [str(reply["run"])])[0]

    def retry(self, target: str | None, on_event: OnEvent) -> list[RunView]:
        """Run failed blocks again: of a note or run, or all. A note that cannot run again is told as failed."""
        check_vault(self._config)
        if self.daemon_pid() is not None:
            asking = Asking(self._config)
            reply = asking.ask("retry", target=target)
            views = asking.follow(reply["runs"], on_event)
        else:
            only: set[str] = set()
            with self._foreground(only, on_event) as daemon:
                reply = daemon.orders.obey("retry", {"target": target})
                with daemon.ctx.index.session() as session:
                    only.update(run.note for run_id in reply["runs"] if (run := work.run_by_id(session, run_id)))
                views = self._work_off(daemon, reply["runs"])
        return views + [RunView(no["run"], no["note"], "failed", no["message"]) for no in reply["refused"]]

    def cancel(self, target: str | None, *, everything: bool = False) -> CancelView:
        """Stop a note's, a run's or a job's work; without a target the note that is running, or all there is."""
        asked = {"target": target, "all": everything}
        if self.daemon_pid() is not None:
            reply = Asking(self._config).ask("cancel", **asked)
        else:
            with self._foreground(set(), lambda _event: None) as daemon:
                reply = daemon.orders.obey("cancel", asked)
                give_up = time.monotonic() + self._config.write_quiet_s + DELIVER_S
                daemon.run(threading.Event(), lambda: not daemon.ctx.to_deliver or time.monotonic() > give_up)
        return CancelView(str(reply["message"]), tuple(reply["jobs"]))

    def reindex(self, on_event: OnEvent) -> ReindexView:
        """Look at every adapter, picture and note again."""
        check_vault(self._config)
        began = time.monotonic()
        if self.daemon_pid() is not None:
            reply = Asking(self._config).ask("reindex")
        else:
            with self._foreground(set(), on_event) as daemon:
                reply = daemon.orders.obey("reindex", {})
                daemon.settle_library(lambda left: on_event(Event("phase", f"cards and covers, {left} to go")))
        troubles = tuple(reply.pop("troubles"))
        return ReindexView(**reply, seconds=time.monotonic() - began, troubles=troubles)

    def recreate(self, target: str | None, *, everything: bool = False) -> dict[str, Any]:
        """Make cards anew that were deleted: of the adapter called so, or all. Returns `message` and `cards`."""
        check_vault(self._config)
        if self.daemon_pid() is not None:
            return Asking(self._config).ask("recreate", target=target, all=everything)
        with self._foreground(set(), lambda _event: None) as daemon:
            daemon.settle_library()
            return daemon.orders.obey("recreate", {"target": target, "all": everything})

    def tidying(self) -> Tidying:
        """Housekeeping: clean, mv, undo."""
        return Tidying(self._config, self._look_closely, self._obey)

    def _obey(self, kind: str, **args: Any) -> dict[str, Any]:
        check_vault(self._config)
        if self.daemon_pid() is not None:
            return Asking(self._config).ask(kind, **args)
        with self._foreground(set(), lambda _event: None) as daemon:
            return daemon.orders.obey(kind, args)

    def _look_closely(self, look: Callable[[Session], T]) -> T:
        """A look into an index that is current: beside a daemon as it keeps it, else after a look at all files."""
        if self.daemon_pid() is not None:
            with window(self._config) as opened, opened.index().session() as session:
                return look(session)
        with self._foreground(set(), lambda _event: None) as daemon, daemon.ctx.index.session() as session:
            return look(session)

    # ---- what only looks

    def look(self, look: Callable[[Session], T], nothing: T) -> T:
        """What a look into the index shows; `nothing` where there is no index yet."""
        return self._look(look, nothing)

    def queue(self) -> list[JobView]:
        """Jobs that wait or run, in the order in which they were asked for."""
        return self._look(_jobs, [])

    @contextmanager
    def open_queue(self) -> Iterator[Callable[[], list[JobView]]]:
        """A function that tells the queue, for whoever asks several times a second: the index is opened once."""
        with window(self._config) as opened:
            yield lambda: _look_through(opened, _jobs, [])

    def last_runs(self, limit: int = 5) -> list[RunView]:
        """The newest finished runs, newest first."""
        return self._look(
            lambda session: [run_view(run, work.jobs_of(session, run.id)) for run in work.last_runs(session, limit)],
            [],
        )

    def adapters(self) -> list[AdapterRow]:
        """Every adapter that is indexed."""
        return self._look(lambda session: list(adapter_rows.adapters(session)), [])

    def given_names(self) -> GivenNames:
        """What people call them."""
        return self._look(cards.given_names, GivenNames())

    def search(self, text: str, filters: Sequence[Filter] = (), *, sort: Sort, limit: int | None) -> Found:
        """Adapters that a person's words and filters mean."""
        absent = Found(remarks=("Nothing is indexed yet; `loravault watch` or `loravault reindex` does that.",))
        return self._look(lambda session: search.search(session, text, filters, sort=sort, limit=limit), absent)

    def duplicates(self) -> list[Duplicate]:
        """Adapters whose weights lie at several places."""
        return self._look(overview.duplicates, [])

    def statistics(self) -> Statistics:
        """The library in numbers."""
        return self._look(overview.statistics, library.statistics([]))

    def adapter(self, row: AdapterRow) -> AdapterView:
        """Everything that is known of one of `adapters`."""
        nothing = AdapterView(
            row.name, row.title, row.root, row.rel, row.size, row.weight_id, row.family, row.variant, row.network,
            row.rank, row.alpha, (), row.preview, row.state, row.reason,
        )  # fmt: skip
        return self._look(lambda session: adapter_view(session, row), nothing)

    def _look(self, look: Callable[[Session], T], nothing: T) -> T:
        with window(self._config) as opened:
            return _look_through(opened, look, nothing)

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

    def _work_off(self, daemon: Daemon, ids: Sequence[str]) -> list[RunView]:
        """Be the daemon until these runs are over. Raises `UserError` when their answers cannot be written."""
        runs = Runs(ids, self._config.write_quiet_s + STUCK_S)

        def over() -> bool:
            with daemon.ctx.index.session() as session:
                return runs.look(session)

        daemon.run(threading.Event(), until=over)
        if runs.stuck is not None:
            raise UserError(runs.stuck)
        if daemon.restart_wanted:
            raise UserError("loravault was upgraded while this ran; what is not finished is kept. Run it again.")
        return runs.views


def _look_through(opened: Window, look: Callable[[Session], T], nothing: T) -> T:
    """What a look into the index shows; `nothing` where there is no index yet. It is never made or mended here."""
    try:
        index = opened.index()
    except IndexAbsent:
        return nothing
    with index.session() as session:
        return look(session)


def _jobs(session: Session) -> list[JobView]:
    progress = json.loads(commands.fact(session, "progress") or "{}")
    return [job_view(job, progress) for job in work.open_jobs(session)]


def _restart() -> None:
    """Become the installed version. One that is still another after a restart would restart for ever: `UserError`."""
    if os.environ.get(RESTARTED) == __version__:
        raise UserError(
            f"The worker is loravault {_installed_version()} and the daemon is {__version__}, also after a restart: "
            "two installations are mixed up. Start `loravault watch` in another folder, or reinstall loravault."
        )
    log.info("upgraded, restarting")
    os.environ[RESTARTED] = __version__
    os.execv(sys.executable, [sys.executable, "-m", "loravault", *sys.argv[1:]])


def _installed_version() -> str:
    """The version that a new process finds, as the worker does: without a look into the current folder."""
    done = subprocess.run(
        [sys.executable, "-c", "import loravault; print(loravault.__version__)"],
        env={**os.environ, "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "another version"
