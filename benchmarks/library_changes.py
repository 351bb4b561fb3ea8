"""How soon one changed file shows everywhere: in index, card and gallery, in a small and in a large library.

The daemon runs as `watch` does, with its watcher. The clock runs from the moment the file is there until the tick that
made the last of the three current is over; what the daemon waits for a copy to end (`settle`) is taken off.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sqlmodel import col, select

from benchmarks import bare, figures, library_set
from benchmarks.library_vault import answer, daemon_at
from loravault.daemon import Daemon
from loravault.index.tables import AdapterRow, CardRow
from loravault.looking import SETTLE_S

MOST_S, LIMIT_S, SMALL, TIMES = 0.2, 60.0, 100, 3
#: Galleries are brought up to date a few times in so many seconds; the next change waits until that is past.
_LONG_AGO = 1_700_000_000
_BETWEEN_S = 11.0


class Watched:
    """A daemon at rest over a library, and one file in it that comes and changes."""

    def __init__(self, home: Path, adapters: Path) -> None:
        self._vault, self._adapters = home / "vault", adapters
        self._daemon = daemon_at(home, adapters, watch=True)
        self._turn(lambda: False, 5.0)
        self._until(self._is_at_rest)
        self._made: list[Path] = []
        #: Weights that no earlier run has left traces of.
        self._mark = 4096 * (os.getpid() % 65536)

    def close(self) -> None:
        """Leave the library as it was."""
        self._daemon.close()
        for path in self._made:
            path.unlink(missing_ok=True)

    def new(self, number: int) -> float:
        """Seconds until a file that was not there shows, without the settling."""
        source = _small_one(self._adapters)
        path = source.with_name(f"Fresh {os.getpid()} {number}.safetensors")
        self._made.append(path)
        return self._change(path, _marked(source, self._mark + number))

    def replaced(self, number: int) -> float:
        """The same for another file of the same size and the same time in the place of the last one."""
        path = self._made[-1]
        status = path.stat()
        took = self._change(
            path, _marked(path, self._mark + 1000 + number), times=(status.st_atime_ns, status.st_mtime_ns)
        )
        after = path.stat()
        assert (after.st_size, after.st_mtime_ns) == (status.st_size, status.st_mtime_ns)
        return took

    def _change(self, path: Path, content: tuple[bytes, int], times: tuple[int, int] | None = None) -> float:
        self._turn(lambda: False, _BETWEEN_S)
        self._until(self._is_at_rest)
        temp = path.with_name(f".{path.stem}.new")
        head, size = content
        with open(temp, "wb") as file:
            file.write(head)
            file.truncate(size)
        os.utime(temp, (_LONG_AGO, _LONG_AGO))  # young and full of holes it would pass for a copy that is going on
        if times is not None:
            os.utime(temp, ns=times)
        rel = path.relative_to(self._adapters).as_posix()
        old = self._weight_id(rel)
        wall, began = time.time_ns(), time.perf_counter()
        os.replace(temp, path)
        return self._until(lambda: self._is_current(rel, old, wall)) - began - SETTLE_S

    def _is_current(self, rel: str, old: str | None, wall: int) -> bool:
        """The row has other weights, these have a card that is there, and some page written since links it."""
        weight_id = self._weight_id(rel)
        if weight_id is None or weight_id == old:
            return False
        with self._daemon.ctx.index.session() as session:
            card = session.exec(select(CardRow).where(col(CardRow.weight_id) == weight_id)).first()
        if card is None or not (self._vault / card.path).is_file():
            return False
        link = card.path.removesuffix(".md").encode()
        pages = (self._vault / "LoraVault" / "Gallery").rglob("* folder*.md")
        return any(link in page.read_bytes() for page in pages if page.stat().st_mtime_ns >= wall)

    def _weight_id(self, rel: str) -> str | None:
        with self._daemon.ctx.index.session() as session:
            row = session.get(AdapterRow, ("loras", rel))
            return None if row is None else row.weight_id

    def _is_at_rest(self) -> bool:
        keepers = self._daemon.keepers
        return not keepers.waiting and self._daemon._pause() >= 0.05 and self._daemon.feed.first_look_is_over

    def _until(self, met: Callable[[], bool]) -> float:
        ended = self._turn(met, LIMIT_S * 10)
        if ended is None:
            raise SystemExit("the daemon did not get there")
        return ended

    def _turn(self, met: Callable[[], bool], limit_s: float) -> float | None:
        """Tick until the condition is met; when the tick that met it was over. None: the time was up."""
        give_up = time.monotonic() + limit_s
        while time.monotonic() < give_up:
            _tick(self._daemon)
            ended = time.perf_counter()
            if met():
                return ended
        return None


def _tick(daemon: Daemon) -> None:
    """One turn of the daemon's own loop."""
    daemon._wake.wait(daemon._pause())
    daemon._wake.clear()
    daemon.tick()


def _small_one(adapters: Path) -> Path:
    """A sound adapter of the library, for a copy."""
    return next(path for path in map(Path, sorted(bare.adapters(adapters))) if bare.table(bare.header(str(path))))


def _marked(source: Path, number: int) -> tuple[bytes, int]:
    """(beginning, length) of the same adapter with weights of its own."""
    with open(source, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        file.seek(0)
        head = file.read(8 + length + 256)
    return head[:-4] + (0x2C2C0000 ^ number).to_bytes(4, "big"), source.stat().st_size


def child(adapters: Path, home: Path) -> dict[str, list[float]]:
    """Changes in one library."""
    watched = Watched(home, adapters)
    try:
        told: dict[str, list[float]] = {"new": [], "replaced": []}
        for number in range(TIMES):
            told["new"].append(watched.new(number))
            told["replaced"].append(watched.replaced(number))
    finally:
        watched.close()
    return told


def changes(adapters: Path, folder: Path, count: int) -> list[figures.Figure]:
    """The figures, in a library of `SMALL` adapters and in the given one, whose vault is `folder/vault0`."""
    small = folder / "small"
    library_set.ensure(small, min(SMALL, count))
    found = []
    for size, where, home in ((SMALL, small, folder / "vault-small"), (count, adapters, folder / "vault0")):
        command = [sys.executable, "-m", "benchmarks.library_changes", str(where), str(home)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
        told: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
        for key, what in (("new", "a new file"), ("replaced", "another file of the same size and time")):
            usual, slowest = statistics.median(told[key]), max(told[key])
            found.append(
                figures.Figure(
                    f"{what} among {size:,}: in index, card and gallery, after the settling",
                    "", figures.seconds(usual), f"at most {figures.seconds(slowest)}",
                    f"≤ {MOST_S * 1000:.0f} ms", slowest <= MOST_S,
                )
            )  # fmt: skip
    return found


if __name__ == "__main__":
    answer(child)
