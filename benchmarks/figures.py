"""Ratios of one run: ours and a bare loop in turns, so that a busy machine disturbs both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Figure:
    """One line of a table."""

    what: str
    bare: str
    ours: str
    #: Ratio or amount, and what is promised of it.
    shown: str
    promise: str
    kept: bool | None = None

    def row(self) -> str:
        """As markdown."""
        verdict = "" if self.kept is None else " ✓" if self.kept else " ✗"
        return f"| {self.what} | {self.bare} | {self.ours} | {self.shown}{verdict} | {self.promise} |"


HEAD = "| | bare loop | ours | | promised |\n|---|---|---|---|---|"


def seconds(value: float) -> str:
    """`0.84 s` or `12 ms`."""
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.0f} ms" if value >= 0.01 else f"{value * 1000:.1f} ms"


def timed(action: Callable[[], object]) -> float:
    """Seconds on the clock."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def in_turns(bare: Callable[[], object], ours: Callable[[], object], rounds: int) -> list[tuple[float, float]]:
    """One unmeasured round, then `rounds` pairs of seconds; who goes first alternates."""
    bare()
    ours()
    pairs = []
    for turn in range(rounds):
        if turn % 2:
            theirs = timed(bare)
            pairs.append((theirs, timed(ours)))
        else:
            mine = timed(ours)
            pairs.append((timed(bare), mine))
    return pairs


def ratio(what: str, costs: list[tuple[float, float]], most: float | None) -> Figure:
    """A line that compares; `most` is the promise. The ratio is the median of the pairs' ratios."""
    bare, ours = (statistics.median(column) for column in zip(*costs, strict=True))
    found = statistics.median(b / a for a, b in costs)
    promise = "" if most is None else f"≤ {most:g}×"
    return Figure(what, seconds(bare), seconds(ours), f"{found:.2f}×", promise, None if most is None else found <= most)


def peak_bytes() -> int:
    """The most memory this process ever had resident; where the system does not tell, what it has now."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return int(psutil.Process().memory_info().rss)
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def resident_bytes() -> int:
    """What this process has resident now."""
    return int(psutil.Process().memory_info().rss)


def files(folder: Path) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """(path inside, (inode, size, mtime_ns)) of every file in a tree: what a write changes."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            status = path.stat()
            yield path.relative_to(folder).as_posix(), (status.st_ino, status.st_size, status.st_mtime_ns)
