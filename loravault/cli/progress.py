"""Progress of long work: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loravault.jobs.context import Event


@contextmanager
def following(first_words: str) -> Iterator[Callable[[Event], None]]:
    """A function that shows each `Event` it is given until the block ends."""
    if not sys.stderr.isatty():
        yield lambda _event: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    text = TextColumn("{task.description}")
    bar = Progress(
        SpinnerColumn(),
        text,
        BarColumn(complete_style="green", finished_style="green"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(first_words, total=None)

        def show(event: Event) -> None:
            if event.fraction is None:
                bar.update(task, description=escape(event.text))
            else:
                bar.update(task, description=escape(event.text), total=1.0, completed=event.fraction)

        yield show
