"""Commands from the command line, obeyed by whoever holds the vault."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from sqlalchemy.exc import DatabaseError

from loravault.errors import UserError
from loravault.index import adapters, commands, images, notes, work
from loravault.index.database import is_damage
from loravault.index.refresh import Refreshed, forget_losses
from loravault.index.refresh_images import forget_lost_images
from loravault.jobs.context import Context, log
from loravault.jobs.feed import NoteFeed
from loravault.jobs.intake import Intake
from loravault.vault.paths import inside


class Orders:
    """Takes each command row once and answers it."""

    def __init__(
        self,
        ctx: Context,
        intake: Intake,
        feed: NoteFeed,
        refresh: Callable[[], Refreshed],
        more: Mapping[str, Callable[[str, dict[str, Any]], dict[str, Any]]] = MappingProxyType({}),
    ) -> None:
        """`more`: commands of rooms that stand above this one, by kind."""
        self._more = more
        self._ctx = ctx
        self._intake = intake
        self._feed = feed
        self._refresh = refresh
        #: Answers that could not be written when they were known: number -> state and reply.
        self._unsaid: dict[int, tuple[str, dict[str, Any]]] = {}
        #: A command waits for a look at the library: `step` again soon.
        self.postponed = False

    def step(self) -> None:
        """Obey what waits. No command ends the daemon; only a damaged index is left to whoever can mend it."""
        self._say()
        self.postponed = False
        with self._ctx.index.session() as session:
            waiting = [row.id or 0 for row in commands.new_commands(session)]
        for number in waiting:
            self._take(number)

    def _take(self, number: int) -> None:
        """Obey one command, unless its asker has taken it back; once begun it can no longer be.

        One that runs notes stays where it is as long as LoRAs they name may be found yet by a look at the library.
        """
        with self._ctx.index.session() as session:
            row = commands.command(session, number)
            if row is None or row.state != "new":
                return
            kind, args = row.kind, row.args
        if self._must_wait(kind, json.loads(args)):
            self.postponed = True
            return
        with self._ctx.index.session() as session:
            row = commands.command(session, number)
            if row is None or row.state != "new":
                return
            row.state = "taken"
            session.add(row)
        try:
            state, reply = "done", self.obey(kind, json.loads(args))
        except UserError as error:
            state, reply = "failed", {"message": error.message}
        except Exception as error:
            if isinstance(error, DatabaseError) and is_damage(error):
                raise
            log.exception("command %s failed", kind)
            state, reply = "failed", {"message": _unexpected(kind, error)}
        log.info("`%s`: %s", kind, reply.get("message") or ", ".join(f"{key} {reply[key]}" for key in reply) or state)
        self._unsaid[number] = state, reply
        self._say()

    def _say(self) -> None:
        """Write the answers. One that cannot be written now is kept: its asker waits, the command was carried out."""
        for number, (state, reply) in list(self._unsaid.items()):
            with self._ctx.index.session() as session:
                commands.answer(session, number, state, reply)
            del self._unsaid[number]

    def _must_wait(self, kind: str, args: dict[str, Any]) -> bool:
        try:
            rels = (
                [str(args["note"])]
                if kind == "run"
                else list(self._failed(args.get("target")))
                if kind == "retry"
                else []
            )
            return self._intake.must_wait(rels)
        except (UserError, OSError):
            return False  # whoever obeys says what is wrong

    def obey(self, kind: str, args: dict[str, Any]) -> dict[str, Any]:
        """Do one command. Raises `UserError`."""
        if kind in self._more:
            return self._more[kind](kind, args)
        if kind == "run":
            return {"run": self._start(str(args["note"]), args.get("of"))}
        if kind == "cancel":
            return self._cancel(args.get("target"), everything=bool(args.get("all")))
        if kind == "retry":
            return self._retry(args.get("target"))
        if kind == "reindex":
            return self.reindex()
        raise UserError(
            f'This daemon does not know the command "{kind}"; restart it, it may be older than the command line.'
        )

    def reindex(self) -> dict[str, Any]:
        """Look at everything again, and take the roots and the vault as they are."""
        ctx = self._ctx
        with ctx.index.session() as session:
            for root in ctx.config.loras:
                if os.path.isdir(root.path):
                    forget_losses(session, root)
            forget_lost_images(session, ctx.config.vault)
        for rel in self._feed.accept_losses():
            self._intake.gone(rel)
        result = self._refresh()
        requests = self._intake.adopt_all()
        for rel in self._feed.paths():
            self._feed.look_again(rel)
        for rel in self._feed.rescan():
            self._intake.gone(rel)
        with ctx.index.session() as session:
            counts = adapters.count_adapters(session)
            return {
                "adapters": counts.get("ok", 0),
                "broken": counts.get("broken", 0) + counts.get("incomplete", 0),
                "missing": counts.get("missing", 0),
                "images": images.count_images(session),
                "notes": requests,
                "troubles": list(result.troubles.values()),
            }

    def _start(self, rel: str, kind: str | None = None) -> str:
        """Run a note of the vault now. A command is reason enough to try a write again that was refused before."""
        ctx = self._ctx
        if not os.path.isfile(inside(ctx.config.vault, rel)):
            raise UserError(f"There is no note {rel} in {ctx.config.vault}.")
        with ctx.index.session() as session:
            row = notes.note_at(session, rel)
            if row is not None:
                row.write_problem = None
                session.add(row)
        ctx.deliver_later.pop(rel, None)
        return self._intake.start(rel, kind)

    def _cancel(self, target: str | None, *, everything: bool) -> dict[str, Any]:
        """Stop what is called so; without a name the note that is running, never all that waits unless that is said."""
        before = self._not_cancelled()
        if target is None and not everything:
            running = [note for _, note, state in before if state == "running"]
            if not running:
                waits = f" {len(before)} in the queue: name one, or say --all." if before else ""
                return {"message": f"Nothing is running, so there is nothing to cancel.{waits}", "jobs": []}
            target = running[0]
        message = self._intake.cancel(target)
        left = {job for job, _, _ in self._not_cancelled()}
        return {"message": message, "jobs": [job for job, _, _ in before if job not in left]}

    def _not_cancelled(self) -> list[tuple[str, str, str]]:
        """Job, note and state of what waits or runs and was not called off."""
        with self._ctx.index.session() as session:
            return [(job.id, job.note, job.state) for job in work.open_jobs(session) if not job.cancel]

    def _retry(self, target: str | None) -> dict[str, Any]:
        """Run failed blocks again. A note that cannot run again keeps no other from it; if none can, it is an error."""
        failed = self._failed(target)
        runs: list[str] = []
        refused: list[dict[str, str]] = []
        for note, run in sorted(failed.items()):
            try:
                runs.append(self._start(note))
            except UserError as error:
                refused.append({"run": run, "note": note, "message": error.message})
            except OSError as error:
                refused.append({"run": run, "note": note, "message": f"It cannot be read: {error.strerror or error}."})
        if not runs:
            raise UserError(" ".join(no["message"] for no in refused))
        return {"runs": runs, "refused": refused}

    def _failed(self, target: str | None) -> dict[str, str]:
        """Note -> failed run: those called so, or of every note whose last run failed. Raises `UserError` for none."""
        with self._ctx.index.session() as session:
            runs = [run for status in work.FAILED for run in work.last_runs(session, 200, status)]
            failed = {run.note: run.id for run in work.unmended_runs(session, 400)}
        if target is None:
            if not failed:
                raise UserError("Nothing has failed, so there is nothing to try again.")
            return failed
        named = {
            run.note: run.id for run in runs if target in (run.id, run.note, f"{run.id}@{self._ctx.config.machine}")
        }
        if not named and os.path.isfile(inside(self._ctx.config.vault, target)):
            named = {target: ""}
        if not named:
            raise UserError(f"Nothing that failed is called {target}; `loravault queue` shows what is there.")
        return named


def _unexpected(kind: str, error: Exception) -> str:
    """A bug of ours, as the asker reads it: its place is in the daemon's log."""
    about = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
    return f"`{kind}` failed in the daemon ({about}); the terminal or log of `loravault watch` says where."
