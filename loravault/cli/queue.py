"""`loravault queue`."""

from __future__ import annotations

import click

from loravault.cli.app import App, pass_app
from loravault.cli.words import as_json, columns


@click.command("queue")
@click.option("--json", "as_data", is_flag=True, help="Print it as JSON.")
@pass_app
def command(app: App, as_data: bool) -> None:
    """Show what is running and what waits."""
    jobs = app.control().queue()
    if as_data:
        click.echo(as_json(jobs))
        return
    if not jobs:
        click.echo("Nothing is running and nothing waits.")
        return
    rows = [("JOB", "STATUS", "", "NOTE", "PROMPT")]
    for job in jobs:
        done = f"{job.progress:.0%}" if job.progress is not None else ""
        prompt = job.prompt if len(job.prompt) <= 60 else job.prompt[:59] + "…"
        rows.append((str(job.id), job.status, done, job.note, job.message or prompt))
    click.echo(columns(rows))
