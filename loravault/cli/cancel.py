"""`loravault cancel`."""

from __future__ import annotations

import click

from loravault.cli.app import App, pass_app
from loravault.cli.words import plain


@click.command("cancel")
@click.argument("target", required=False)
@pass_app
def command(app: App, target: str | None) -> None:
    """Cancel a request, or the one that is running.

    TARGET is a job from `loravault queue` or a note.
    """
    click.echo(plain(app.control().cancel(target)))
