"""`loravault demo`."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
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
@click.option("-w", "--watch", is_flag=True, help="Tick nothing: serve the vault in DIR until Ctrl-C.")
@click.pass_context
@pass_app
def command(app: App, ctx: click.Context, directory: Path, watch: bool) -> None:
    """Make a small vault and let its notes get their pictures.

    Everything stays inside DIR (./loravault-demo unless named): your own vaults and settings are not touched. Run it
    again and the notes are ticked again.
    """
    from loravault import demo

    began = time.monotonic()
    folder = demo.prepare((app.cwd / directory.expanduser()).resolve())
    if watch:
        _serve(app, ctx, folder)
        return
    stages = demo.stages(folder.vault)
    click.echo(plain(f"The vault: {folder.vault}"))
    click.echo("Starting `loravault watch` on it and ticking run in its request notes …")
    before = set(demo.pictures_in(demo.config_of(folder)))
    with _sigterm_as_ctrl_c(), demo.daemon(folder) as process:
        control = app.open_control(demo.config_of(folder))
        states: list[NoteState] = []
        with control.open_queue() as queue, _showing() as show:
            for notes in stages:  # what uses a LoRA comes after what trains it
                for rel in notes:
                    demo.tick(folder.vault / rel)
                done: list[NoteState] = list(states)
                now: Sequence[NoteState] = ()
                for now in demo.follow(folder, notes, process, queue):
                    show([*done, *now])
                states = [*done, *now]
    made = [path for path in demo.pictures_in(demo.config_of(folder)) if path not in before]
    _tell(folder, states, made, time.monotonic() - began)
    if any(state.status != "done" for state in states):
        ctx.exit(1)


def _serve(app: App, ctx: click.Context, folder: DemoFolder) -> None:
    from loravault.cli.watch import command as watch_command

    app.env, app.vault_option = {**app.env, **folder.places}, str(folder.vault)
    click.echo(plain(f"Serving {folder.vault} until Ctrl-C."))
    ctx.invoke(watch_command, verbose=False)


def _tell(folder: DemoFolder, states: Sequence[NoteState], made: Sequence[Path], seconds: float) -> None:
    click.echo(f"{counted(len(made), 'new picture')}, {seconds:.0f} s:")
    for state in states:
        message = f" ({state.message})" if state.message else ""
        click.echo(plain(f"  {state.status}: {folder.vault / state.rel}{message}"))
    for picture in made:
        click.echo(plain(f"  {picture}"))
    click.echo(plain(f"What the daemon did: {folder.log}"))
    click.echo(plain(f'Next: in Obsidian, "Open folder as vault", {folder.vault}, and read the note Welcome.'))
    click.echo(plain(f'To tick boxes there yourself, let it run: {_program()} demo "{folder.root}" --watch'))


def _program() -> str:
    """What a person types to get this program, also when it is not on the PATH (as after `make demo`)."""
    import shutil

    return "loravault" if shutil.which("loravault") else f"{sys.executable} -m loravault"


def _showing() -> AbstractContextManager[Callable[[Sequence[NoteState]], None]]:
    """A function that shows each state of the notes: bars on a terminal, elsewhere a line per change."""
    return _bars() if sys.stderr.isatty() else _lines()


@contextmanager
def _lines() -> Iterator[Callable[[Sequence[NoteState]], None]]:
    shown: dict[str, str] = {}

    def show(states: Sequence[NoteState]) -> None:
        for state in states:
            words = "ticked" if state.ticked else state.status or ""
            if shown.get(state.rel) != words:
                shown[state.rel] = words
                click.echo(plain(f"  {state.rel}: {words}"))

    yield show


@contextmanager
def _bars() -> Iterator[Callable[[Sequence[NoteState]], None]]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    texts = TextColumn("{task.fields[note]}"), TextColumn("{task.description}")
    with Progress(
        texts[0],
        BarColumn(complete_style="green", finished_style="green"),
        texts[1],
        TimeElapsedColumn(),
        console=Console(stderr=True),
    ) as progress:
        bars: dict[str, TaskID] = {}

        def show(states: Sequence[NoteState]) -> None:
            for state in states:
                if state.rel not in bars:
                    bars[state.rel] = progress.add_task("", total=1.0, note=escape(Path(state.rel).stem))
                words = [*(["ticked"] if state.ticked else [state.status or ""]), state.message or ""]
                done = 1.0 if state.finished else state.progress or 0.0
                text = escape(plain(" · ".join(word for word in words if word)))
                progress.update(bars[state.rel], completed=done, description=text)

        yield show


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
