"""The command line: one command per file, no decisions. Here their errors become one sentence and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from loravault.cli.app import App
from loravault.cli.root import root
from loravault.cli.words import plain
from loravault.errors import AlreadyRunning, UserError

EXIT_ERROR = 1
#: As sysexits.h calls it: a temporary failure, try again later.
EXIT_ALREADY_RUNNING = 75
#: 128 + SIGINT, as shells count.
EXIT_INTERRUPTED = 130

_INTERRUPTED = "Interrupted. Nothing is lost: what was not finished is done when loravault runs again."


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and leave the process with its exit code."""
    sys.exit(execute(arguments))


def execute(arguments: Sequence[str] | None = None, app: App | None = None) -> int:
    """Run one command; its exit code.

    0 = done, 1 = not done and told why, 2 = wrong usage, 75 = another process serves the vault, 130 = Ctrl-C.
    """
    try:
        result = root.main(arguments, prog_name="loravault", standalone_mode=False, obj=app)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # `loravault queue | head`: the reader has left, and Python would complain when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except (Exception, KeyboardInterrupt) as error:
        sentence, code = _in_words(error)
        click.echo(f"loravault: {plain(sentence)}", err=True)
        return code
    return result if isinstance(result, int) else 0


def _in_words(error: BaseException) -> tuple[str, int]:
    """What a person reads about an error, and the exit code; an error that is a bug of ours is raised again."""
    if isinstance(error, click.Abort | KeyboardInterrupt):
        cause = error.__cause__ if isinstance(error, click.Abort) else error
        said = str(cause) if isinstance(cause, KeyboardInterrupt) else ""
        return said or _INTERRUPTED, EXIT_INTERRUPTED
    if isinstance(error, UserError):
        return error.message, EXIT_ALREADY_RUNNING if isinstance(error, AlreadyRunning) else EXIT_ERROR
    if isinstance(error, OSError):
        where = "" if error.filename is None else f": {error.filename}"
        return f"{error.strerror or error or type(error).__name__}{where}", EXIT_ERROR
    sentence = _of_the_index(error)
    if sentence is None:
        raise error
    return sentence, EXIT_ERROR


def _of_the_index(error: BaseException) -> str | None:
    """An error of the database in words. Nothing is imported for it: without SQLAlchemy there is no such error."""
    if not type(error).__module__.startswith("sqlalchemy."):
        return None
    from sqlalchemy.exc import DatabaseError

    from loravault.index.database import in_words

    return in_words(error) if isinstance(error, DatabaseError) else None
