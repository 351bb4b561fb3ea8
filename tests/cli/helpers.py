"""A call of the command line as a process would make it, but in this one, with a door that remembers what was asked."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loravault import cli
from loravault.cli.app import App
from loravault.config import VaultConfig
from loravault.control import AdapterView, CancelView, JobView, ReindexView, RunView
from loravault.errors import UserError
from loravault.index.tables import AdapterRow
from loravault.jobs.context import Event
from loravault.library.names import GivenNames

REINDEXED = ReindexView(adapters=2, broken=1, missing=0, images=3, notes=4, seconds=0.25, troubles=("loras: gone",))


@dataclass
class FakeControl:
    """Answers at once with what it was given; raises `problem` instead if there is one."""

    runs: list[RunView] = field(default_factory=list)
    jobs: list[JobView] = field(default_factory=list)
    finished: list[RunView] = field(default_factory=list)
    rows: list[AdapterRow] = field(default_factory=list)
    found: ReindexView = REINDEXED
    #: What is known of every adapter besides its row.
    told: dict[str, Any] = field(default_factory=dict)
    problem: BaseException | None = None
    asked: list[tuple[Any, ...]] = field(default_factory=list)

    def _ask(self, *what: Any) -> None:
        self.asked.append(what)
        if self.problem is not None:
            raise self.problem

    def watch(self, stop: threading.Event, on_open: Callable[[], None] | None = None) -> None:
        self._ask("watch")
        if on_open is not None:
            on_open()

    def run_note(self, rel: str, on_event: Callable[[Event], None], *, kind: str | None = None) -> RunView:
        self._ask("run" if kind is None else kind, rel)
        on_event(Event("progress", "step 1 of 2", 0.5))
        return self.runs[0]

    def train_folder(
        self, folder: Path, properties: dict[str, Any], prompts: tuple[str, ...], on_event: Callable[[Event], None]
    ) -> RunView:
        self._ask("train", folder, properties, prompts)
        on_event(Event("progress", "step 1 of 2, loss 0.1, 1 s left", 0.5))
        return self.runs[0]

    def retry(self, target: str | None, on_event: Callable[[Event], None]) -> list[RunView]:
        self._ask("retry", target)
        return self.runs

    def cancel(self, target: str | None, *, everything: bool = False) -> CancelView:
        self._ask("cancel", target, everything)
        return CancelView("1 job cancelled.", ("1a-x",))

    def reindex(self, on_event: Callable[[Event], None]) -> ReindexView:
        self._ask("reindex")
        return self.found

    def queue(self) -> list[JobView]:
        self._ask("queue")
        return self.jobs

    def last_runs(self) -> list[RunView]:
        return self.finished

    def adapters(self) -> list[AdapterRow]:
        return self.rows

    def given_names(self) -> GivenNames:
        return GivenNames()

    def adapter(self, row: AdapterRow) -> AdapterView:
        told = {key: getattr(row, key) for key in ("name", "title", "root", "rel", "size", "weight_id", "family")}
        told |= {
            key: getattr(row, key) for key in ("variant", "network", "rank", "alpha", "preview", "state", "reason")
        }
        words = tuple(json.loads(row.trigger_words))
        return AdapterView(**told, trigger_words=words, images=("LoraVault/Images/a.webp",), **self.told)


@dataclass(frozen=True)
class Result:
    """What a process would have left behind."""

    code: int
    out: str
    err: str


def call(app: App, *arguments: str) -> Result:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.execute(list(arguments), app)
    return Result(code, out.getvalue(), err.getvalue())


def app_in(folder: Path, control: FakeControl | None = None, *, set_up: bool = True) -> App:
    """An application whose vault is `folder/vault`, with configuration and state beside it."""
    vault = folder / "vault"
    vault.mkdir(exist_ok=True)
    (folder / "loras").mkdir(exist_ok=True)
    env = {"LORAVAULT_CONFIG_DIR": str(folder / "conf"), "LORAVAULT_STATE_DIR": str(folder / "state")}
    if set_up:
        (folder / "conf").mkdir(exist_ok=True)
        text = f"[[vault]]\npath = '{vault}'\n[vault.loras]\nloras = '{folder / 'loras'}'\n"
        (folder / "conf" / "config.toml").write_text(text, "utf-8")

    def open_control(config: VaultConfig) -> Any:
        if control is None:
            raise UserError("This test has no door.")
        return control

    return App(env=env, cwd=vault, open_control=open_control)
