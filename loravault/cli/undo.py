"""`loravault undo`."""

from __future__ import annotations

import click

from loravault.cli.app import App, pass_app
from loravault.cli.moves import tell
from loravault.cli.words import as_json, columns, counted


@click.command("undo")
@click.argument("batch", required=False)
@click.option("-l", "--list", "listed", is_flag=True, help="List what can be undone.")
@click.option("--json", "as_data", is_flag=True, help="Print it as JSON.")
@click.pass_context
@pass_app
def command(app: App, ctx: click.Context, batch: str | None, listed: bool, as_data: bool) -> None:
    """Move back what `clean` or `mv` moved.

    BATCH is one from --list; without it the newest is undone. Nothing is overwritten.
    """
    tidying = app.control().tidying()
    if not listed:
        ctx.exit(tell(tidying.undo(batch), as_data=as_data, undo=False))
    batches = [one for one in tidying.batches() if one.left]
    if as_data:
        click.echo(as_json(batches))
        return
    if not batches:
        click.echo("There is nothing to undo.")
        return
    click.echo(columns((one.id, counted(len(one.left), "file"), one.what) for one in batches))
