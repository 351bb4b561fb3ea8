"""`loravault watch`: what it says, and how it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .helpers import FakeControl, app_in, call


class TestWatch:
    def test_sigterm_sets_the_stop_and_leaves_with_0(self, tmp_path: Path) -> None:
        assert self._signalled(tmp_path, signal.SIGTERM) == (0, "")

    def test_ctrl_c_leaves_with_130_in_words(self, tmp_path: Path) -> None:
        code, err = self._signalled(tmp_path, signal.SIGINT)

        assert code == 130
        assert err.strip().startswith("loravault: Interrupted.")

    @staticmethod
    def _signalled(folder: Path, number: signal.Signals) -> tuple[int, str]:
        before = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

        class Waiting(FakeControl):
            def watch(self, stop: threading.Event, on_open: Callable[[], None] | None = None) -> None:
                os.kill(os.getpid(), number)
                assert stop.wait(5)

        try:
            result = call(app_in(folder, Waiting()), "watch")
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)
        return result.code, result.err


def test_watch_says_that_it_watches(tmp_path: Path) -> None:
    """It was silent until the first tick: nobody could tell whether it had begun."""
    result = call(app_in(tmp_path, FakeControl()), "watch")

    assert result.err.startswith("Watching ")
    assert result.err.rstrip().endswith("Ctrl-C stops.")


def test_sigterm_while_the_daemon_still_starts_leaves_no_traceback(tmp_path: Path) -> None:
    app = app_in(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "loravault", "--vault", str(tmp_path / "vault"), "watch"],
        env={**os.environ, **app.env},
        stderr=subprocess.PIPE,
    )
    time.sleep(0.1)
    process.terminate()
    _, err = process.communicate(timeout=30)

    assert b"Traceback" not in err
