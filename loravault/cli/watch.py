"""`loravault watch`."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import click

from loravault.cli.app import App, pass_app


@click.command("watch")
@click.option("-v", "--verbose", is_flag=True, help="Also log what only a developer wants to know.")
@pass_app
def command(app: App, verbose: bool) -> None:
    """Serve the vault: answer requests until stopped.

    Ctrl-C or SIGTERM ends it cleanly; what is not finished is done at the next start.
    """
    config = app.config()
    control = app.open_control(config)
    _log_to_stderr(verbose)
    stop = threading.Event()
    seen: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if seen and number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait for the first
        seen.append(number)
        stop.set()

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), on_signal)
    control.watch(stop, lambda: click.echo(f"Watching {config.vault}. Ctrl-C stops.", err=True))
    if signal.SIGINT in seen:
        raise KeyboardInterrupt


def _log_to_stderr(verbose: bool) -> None:
    import logging

    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s  %(message)s" if not verbose else "%(asctime)s %(levelname)s %(name)s  %(message)s",
        datefmt="%H:%M:%S",
        force=True,
    )
    for noisy in ("watchdog", "sqlalchemy", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
