"""`loravault reindex`."""

from __future__ import annotations

import click

from loravault.cli.app import App, pass_app
from loravault.cli.progress import following
from loravault.cli.words import as_json, counted, plain


@click.command("reindex")
@click.option("--json", "as_data", is_flag=True, help="Print the numbers as JSON.")
@pass_app
def command(app: App, as_data: bool) -> None:
    """Look at every LoRA, image and note again.

    The index is only a memory: it can be deleted and this builds it again. Cards, covers and pages are brought up to
    date; LoRA files and what you wrote stay as they are.
    """
    with following("Looking at everything") as show:
        view = app.control().reindex(show)
    if as_data:
        click.echo(as_json(view))
        return
    marks = [f"{count} {word}" for count, word in ((view.broken, "broken"), (view.missing, "missing")) if count]
    aside = f" ({', '.join(marks)})" if marks else ""
    click.echo(
        f"{counted(view.adapters, 'LoRA')}{aside}, {counted(view.images, 'image')}, "
        f"{counted(view.notes, 'request note')}, {view.seconds:.1f} s"
    )
    for trouble in view.troubles:
        click.echo(plain(f"  {trouble}"))
