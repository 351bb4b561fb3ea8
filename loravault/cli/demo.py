"""`loravault demo`."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from loravault.cli.app import App, pass_app
from loravault.cli.words import counted, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from loravault.demo import DemoFolder, NoteState


@click.command("demo")
@click.argument("directory", metavar="[DIR]", default="loravault-demo", type=click.Path(path_type=Path))
@click.pass_context
@pass_app
def command(app: App, ctx: click.Context, directory: Path) -> None:
    """Make a small vault and let its notes get their pictures.

    Everything stays inside DIR (./loravault-demo unless named): your own vaults and settings are not touched. Run it
    again and the notes are ticked again.
    """
    from loravault import demo

    began = time.monotonic()
    folder = demo.prepare((app.cwd / directory.expanduser()).resolve())
    notes = demo.requests_in(folder.vault)
    click.echo(plain(f"The vault: {folder.vault}"))
    click.echo("Starting `loravault watch` on it and ticking run in its request notes …")
    with _sigterm_as_ctrl_c(), demo.daemon(folder) as process:
        for rel in notes:
            demo.tick(folder.vault / rel)
        control = app.open_control(demo.config_of(folder))
        states: Sequence[NoteState] = ()
        with _showing() as show:
            for states in demo.follow(folder, notes, process, control.queue):
                show(states)
    _tell(folder, states, time.monotonic() - began)
    if any(state.status != "done" for state in states):
        ctx.exit(1)


def _tell(folder: DemoFolder, states: Sequence[NoteState], seconds: float) -> None:
    from loravault.demo import config_of, pictures_in

    pictures = pictures_in(config_of(folder))
    click.echo(f"{counted(len(pictures), 'picture')}, {seconds:.0f} s:")
    for state in states:
        message = f" ({state.message})" if state.message else ""
        click.echo(plain(f"  {state.status}: {folder.vault / state.rel}{message}"))
    click.echo(plain(f"The pictures are in {pictures[-1].parent}" if pictures else f"See {folder.log}"))
    click.echo(plain(f'Next: in Obsidian, "Open folder as vault", {folder.vault}, and read the note Welcome.'))
    places = " ".join(f'{name}="{path}"' for name, path in folder.places.items())
    click.echo(plain(f'To go on:  {places} loravault --vault "{folder.vault}" watch'))


@contextmanager
def _showing() -> Iterator[Callable[[Sequence[NoteState]], None]]:
    """One bar per note on a terminal; elsewhere a line whenever a note's status changes."""
    if not sys.stderr.isatty():
        shown: dict[str, str | None] = {}

        def say(states: Sequence[NoteState]) -> None:
            for state in states:
                status = state.status if not state.ticked else "ticked"
                if shown.get(state.rel, "") != status:
                    shown[state.rel] = status
                    click.echo(plain(f"  {state.rel}: {status}"))

        yield say
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    texts = TextColumn("{task.fields[note]}"), TextColumn("{task.description}")
    with Progress(texts[0], BarColumn(), texts[1], TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        tasks: dict[str, TaskID] = {}

        def draw(states: Sequence[NoteState]) -> None:
            for state in states:
                task = tasks.setdefault(state.rel, None) or bar.add_task(
                    "", total=1.0, note=escape(Path(state.rel).stem)
                )
                tasks[state.rel] = task
                words = "ticked" if state.ticked else state.status or ""
                done = 1.0 if state.finished else state.progress or 0.0
                bar.update(tasks[state.rel], completed=done, description=escape(words))

        yield draw


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """However the demo is ended, its daemon is ended first."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
