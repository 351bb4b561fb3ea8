"""`loravault mv`."""

from __future__ import annotations

import click

from loravault.cli.app import App, pass_app
from loravault.cli.moves import tell
from loravault.cli.words import as_json, columns, plain


@click.command("mv")
@click.argument("name")
@click.argument("new")
@click.option("-n", "--dry-run", is_flag=True, help="Only tell what would move.")
@click.option("--json", "as_data", is_flag=True, help="Print it as JSON.")
@click.pass_context
@pass_app
def command(app: App, ctx: click.Context, name: str, new: str, dry_run: bool, as_data: bool) -> None:
    """Rename or move a LoRA with everything that belongs to it.

    NEW is a new name (the LoRA stays in its folder), FOLDER/ or FOLDER/NAME. A NEW that is a folder already means into
    that folder, under the same name. Folders are those inside the same LoRA folder; ./ is its top folder, ./NAME a
    name there. Nothing is overwritten; all files move or none. Its card stays where it is.
    """
    tidying = app.control().tidying()
    if dry_run:
        plan = tidying.plan_rename(name, new)
        if as_data:
            click.echo(as_json(plan))
            return
        click.echo(columns((f"{plan.root}/{source}", "→", target) for source, target in plan.moves))
        _aside(plan.shared, plan.notes)
        click.echo("Nothing was moved (--dry-run).")
        return
    view = tidying.rename(name, new)
    code = tell(view, as_data=as_data)
    if not as_data:
        _aside(view.shared, view.notes)
    ctx.exit(code)


def _aside(shared: tuple[str, ...], notes: tuple[str, ...]) -> None:
    if shared:
        click.echo(plain(f"Another model may need these, they stay: {', '.join(shared)}"))
    for note in notes:
        click.echo(plain(f"{note} names it in the old way and will not find it; change it there."))
