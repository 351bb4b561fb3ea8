"""Questions that a command asks at a terminal."""

from __future__ import annotations

import click

from loravault.errors import UserError


def confirmed(question: str, *, default: bool) -> bool:
    """What a person answers. Raises `UserError` where nobody can: in a script, or behind a pipe that is empty."""
    try:
        return click.confirm(question, default=default)
    except click.Abort as error:
        if isinstance(error.__context__, EOFError):
            click.echo()
            raise UserError(
                "Nobody is there to answer, so nothing was done: add --yes if that is what you want."
            ) from None
        raise
