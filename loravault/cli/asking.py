"""Questions that a command asks at a terminal."""

from __future__ import annotations

import click

from loravault.errors import UserError


def confirmed(question: str, *, default: bool) -> bool:
    """What a person answers. Raises `UserError` where nobody does: in a script, or at the end of what is piped in."""
    try:
        return click.confirm(question, default=default)
    except click.Abort as error:
        if not isinstance(error.__context__, EOFError):
            raise
    except RuntimeError:  # there is no standard input at all
        pass
    click.echo()
    raise UserError("There was no answer, so nothing was done: with --yes it is done without a question.")
