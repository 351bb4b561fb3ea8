"""Commands from the command line, obeyed by whoever holds the vault."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from loravault.errors import UserError
from loravault.index import adapters, commands, images, work
from loravault.index.refresh import Refreshed, forget_losses
from loravault.jobs.context import Context, log
from loravault.jobs.feed import NoteFeed
from loravault.jobs.intake import Intake


class Orders:
    """Takes each command row once and answers it."""

    def __init__(self, ctx: Context, intake: Intake, feed: NoteFeed, refresh: Callable[[], Refreshed]) -> None:
        self._ctx = ctx
        self._intake = intake
        self._feed = feed
        self._refresh = refresh

    def step(self) -> None:
        """Obey what waits."""
        with self._ctx.index.session() as session:
            waiting = list(commands.new_commands(session))
        for row in waiting:
            try:
                state, reply = "done", self.obey(row.kind, json.loads(row.args))
            except UserError as error:
                state, reply = "failed", {"message": error.message}
            with self._ctx.index.session() as session:
                commands.answer(session, row.id or 0, state, reply)
            log.info("command %s: %s", row.kind, reply)

    def obey(self, kind: str, args: dict[str, Any]) -> dict[str, Any]:
        """Do one command. Raises `UserError`."""
        if kind == "run":
            return {"run": self._intake.start(str(args["note"]))}
        if kind == "cancel":
            return {"message": self._intake.cancel(args.get("target"))}
        if kind == "retry":
            return {"runs": self._retry(args.get("target"))}
        if kind == "reindex":
            return self.reindex()
        raise UserError(
            f'This daemon does not know the command "{kind}"; restart it, it may be older than the command line.'
        )

    def reindex(self) -> dict[str, Any]:
        """Look at everything again, and take the roots as they are."""
        ctx = self._ctx
        with ctx.index.session() as session:
            for root in ctx.config.loras:
                if root.path.is_dir():
                    forget_losses(session, root)
        result = self._refresh()
        requests = self._intake.adopt_all()
        for rel in self._feed.paths():
            self._feed.look_again(rel)
        self._feed.rescan()
        with ctx.index.session() as session:
            counts = adapters.count_adapters(session)
            return {
                "adapters": counts.get("ok", 0),
                "broken": counts.get("broken", 0),
                "missing": counts.get("missing", 0),
                "images": images.count_images(session),
                "notes": requests,
                "troubles": list(result.troubles.values()),
            }

    def _retry(self, target: str | None) -> list[str]:
        """Run the failed blocks again: of one note, of one run, or of every note whose last run failed."""
        with self._ctx.index.session() as session:
            failed = [*work.last_runs(session, 200, "failed"), *work.last_runs(session, 200, "partial")]
            latest = {run.note: work.latest_run_of(session, run.note) for run in failed}
        notes_failed = {run.note for run in failed if (newest := latest[run.note]) is not None and newest.id == run.id}
        if target is not None:
            match = {run.note for run in failed if target in (run.id, run.note, f"{run.id}@{self._ctx.config.machine}")}
            if not match and self._ctx.path(target).is_file():
                match = {target}
            if not match:
                raise UserError(f"Nothing that failed is called {target}; `loravault queue` shows what is there.")
            notes_failed = match
        if not notes_failed:
            raise UserError("Nothing has failed, so there is nothing to try again.")
        return [self._intake.start(note) for note in sorted(notes_failed)]
