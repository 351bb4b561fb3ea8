"""`loravault run`."""

from __future__ import annotations

import click

from loravault.cli.app import App, pass_app
from loravault.cli.notes import note_in_vault
from loravault.cli.outcome import tell
from loravault.cli.progress import following


@click.command("run")
@click.argument("note")
@click.option("--json", "as_data", is_flag=True, help="Print the outcome as JSON.")
@click.pass_context
@pass_app
def command(app: App, ctx: click.Context, note: str, as_data: bool) -> None:
    """Run one request note now and wait for its pictures.

    NOTE is a path, from here or from the top of the vault, or a name that only one note has; `.md` may be left out.
    Beside a running `loravault watch` the request is handed to it, else it is answered here.
    """
    config = app.config()
    rel = note_in_vault(config.vault, app.cwd, note)
    with following(rel) as show:
        view = app.open_control(config).run_note(rel, show)
    ctx.exit(tell([view], as_data=as_data))
