"""The daemon, put together: watch, reconcile, dispatch, deliver. It holds the vault's lock and is its only writer.

    events (hints) ─▶ feed ─(read gate)▶ intake ─▶ index ─▶ dispatcher ─▶ worker
    worker ─▶ images ─▶ index ─▶ deliverer ─(write gate)▶ note

Everything happens in one thread, in `tick`; threads of the watcher and of the worker's pipe only wake it.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

from sqlalchemy.exc import DatabaseError

from loravault.config import VaultConfig
from loravault.holding import check_vault, take_lock
from loravault.index import commands
from loravault.index.database import Index, is_passing, set_aside
from loravault.index.refresh import Refreshed
from loravault.jobs.board import Board
from loravault.jobs.context import Context, log
from loravault.jobs.crew import Crew
from loravault.jobs.deliver import Deliverer
from loravault.jobs.dispatch import Dispatcher
from loravault.jobs.feed import NoteFeed
from loravault.jobs.intake import Intake
from loravault.jobs.orders import Orders
from loravault.jobs.trainingnotes import TrainingNotes
from loravault.keeping.house import COMMANDS as HOUSE_COMMANDS
from loravault.keeping.house import Housekeeper
from loravault.keeping.keepers import Keepers
from loravault.looking import Looks
from loravault.newsettings import NewSettings
from loravault.osdep import Lock
from loravault.vault.ignore import IgnoreRules
from loravault.vault.ledger import Ledger
from loravault.vault.safewrite import VaultWriter
from loravault.watching import Watcher

#: Between two ticks while something is going on, and while nothing is (seconds).
BUSY_S, IDLE_S = 0.1, 1.0

#: After an error of the database that may pass, such as a full disk (seconds).
TROUBLE_S = 5.0

#: Displaced copies and the ledger are tidied this often (seconds).
PRUNE_S = 86400.0

#: Without working events the vault is walked this often (seconds).
POLLING_S = 10.0


class Daemon:
    """One vault, held from `open` to `close`."""

    def __init__(
        self,
        config: VaultConfig,
        *,
        worker_command: Sequence[str] | None = None,
        only: set[str] | None = None,
        watch: bool = True,
    ) -> None:
        self._config = config
        self._worker_command = worker_command
        self._only = only
        self._watch = watch
        self._wake = threading.Event()
        self._hints: queue.SimpleQueue[tuple[str, str, str]] = queue.SimpleQueue()
        self._next_rescan = 0.0
        self._next_prune = time.monotonic() + PRUNE_S
        self._data_version = -1
        self._lock: Lock | None = None
        self._watcher: Watcher | None = None
        self._rebuilt = False
        self._more_to_keep = False
        self._cards_shown = False
        self._settings = NewSettings(config, os.environ)

    # ---- opening and closing

    def open(self) -> None:
        """Take the lock, mend what an earlier process left half done, and look at everything once.

        Raises `AlreadyRunning`, or `UserError` when the vault cannot be used.
        """
        config = self._config
        check_vault(config)
        self._lock = take_lock(config)
        try:
            self._open_rooms()
        except BaseException:
            self.close()
            raise

    def _open_rooms(self) -> None:
        config, state = self._config, self._config.state_dir
        ledger = Ledger(state / "ledger.jsonl")
        writer = VaultWriter(config.vault, ledger, state / "displaced", grace_s=config.grace_s)
        for sentence in writer.recover():
            log.warning("%s", sentence)
        rules = IgnoreRules.read(config.vault, config.folder)
        index = Index(state / "index.sqlite")
        if index.rebuilt_because:
            log.warning("the index was rebuilt because %s", index.rebuilt_because)
        self.ctx = ctx = Context(config=config, index=index, ledger=ledger, writer=writer, rules=rules)
        self._crew = Crew(
            self._worker_command,
            {**os.environ, **config.worker_env},
            config.device,
            state / "worker.log",
            self._wake.set,
            config.idle_exit_s,
        )
        self.housekeeper = Housekeeper(ctx, self.refresh, self._tidied)
        for sentence in self.housekeeper.recover():
            log.warning("%s", sentence)
        self.feed = NoteFeed(ctx)
        ctx.look = self.feed.look_again
        self.keepers = Keepers(
            ctx,
            wake=self._wake.set,
            notes_read=lambda: self._cards_shown or self.feed.first_look_is_over,
            note_paths=self.feed.paths,
        )
        ctx.cards_unread = lambda: self.keepers.cards_unread(self.feed.changing())
        self.intake = Intake(ctx, self.keepers.cards)
        self.looks = Looks(ctx, self._looked, self._came)
        ctx.look_for_adapter = self.looks.hint
        ctx.keeps_cards = config.cards and self._only is None
        self.dispatcher = Dispatcher(ctx, self._crew, self._only)
        self.deliverer = Deliverer(ctx)
        self.board = Board(ctx, self.dispatcher, self._crew, self.keepers.keeping)
        more = {**dict.fromkeys(HOUSE_COMMANDS, self.housekeeper.obey), "recreate": self._recreate}
        more["train"] = TrainingNotes(ctx, self.intake, self.feed.paths).obey
        self.orders = Orders(ctx, self.intake, self.feed, self._look_anew, more)
        self.dispatcher.recover()
        self.deliverer.load()
        if self._watch:
            self._watcher = Watcher(config, self._on_hint)
            trouble = self._watcher.start()
            if trouble:
                ctx.troubles["watcher"] = trouble
        with index.session() as session:
            commands.forget_commands(session, ctx.now() - 60)

    def close(self) -> None:
        """Leave everything as another start expects it. Never raises on the way out of an error."""
        for leave in (self._stop_watching, self._stop_working, self._close_index):
            try:
                leave()
            except Exception:
                log.exception("while leaving")
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _stop_watching(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()

    def _stop_working(self) -> None:
        if hasattr(self, "keepers"):
            self.keepers.close()
        if hasattr(self, "board"):
            self.dispatcher.stop()
            self._settle()
            if self._only is None:
                self.board.write(stopped=True)

    def _close_index(self) -> None:
        if hasattr(self, "ctx"):
            self.ctx.index.close()

    @property
    def restart_wanted(self) -> bool:
        """The installed package is newer than this process."""
        return self.dispatcher.restart_wanted

    def _settle(self) -> None:
        """Wait until the last writes were checked against an edit that crossed them: else a temp stays for now."""
        give_up = time.monotonic() + self._config.grace_s + 1
        while self.ctx.writer.pending_checks and time.monotonic() < give_up:
            for sentence in self.ctx.writer.verify_due():
                log.warning("%s", sentence)
            time.sleep(0.05)

    # ---- the loop

    def run(self, stop: threading.Event, until: Callable[[], bool] | None = None) -> None:
        """Tick until `stop` is set (from a signal handler or another thread) or `until` says so."""
        while not stop.is_set():
            try:
                if until is not None and until():
                    return
                if self.ctx.index.is_replaced():
                    log.warning("the index was deleted; it is built anew")
                    self._build_anew()
                pause = self.tick()
            except DatabaseError as error:
                pause = self._survive(error)
            if self.dispatcher.restart_wanted:
                return
            self._wake.wait(pause)
            self._wake.clear()

    def _survive(self, error: DatabaseError) -> float:
        """The index failed. If that is about the moment, wait; if it is damaged, set it aside and build it anew, once.

        Everything in it comes from the notes, the images and the loras folder, so nothing is lost.
        """
        if is_passing(error):
            log.error("the index cannot be used at the moment: %s", error.orig)
            return TROUBLE_S
        if self._rebuilt:
            raise error
        log.error("the index is damaged (%s); it is set aside and built anew", error.orig)
        self._rebuilt = True
        self.ctx.index.close()
        set_aside(self.ctx.index.path)
        self._build_anew()
        return 0.0

    def _build_anew(self) -> None:
        """Open everything again over an empty index; open runs are found again in the notes that wait for them."""
        self._crew.close()
        self.keepers.close()
        if self._watcher is not None:
            self._watcher.stop()
        self.ctx.index.close()
        self._next_rescan = 0.0
        self._data_version = -1
        self._open_rooms()

    def wake(self) -> None:
        """Make a sleeping loop look at its stop flag."""
        self._wake.set()

    def tick(self) -> float:
        """Do everything that is due. Returns the seconds until something may be due again."""
        ctx = self.ctx
        self._drain_hints()
        if ctx.steady() >= self._next_rescan:
            self._next_rescan = ctx.steady() + ctx.config.rescan_s
            self._guarded("looking through the vault", self.rescan)
        if self.looks.due_in <= 0:
            self._guarded("looking through the LoRAs", self.looks.step)
        for rel in chain(self.feed.ready(), self.intake.waited()):
            if self._only is None or rel in self._only:
                self._guarded(rel, partial(self.intake.consider, rel))
        if self.feed.first_look_is_over and self._only is None:  # else most notes were looked at by nobody
            self.intake.baseline_taken(self.feed.restless)
        self.intake.look_at_invalid()
        self.intake.look_for_previews()
        self._obey()
        self.dispatcher.step()
        self.deliverer.step()
        self._guarded("checking writes", self._verify)
        if self._only is None:
            self._guarded("the library", self.keep)
        if ctx.steady() >= self._next_prune:
            self._next_prune = ctx.steady() + PRUNE_S
            self._guarded("tidying up", self._prune)
        if self._only is None:
            self._guarded("the dashboard", partial(self.board.write, busy=self.keepers.worked))
        return self._pause()

    def _verify(self) -> None:
        for sentence in self.ctx.writer.verify_due():
            log.warning("%s", sentence)
            self.ctx.troubles["conflict"] = sentence

    def keep(self) -> bool:
        """A slice of work on cards, covers and galleries. True: more can be done at once."""
        self._more_to_keep = self.keepers.step(working=self.dispatcher.job is not None)
        if self.keepers.fields_changed:
            self.keepers.fields_changed = False
            self.intake.library_changed()  # weights and trigger words are read from the cards
        return self._more_to_keep

    def settle_library(self, on_progress: Callable[[int], None] = lambda _left: None) -> None:
        """Without a loop: bring cards, covers, galleries and search in line with the files, where notes are at rest.

        Hashes are left to the daemon: they may take hours.
        """
        self.feed.must_be_sound()
        self.intake.show_cards()
        self._cards_shown = True
        while self.keep() or self.keepers.covers.waiting:
            on_progress(self.keepers.waiting)
            if not self._more_to_keep:
                self._wake.wait(0.05)
                self._wake.clear()

    def _tidied(self, weight_ids: set[str]) -> None:
        self.keepers.library_changed(weight_ids)

    def _recreate(self, _kind: str, args: dict[str, Any]) -> dict[str, Any]:
        return self.keepers.cards.recreate(args.get("target"), everything=bool(args.get("all")))

    def _prune(self) -> None:
        for sentence in self.ctx.writer.prune():
            log.info("%s", sentence)
        self.dispatcher.trainings.prune()

    def _guarded(self, what: str, action: Callable[[], object]) -> None:
        """One item that goes wrong in a way nobody thought of costs that item, never the daemon.

        Not for the database: what it says is about all items, and `_survive` knows what to do.
        """
        try:
            action()
        except DatabaseError:
            raise
        except Exception as error:
            log.exception("a bug: %s could not be handled", what)
            self.ctx.troubles[f"bug.{what}"] = (
                f"{what}: a bug in loravault ({type(error).__name__}); what `watch` printed says more."
            )
        else:
            self.ctx.troubles.pop(f"bug.{what}", None)

    def _pause(self) -> float:
        if self.feed.more:
            return 0.0
        if self.feed.waiting or self.deliverer.busy:
            return BUSY_S
        look = self.looks.due_in
        if look <= 0 or self._more_to_keep:
            return 0.0
        due = self._crew.due_in()  # what the worker says wakes the loop by itself
        return min(IDLE_S, look) if due is None else min(IDLE_S, look, due)

    def rescan(self) -> None:
        """Look at every note, and whether the settings are still those of the start."""
        ctx = self.ctx
        ctx.rules = IgnoreRules.read(ctx.config.vault, ctx.config.folder)
        gone = self.feed.rescan()
        for rel in gone:
            self.intake.gone(rel)
        self.keepers.galleries.notes_gone(gone)
        ctx.troubles.pop("config", None)
        if said := self._settings.sentence():
            ctx.troubles["config"] = said
        degraded = self._watcher is not None and not self._watcher.alive
        self._next_rescan = ctx.steady() + (min(POLLING_S, ctx.config.rescan_s) if degraded else ctx.config.rescan_s)

    def refresh(self, on_progress: Callable[[int, int], None] | None = None) -> Refreshed:
        """Look at every adapter and every picture."""
        return self.looks.whole(on_progress)

    def _look_anew(self) -> Refreshed:
        """Look at every adapter and every picture, and compare all that is made of them with the disk."""
        result = self.refresh()
        self.keepers.everything_changed()
        return result

    def _looked(self, result: Refreshed) -> None:
        self.intake.library_changed()
        self.keepers.refreshed(result)

    def _came(self, weight_ids: set[str]) -> None:
        self.intake.library_changed()
        self.keepers.library_changed(weight_ids)

    def _obey(self) -> None:
        """Commands come as rows; a counter of SQLite's says for next to nothing whether anybody wrote."""
        version = self.ctx.index.data_version()
        if version != self._data_version or self.orders.postponed:
            self.orders.step()
            self._data_version = version

    # ---- hints

    def _on_hint(self, kind: str, rel: str, root: str) -> None:
        """Called from the watcher's thread."""
        self._hints.put((kind, rel, root))
        self._wake.set()

    def _drain_hints(self) -> None:
        while True:
            try:
                kind, rel, root = self._hints.get_nowait()
            except queue.Empty:
                return
            if kind == "note":
                self.feed.hint(rel)
            elif kind == "adapter":
                self.looks.hint(root, rel)
            else:
                self._next_rescan = 0.0
