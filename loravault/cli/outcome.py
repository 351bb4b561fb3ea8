"""How finished runs are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from loravault.cli.words import as_json, plain

if TYPE_CHECKING:
    from loravault.control import RunView


def tell(views: Sequence[RunView], *, as_data: bool) -> int:
    """Print them; the exit code: 0 when all of them are done, else 1."""
    if as_data:
        click.echo(as_json(list(views)))
    else:
        for view in views:
            click.echo(plain(f"{view.note}: {view.status}" + (f" ({view.message})" if view.message else "")))
            for image in view.images:
                click.echo(plain(f"  {image}"))
    return 0 if all(view.status == "done" for view in views) else 1
