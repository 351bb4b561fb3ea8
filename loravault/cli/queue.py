"""`loravault queue`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from loravault.cli.app import App, pass_app
from loravault.cli.words import as_json, columns

if TYPE_CHECKING:
    from loravault.control import JobView, RunView


@click.command("queue")
@click.option("--json", "as_data", is_flag=True, help="Print it as JSON.")
@pass_app
def command(app: App, as_data: bool) -> None:
    """Show what is running and what waits.

    Below it stand the requests that finished last.
    """
    control = app.control()
    jobs, finished = control.queue(), control.last_runs()
    if as_data:
        click.echo(as_json({"jobs": jobs, "finished": finished}))
        return
    click.echo(columns(_waiting(jobs)) if jobs else "Nothing is running and nothing waits.")
    if finished:
        click.echo("\nFinished last:")
        click.echo(columns(_finished(finished)))


def _waiting(jobs: Sequence[JobView]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("JOB", "STATUS", "", "NOTE", "PROMPT")]
    for job in jobs:
        done = f"{job.progress:.0%}" if job.progress is not None else ""
        rows.append((str(job.id), job.status, done, job.note, job.message or _short(job.prompt)))
    return rows


def _finished(runs: Sequence[RunView]) -> list[Sequence[str]]:
    return [
        ("RUN", "STATUS", "NOTE", "MESSAGE"),
        *((r.id, r.status or "", r.note, _short(r.message or "")) for r in runs),
    ]


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
