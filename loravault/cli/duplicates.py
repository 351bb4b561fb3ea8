"""`loravault duplicates`."""

from __future__ import annotations

import click

from loravault.cli.app import App, pass_app
from loravault.cli.tables import show_table
from loravault.cli.words import as_json, counted, size


@click.command("duplicates")
@click.option("--json", "as_data", is_flag=True, help="Print it as JSON.")
@pass_app
def command(app: App, as_data: bool) -> None:
    """List LoRAs that lie in several places.

    The same weights, whatever the files are called. Nothing is changed: `loravault clean` tidies up.
    """
    found = app.control().duplicates()
    freeable = sum(one.freeable for one in found)
    if as_data:
        click.echo(as_json({"freeable": freeable, "duplicates": found}))
        return
    if not found:
        click.echo("No LoRA lies in several places.")
        return
    rows = []
    for one in found:
        more = " (what the files say of themselves differs)" if one.differ else ""
        rows.append((one.name, "used", one.used, size(one.freeable)))
        rows += [("", "copy", f"{other}{more}", "") for other in one.others]
    show_table(("NAME", "", "FILE", "TO FREE"), rows, numbers=("TO FREE",))
    click.echo(f"{counted(len(found), 'LoRA')} in several places; the copies take {size(freeable)}.")
