"""What adapters work: every algorithm in every spelling of the keys, on small bases of seven families.

A file is written, read, normalised and merged; each changed weight is compared with the formula for its rows (fp32),
whatever else the base holds must be untouched, and what the denoiser then computes is compared with what it computes
with weights formed elsewhere (double precision) and, where LyCORIS or PEFT have such adapters, in their own forward.
The comparison itself is that of `tests/engine/test_matrix.py`. PEFT and LyCORIS are no dependencies:

    pip install --target DIR --no-deps lycoris-lora==4.1.3 peft==0.21.2 einops toml
    PYTHONPATH=DIR python -m benchmarks.matrix [--write]
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks import pairs
from benchmarks.matrix_others import OTHERS
from loravault.engine.bases import Base, load_base
from loravault.engine.devices import choose_device
from tests.engine.matrix import Cell, cell
from tests.engine.matrix_rows import ALGORITHMS, LAYERS, SPELLINGS, Algorithm
from tests.tiny_families import make_family

PAGE = Path(__file__).resolve().parents[1] / "docs" / "adapters.md"
LIMIT = 1e-5
#: A difference must be small beside what the adapter does, too, or it compares nothing.
SHARE = 1e-2

Row = dict[str, list[Cell]]


def shown(cells: Sequence[Cell], figure: Callable[[Cell], float]) -> str:
    """`✓ 7: 4e-07` (families, greatest difference), `✗ …`, or nothing where there are no such files."""
    if not cells:
        return "–"
    worst = max(map(figure, cells))
    good = worst <= LIMIT and not any(one.wrong or one.output > SHARE * one.effect for one in cells)
    return f"{'✓' if good else '✗'} {len(cells)}: {worst:.0e}"


def cells_of(algorithm: Algorithm, bases: dict[str, Base], folder: Path) -> Row:
    """One line of the matrix."""
    found: Row = {}
    for spelling in SPELLINGS:
        cells = (cell(bases[family], family, algorithm, spelling, folder) for family in spelling.families)
        found[spelling.who] = [one for one in cells if one is not None]
    return found


def beside(algorithm: Algorithm, bases: dict[str, Base], folder: Path) -> dict[str, list[float]]:
    """Differences of the output from that of other programs, at strength 1, family by family."""
    found: dict[str, list[float]] = {}
    for spelling in SPELLINGS:
        package, other = OTHERS.get(spelling.who, (None, None))
        if package is None or importlib.util.find_spec(package) is None:
            continue
        options = {"strengths": (1.0, 1.0), "other": other}
        cells = (cell(bases[family], family, algorithm, spelling, folder, **options) for family in spelling.families)
        found[spelling.who] = [one.beside for one in cells if one is not None and one.beside is not None]
    return found


def table(rows: dict[str, Row], figure: Callable[[Cell], float]) -> list[str]:
    """Algorithms down, spellings across."""
    lines = [f"| | {' | '.join(one.who for one in SPELLINGS)} |", "|---|" + "---|" * len(SPELLINGS)]
    for name, row in rows.items():
        lines.append(f"| {name} | {' | '.join(shown(cells, figure) for cells in row.values())} |")
    return lines


def table_of_others(rows: dict[str, dict[str, list[float]]]) -> list[str]:
    """Algorithms down, programs across."""

    def told(found: Sequence[float]) -> str:
        return f"{'✓' if max(found) <= LIMIT else '✗'} {len(found)}: {max(found):.0e}" if found else "–"

    programs = list(next(iter(rows.values())))
    lines = [f"| | {' | '.join(programs)} |", "|---|" + "---|" * len(programs)]
    return lines + [
        f"| {name} | {' | '.join(told(row[program]) for program in programs)} |"
        for name, row in rows.items()
        if any(row.values())
    ]


def summary(cells: Iterable[Cell]) -> str:
    """How many cells there are, and what their adapters do to the output."""
    effects = sorted(one.effect for one in cells)
    middle = effects[len(effects) // 2]
    span = f"{effects[0]:.0e} to {effects[-1]:.0e}, {middle:.0e} in the middle"
    return f"({len(effects)} cells; the adapters change the output by {span})"


def main() -> int:
    """Prints the matrix; 1 if a cell is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="paste the matrices into docs/adapters.md")
    options = parser.parse_args()
    lacking = [package for package, _ in OTHERS.values() if importlib.util.find_spec(package) is None]
    if lacking:
        print(f"not importable, and left out (see the head of this file): {', '.join(lacking)}", file=sys.stderr)
        if options.write:
            raise SystemExit("the page is written with all references only")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bases = {family: load_base(make_family(folder / family, family), choose_device("cpu")) for family in LAYERS}
        rows = {algorithm.name: cells_of(algorithm, bases, folder) for algorithm in ALGORITHMS}
        others = {algorithm.name: beside(algorithm, bases, folder) for algorithm in ALGORITHMS}
    told = summary(one for row in rows.values() for cells in row.values() for one in cells)
    texts = {
        "adapters": "\n".join(table(rows, lambda one: one.error)),
        "adapter outputs": "\n".join([*table(rows, lambda one: one.output), "", told]),
        "adapter forwards": "\n".join(table_of_others(others)) if not lacking else "",
    }
    for place, text in texts.items():
        print(text, end="\n\n")
        if options.write:
            pairs.paste(place, text, PAGE)
    return int(any("✗" in text for text in texts.values()))


if __name__ == "__main__":
    sys.exit(main())
