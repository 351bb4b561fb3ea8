"""What the daemon costs while nobody asks for anything: its memory and processor over ten idle minutes after the demo.

Runs `loravault demo` as a stranger would, then `loravault demo DIR --watch`, lets one note be answered (a worker has
come and gone), and looks at the daemon's process every second.

    python -m benchmarks.idle [--minutes 10] [--write]
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks import pairs

#: After an answer the worker stays a while for the next request; then the idle time begins.
WORKER_LEAVES_S = 600.0


def tick(note: Path) -> None:
    """What a person does in Obsidian: the box `run` is ticked."""
    note.write_bytes(re.sub(rb"(?m)^run: false", b"run: true", note.read_bytes(), count=1))


def answered(note: Path) -> bool:
    """The note says `done` and its box is open again."""
    text = note.read_text(encoding="utf-8")
    return "lv_status: done" in text and "run: false" in text


def wait_for_answer(note: Path, limit_s: float = 120.0) -> None:
    """Until the note is answered; SystemExit if it is not."""
    until = time.monotonic() + limit_s
    while not answered(note):
        if time.monotonic() > until:
            raise SystemExit(f"{note.name} was not answered within {limit_s:.0f} s")
        time.sleep(0.5)


def wait_for_leaving(daemon: psutil.Process) -> None:
    """Until the daemon has no child left: worker and picture reader leave when idle."""
    until = time.monotonic() + WORKER_LEAVES_S
    while daemon.children():
        if time.monotonic() > until:
            raise SystemExit("the worker did not leave")
        time.sleep(1)


def watched(process: psutil.Process, seconds: float) -> tuple[float, float]:
    """(greatest resident memory in MB, seconds of processor) over `seconds` of looking once a second."""
    began, cpu = time.monotonic(), sum(process.cpu_times()[:2])
    most = 0.0
    while time.monotonic() - began < seconds:
        most = max(most, process.memory_info().rss / 1e6)
        time.sleep(1)
    return most, sum(process.cpu_times()[:2]) - cpu


def main() -> None:
    """Measure, print, and paste if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--write", action="store_true", help="paste the figures into docs/promises.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "loravault", "demo", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        daemon = psutil.Popen([*command, "--watch"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(10)
            note = Path(folder) / "vault" / "Pictures" / "A red house.md"
            tick(note)
            wait_for_answer(note)
            wait_for_leaving(daemon)
            most, cpu = watched(daemon, options.minutes * 60)
        finally:
            daemon.terminate()
            daemon.wait(30)
    text = (
        "| | idle for | most memory | processor | share of one core |\n|---|---|---|---|---|\n"
        f"| the daemon, after the demo and one more picture | {options.minutes:g} min | {most:.0f} MB | {cpu:.1f} s | "
        f"{cpu / options.minutes / 60:.2%} |\n\n({pairs.machine()})"
    )
    print(text)
    if options.write:
        pairs.paste("idle", text)


if __name__ == "__main__":
    main()
