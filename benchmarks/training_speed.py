"""A training step beside diffusers' and kohya's own scripts: same base, pictures, modules, batch and precision.

    LORAVAULT_DIFFUSERS=DIR LORAVAULT_SD_SCRIPTS=DIR python -m benchmarks.training_speed [--rounds 3] [--write]

(`training_peers` says what the two variables name.) Each run is a process on one core with one thread. What a step
costs is what the processor did for a long run less what it did for a short one: start, caching and saving are in both.
The first step is when the clock says that it was made, from the start of the process.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks import pairs
from benchmarks.training_peers import Cost, Peer, make_data, measured, peers

#: Steps of the short and of the long run. In the short one every picture is seen twice, so that all are encoded.
SHORT, LONG = 40, 80
#: Name of a base → (peer → promised ratio of a step).
BASES = {"the VAE dominates": {"diffusers": 0.35}, "the UNet dominates": {"diffusers": 0.8, "kohya sd-scripts": 1.0}}
#: What each peer's script trains of a UNet.
MODULES = {"diffusers": "attention", "kohya sd-scripts": "all"}


def make_base(folder: Path, kind: str) -> None:
    """A folder in the layout of SD 1 with random weights, in a process of its own: torch stays out of this one."""
    measured([sys.executable, "-m", "benchmarks.training_base", str(folder), kind], folder.parent, Path.cwd())


@dataclass(frozen=True)
class Run:
    """What one program's trainings cost."""

    step: float
    first: float
    peak_bytes: int


def of(short: Cost, long: Cost) -> Run:
    """From runs of a few steps, and of many."""
    first = statistics.mean((short.first, long.first))
    return Run((long.processor - short.processor) / (LONG - SHORT), first, long.peak_bytes)


class Stage:
    """Bases and pictures, and a fresh folder for every run."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._runs = 0
        make_data(home / "data")

    def base(self, kind: str) -> Path:
        """The base of this kind, made once."""
        folder = self._home / kind.replace(" ", "-")
        if not folder.exists():
            make_base(folder, kind)
        return folder

    def theirs(self, peer: Peer, base: Path) -> Run:
        """The script of a peer."""
        data = self._home / "data"
        return of(peer.run(base, data, self._fresh(), SHORT), peer.run(base, data, self._fresh(), LONG))

    def ours(self, base: Path, modules: str) -> Run:
        """Our trainer on the same modules."""
        return of(self._ours(base, modules, SHORT), self._ours(base, modules, LONG))

    def _ours(self, base: Path, modules: str, steps: int) -> Cost:
        home = self._fresh()
        told = [str(base), str(self._home / "data"), str(home), str(steps), modules]
        return measured([sys.executable, "-m", "benchmarks.training_ours", *told], home, Path.cwd(), steps=steps)

    def _fresh(self) -> Path:
        shutil.rmtree(self._home / f"run{self._runs}", ignore_errors=True)
        self._runs += 1
        folder = self._home / f"run{self._runs}"
        folder.mkdir()
        return folder


def compared(stage: Stage, peer: Peer, kind: str, rounds: int) -> list[str]:
    """The lines of the table for one peer on one base; the two take turns."""
    base, pairs_of_runs = stage.base(kind), []
    for turn in range(rounds):
        if turn % 2:
            theirs = stage.theirs(peer, base)
            pairs_of_runs.append((theirs, stage.ours(base, MODULES[peer.name])))
        else:
            mine = stage.ours(base, MODULES[peer.name])
            pairs_of_runs.append((stage.theirs(peer, base), mine))
    most = BASES[kind][peer.name]
    step = [(a.step * 1000, b.step * 1000) for a, b in pairs_of_runs]
    first = [(a.first, b.first) for a, b in pairs_of_runs]
    peak = [(a.peak_bytes / 1e6, b.peak_bytes / 1e6) for a, b in pairs_of_runs]
    what = f"{peer.name}, {kind}"
    return [
        row(f"{what}: a step, processor", step, "ms", most, 0),
        row(f"{what}: to the first step, clock", first, "s", 1.0, 1),
        row(f"{what}: most memory", peak, "MB", 1.0, 0),
    ]


def row(what: str, found: list[tuple[float, float]], unit: str, most: float, digits: int) -> str:
    """One line: medians, and the median of the pairs' ratios."""
    theirs, ours = (statistics.median(column) for column in zip(*found, strict=True))
    ratio = statistics.median(b / a for a, b in found)
    verdict = "✓" if ratio <= most else "✗"
    return f"| {what} | {theirs:.{digits}f} {unit} | {ours:.{digits}f} {unit} | {ratio:.2f}× {verdict} | ≤ {most:g}× |"


def main() -> None:
    """Measure, print, and paste if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="paste the figures into docs/promises.md")
    options = parser.parse_args()
    found, absent = peers()
    for sentence in absent:
        print(sentence)
    if not found:
        return
    lines = ["| | theirs | ours | | promised |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder))
        for kind, promised in BASES.items():
            for peer in found:
                if peer.name in promised:
                    rows = compared(stage, peer, kind, options.rounds)
                    print("\n".join(rows), flush=True)
                    lines += rows
    told = "rank 8, 256×256, one picture a step, fp32, one thread; diffusers: attention, kohya: its own modules"
    text = "\n".join([*lines, "", f"({told}; {options.rounds} rounds; {pairs.machine()})", *absent])
    print(f"\n{text}")
    if options.write:
        pairs.paste("training-speed", text)


if __name__ == "__main__":
    main()
