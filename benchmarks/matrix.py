"""What adapters work: every algorithm in every spelling of the keys, on small bases of seven families.

A file is written, read, normalised and merged; each changed weight is compared with the formula for its rows (fp32),
and whatever else the base holds must be untouched. The comparison itself is that of `tests/engine/test_matrix.py`.

    python -m benchmarks.matrix [--write]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

from benchmarks import pairs
from loravault.engine.bases import load_base
from loravault.engine.devices import choose_device
from tests.engine.matrix import Cell, cell
from tests.engine.matrix_rows import ALGORITHMS, LAYERS, SPELLINGS, Algorithm
from tests.tiny_families import make_family

PAGE = Path(__file__).resolve().parents[1] / "docs" / "adapters.md"
LIMIT = 1e-5


def shown(cells: list[Cell]) -> str:
    """`✓ 7: 4e-07` (families, greatest error), `✗ …`, or nothing where there are no such files."""
    if not cells:
        return "–"
    worst = max(one.error for one in cells)
    good = worst <= LIMIT and not any(one.wrong for one in cells)
    return f"{'✓' if good else '✗'} {len(cells)}: {worst:.0e}"


def main() -> int:
    """Prints the matrix; 1 if a cell is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="paste the matrix into docs/adapters.md")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bases = {family: load_base(make_family(folder / family, family), choose_device("cpu")) for family in LAYERS}

        def row(algorithm: Algorithm) -> list[list[Cell]]:
            found = []
            for spelling in SPELLINGS:
                cells = (cell(bases[family], family, algorithm, spelling, folder) for family in spelling.families)
                found.append([one for one in cells if one is not None])
            return found

        rows = {algorithm.name: row(algorithm) for algorithm in ALGORITHMS}
    lines = [f"| | {' | '.join(one.who for one in SPELLINGS)} |", "|---|" + "---|" * len(SPELLINGS)]
    lines += [f"| {name} | {' | '.join(map(shown, cells))} |" for name, cells in rows.items()]
    text = "\n".join(lines)
    print(text)
    if options.write:
        pairs.paste("adapters", text, PAGE)
    return int("✗" in text)


if __name__ == "__main__":
    sys.exit(main())
