"""`loravault cancel`."""

from __future__ import annotations

import click

from loravault.cli.app import App, pass_app
from loravault.cli.notes import note_or_any
from loravault.cli.words import as_json, plain
from loravault.errors import UserError


@click.command("cancel")
@click.argument("target", required=False)
@click.option("--all", "everything", is_flag=True, help="Cancel everything that waits or runs.")
@click.option("--json", "as_data", is_flag=True, help="Print what was cancelled as JSON.")
@pass_app
def command(app: App, target: str | None, everything: bool, as_data: bool) -> None:
    """Cancel a request, or the one that is running.

    TARGET is a note, or a job from `loravault queue`.
    """
    if target is not None and everything:
        raise UserError("Name what to cancel, or say --all: not both.")
    config = app.config()
    if target is not None:
        target = note_or_any(config.vault, app.cwd, target)
    view = app.open_control(config).cancel(target, everything=everything)
    click.echo(as_json(view) if as_data else plain(view.message))
