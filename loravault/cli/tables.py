"""Tables of the command line: ruled and cut to the width on a terminal, plain columns for everything else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import click

from loravault.cli.words import columns, plain

#: On a terminal: columns up to this width are not broken, none is made narrower than that, no cell is longer than that.
_SHORT, _LEAST, _MOST = 8, 12, 80


def show_table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[str] = ()) -> None:
    """Print it. Columns named in `numbers` are right-aligned on a terminal.

    A script gets every cell whole, aligned, without rules or colours.
    """
    if not sys.stdout.isatty():
        click.echo(columns([tuple(head), *rows]))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[_cut(plain(cell).replace("\n", " "), whole=n == 0) for n, cell in enumerate(row)] for row in rows]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for number, title in enumerate(head):
        widest = max((len(row[number]) for row in cells), default=0)
        table.add_column(
            title,
            justify="right" if title in numbers else "left",
            style="bold" if number == 0 else None,
            overflow="fold",
            no_wrap=widest <= _SHORT,
            min_width=min(max(widest, len(title)), _LEAST),
        )
    for row in cells:
        table.add_row(*map(Text, row))  # a Text: what strangers wrote is no markup
    Console().print(table)


def _cut(cell: str, *, whole: bool) -> str:
    return cell if whole or len(cell) <= _MOST else f"{cell[: _MOST - 1]}…"
