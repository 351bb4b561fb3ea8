"""How moved files are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from loravault.cli.words import as_json, counted, plain

if TYPE_CHECKING:
    from loravault.tidying import MovedView


def tell(view: MovedView, *, as_data: bool, undo: bool = True) -> int:
    """Print what was moved and what stayed; the exit code: 0 when nothing had to stay, else 1."""
    if as_data:
        click.echo(as_json(view))
    else:
        hint = f"; `loravault undo {view.batch}` moves them back" if undo and view.moved else ""
        click.echo(f"{counted(len(view.moved), 'file')} moved{hint}.")
        for name, why in view.stayed:
            click.echo(plain(f"  stays: {name} ({why.rstrip('.')})"))
    return 1 if view.stayed else 0
