"""What the library costs over bare loops, with ten thousand adapters: reading, looking again, memory, notes, search.

    python -m benchmarks.library [--count 10000] [--rounds 5] [--set DIR] [--write]

The set (2.4 GB for ten thousand, nearly all of it headers) is made in a temporary folder, or kept in the one named.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from benchmarks import figures, library_reading, library_set, pairs


def measure(folder: Path, count: int, rounds: int) -> str:
    """The whole table."""
    adapters = folder / "adapters"
    made = library_set.ensure(adapters, count)
    rows = [
        *library_reading.headers(adapters, rounds),
        *library_reading.looks(adapters, rounds),
        library_reading.memory(adapters),
    ]
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
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["LORAVAULT_STATE_DIR"] = str(Path(temporary) / "state")
        text = measure(folder, options.count, options.rounds)
    print(text)
    if options.write:
        pairs.paste("library", text)


if __name__ == "__main__":
    main()
