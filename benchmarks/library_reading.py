"""Reading ten thousand adapters: headers, identification, the look that finds nothing new, memory."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from benchmarks import bare, figures
from loravault.config import Root
from loravault.errors import UserError
from loravault.formats import families
from loravault.formats.safetensors_header import header_of, read_metadata, reader
from loravault.index.database import Index
from loravault.index.refresh import Refreshed, refresh_adapters
from loravault.library.identify import read_adapter

MEMORY_MB = 100


def each(paths: Iterable[str], look: Callable[[BinaryIO], object]) -> None:
    """Open every file and look; what is no adapter says so."""
    for path in paths:
        with open(path, "rb") as file:
            try:
                look(file)
            except UserError:
                continue


def identify(file: BinaryIO) -> object:
    """Family, variant, network type, rank and alpha."""
    return families.identify(header_of(file), reader(file))


def headers(folder: Path, rounds: int) -> list[figures.Figure]:
    """Listing and identifying beside reading and parsing."""
    paths = bare.adapters(folder)
    listed = figures.in_turns(lambda: bare.list_metadata(paths), lambda: each(paths, read_metadata), rounds)
    tables = figures.in_turns(lambda: bare.list_tables(paths), lambda: each(paths, identify), rounds)
    return [
        figures.ratio(
            f"{len(paths):,} adapters listed from their metadata / header read, metadata parsed", listed, 1.5
        ),
        figures.ratio(f"{len(paths):,} adapters identified / header read, table parsed (`json`)", tables, 2.0),
    ]


def refreshed(index: Index, folder: Path) -> Refreshed:
    """One look at the whole folder."""
    return refresh_adapters(index, [Root("loras", folder)])


def looks(folder: Path, rounds: int) -> list[figures.Figure]:
    """The first look, and the next one at an unchanged folder."""
    paths = bare.adapters(folder)
    with tempfile.TemporaryDirectory() as state:
        database = Path(state) / "index.sqlite"
        index = Index(database)
        try:
            bare_s = figures.timed(lambda: bare.list_tables(paths))
            first = figures.timed(lambda: refreshed(index, folder))
            costs = figures.in_turns(
                lambda: bare.stat_and_rows(folder, database), lambda: _unchanged(index, folder), rounds
            )
        finally:
            index.close()
    return [
        figures.ratio(
            "first index: weight ids, trigger words, sidecars, previews, rows / header read, table parsed",
            [(bare_s, first)],
            None,
        ),
        figures.ratio("a look that finds nothing new / `scandir`, `stat`, one read of the rows", costs, 2.0),
    ]


def _unchanged(index: Index, folder: Path) -> None:
    result = refreshed(index, folder)
    if result.changed:
        raise SystemExit(f"a look at an unchanged folder read {result.read} files")


def memory(folder: Path) -> figures.Figure:
    """How much a process grows that indexes the folder."""
    command = [sys.executable, "-m", "benchmarks.library_reading", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    told = json.loads(done.stdout)
    grown = (told["after"] - told["before"]) / 1e6
    return figures.Figure(
        f"memory while {told['seen']:,} adapters are indexed (most, beyond the process before)",
        "", f"{told['before'] / 1e6:.0f} → {told['after'] / 1e6:.0f} MB", f"+{grown:.0f} MB", f"≤ {MEMORY_MB} MB",
        grown <= MEMORY_MB,
    )  # fmt: skip


def main() -> None:
    """The child that `memory` watches: everything is loaded and one adapter read before the counting begins."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as state:
        index = Index(Path(state) / "index.sqlite")
        first = bare.adapters(folder)[0]
        read_adapter(Path(first), "loras", Path(first).name)
        before = figures.resident_bytes()
        seen = refreshed(index, folder).seen
        print(json.dumps({"before": before, "after": figures.peak_bytes(), "seen": seen}))
        index.close()


if __name__ == "__main__":
    main()
