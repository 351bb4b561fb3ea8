"""What the library costs over bare loops, with ten thousand adapters: reading, looking again, memory, notes, search.

    python -m benchmarks.library [--count 10000] [--rounds 5] [--set DIR] [--write]

The set (2.4 GB for ten thousand, nearly all of it headers) is made in a temporary folder, or kept in the one named.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import figures, library_changes, library_reading, library_set, library_vault, pairs


def measure(folder: Path, keep: Path, count: int, rounds: int) -> str:
    """The whole table; the adapters are in `keep`, everything else in `folder`."""
    adapters = keep / "adapters"
    keep.mkdir(parents=True, exist_ok=True)
    made = library_set.ensure(adapters, count)
    parts: tuple[Callable[[], Sequence[figures.Figure]], ...] = (
        lambda: library_reading.headers(adapters, rounds),
        lambda: library_reading.looks(adapters, rounds),
        lambda: [library_reading.memory(adapters)],
        lambda: library_vault.notes(adapters, folder, min(rounds, 3)),
        lambda: library_changes.changes(adapters, folder, count),
    )
    rows: list[figures.Figure] = []
    for part in parts:
        for figure in part():
            print(figure.row(), file=sys.stderr, flush=True)  # it takes minutes: what is known is shown
            rows.append(figure)
    return "\n".join(
        [figures.HEAD, *(figure.row() for figure in rows), "", f"({made.told()}; {rounds} rounds; {pairs.machine()})"]
    )


def main() -> None:
    """Measure, print, and paste if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--set", type=Path, dest="folder", help="keep the set here, and take it from here the next time"
    )
    parser.add_argument("--write", action="store_true", help="paste the figures into docs/promises.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        text = measure(Path(temporary), options.folder or Path(temporary), options.count, options.rounds)
    print(text)
    if options.write:
        pairs.paste("library", text)


if __name__ == "__main__":
    main()
