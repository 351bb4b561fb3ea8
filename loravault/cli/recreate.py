"""`loravault recreate`."""

from __future__ import annotations

import click

from loravault.cli.app import App, pass_app
from loravault.cli.words import as_json, plain
from loravault.errors import UserError


@click.command("recreate")
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="Every card that was deleted.")
@click.option("--json", "as_data", is_flag=True, help="Print it as JSON.")
@pass_app
def command(app: App, name: str | None, everything: bool, as_data: bool) -> None:
    """Make cards again that were deleted.

    A deleted card stays deleted until it is asked for here. NAME is a LoRA as prompts call it.
    """
    if (name is None) == (not everything):
        raise UserError("Name one LoRA, or say --all for every card that was deleted.")
    done = app.control().recreate(name, everything=everything)
    if as_data:
        click.echo(as_json(done))
        return
    click.echo(plain("\n".join([done["message"], *(f"  {path}" for path in done["cards"])])))
