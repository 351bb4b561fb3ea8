"""What a note costs over a bare script: the same demo picture (128×128, 25 steps, same weights), in turns.

The bare call ends with a picture in memory. Ours begins when the job is claimed and ends when the run is closed: the
picture is durably in the vault with its generation data, the row is committed, the note is written and synced.
The gates that wait for a person to stop typing, and the grace after a write, are set to nothing: waiting is not work.

    python -m benchmarks.overhead [--pairs 20] [--write]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks import pairs
from loravault import failpoints
from loravault.config import VaultConfig
from loravault.daemon import Daemon
from loravault.jobs.workerenv import GENTLE, QUIET


class Notes:
    """A daemon on a vault of its own; one picture is one note."""

    def __init__(self, home: Path) -> None:
        os.environ["LORAVAULT_STATE_DIR"] = str(home / "state")
        self._vault = home / "vault"
        self._vault.mkdir()
        config = VaultConfig(
            vault=self._vault, read_quiet_s=0.0, write_quiet_s=0.0, grace_s=0.0, together_s=0.0, rescan_s=3600.0
        )
        self._daemon = Daemon(config, watch=False)
        self._daemon.open()
        self._daemon.tick()
        self._times: dict[str, tuple[float, float]] = {}
        failpoints.hook = self._reached
        self._count = 0

    def draw(self, seed: int) -> pairs.Cost:
        """Write the note, tick until its run is closed; the cost of what lay between claim and close."""
        self._count += 1
        rel = f"Picture {self._count}.md"
        (self._vault / rel).write_text(request(seed))
        self._times.clear()
        self._daemon.feed.hint(rel)
        self._daemon.tick()
        while "deliver.after-close" not in self._times or "job.finished" not in self._times:
            self._daemon._wake.wait(self._daemon._pause())
            self._daemon._wake.clear()
            self._times.pop("deliver.after-close", None)  # the receipt's, not the answer's
            self._daemon.tick()
        (began, cpu), (ended, cpu_after) = self._times["job.claimed"], self._times["deliver.after-close"]
        assert "> [!lora-result]" in (self._vault / rel).read_text()
        return ended - began, cpu_after - cpu

    def _reached(self, name: str) -> None:
        self._times[name] = (time.perf_counter(), self._cpu())

    def _cpu(self) -> float:
        pid = self._daemon.dispatcher.lanes[0].supervisor.pid
        worker = psutil.Process(pid).cpu_times() if pid is not None else None
        return time.process_time() + (float(worker.user + worker.system) if worker else 0.0)

    def close(self) -> None:
        """Leave the vault."""
        failpoints.hook = None
        self._daemon.close()


def request(seed: int) -> str:
    """The note that asks for the benchmark's picture."""
    return (
        f"---\nloravault: generate\nrun: true\nbase: demo\nseed: {seed}\nsteps: {pairs.STEPS}\ncfg: {pairs.CFG}\n"
        f"size: {pairs.SIZE}x{pairs.SIZE}\nsampler: DDIM\n---\n```prompt\n{pairs.PROMPT}\n```\n"
    )


def main() -> None:
    """Measure, print, and paste if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--write", action="store_true", help="paste the figures into docs/promises.md")
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in QUIET.items()):
        # Both sides get the worker's environment; OpenMP reads its own only when a process starts.
        os.execve(
            sys.executable,
            [sys.executable, "-m", "benchmarks.overhead", *sys.argv[1:]],
            {**GENTLE, **os.environ, **QUIET},
        )
    with tempfile.TemporaryDirectory() as folder:
        notes = Notes(Path(folder))
        try:
            costs = list(pairs.in_turns(pairs.measured(pairs.bare_script()), notes.draw, options.pairs))
        finally:
            notes.close()
    told = f"claim → closed, {pairs.SIZE}×{pairs.SIZE}, {pairs.STEPS} steps"
    text = "\n".join(
        [pairs.HEAD]
        + [
            pairs.row(f"{told}, {what}", [(bare[column], ours[column]) for bare, ours in costs])
            for column, what in enumerate(("clock", "processor"))
        ]
        + ["", f"({pairs.machine()})"]
    )
    print(text)
    if options.write:
        pairs.paste("overhead", text)


if __name__ == "__main__":
    main()
