"""`loravault retry`."""

from __future__ import annotations

import click

from loravault.cli.app import App, pass_app
from loravault.cli.notes import note_or_run
from loravault.cli.outcome import tell
from loravault.cli.progress import following


@click.command("retry")
@click.argument("target", required=False)
@click.option("--json", "as_data", is_flag=True, help="Print the outcome as JSON.")
@click.pass_context
@pass_app
def command(app: App, ctx: click.Context, target: str | None, as_data: bool) -> None:
    """Run failed requests again.

    TARGET is a note, or a run from `loravault queue`; without it, everything that failed.
    """
    config = app.config()
    if target is not None:
        target = note_or_run(config.vault, app.cwd, target)
    with following("Trying again") as show:
        views = app.open_control(config).retry(target, show)
    if not views and not as_data:
        click.echo("Nothing has failed: there is nothing to try again.")
        return
    ctx.exit(tell(views, as_data=as_data))
