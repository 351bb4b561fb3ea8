"""Serving: a thousand adapters without loading the base again, one picture beside the bare call, eight that wait.

Everything is measured on the CPU in one process, in turns where two are compared, and what is compared must give the
same pictures. `peft` is no dependency: diffusers' own switching needs it, and is left out where it is not installed.

    python -m benchmarks.serving [--adapters 1000] [--notes 100] [--pairs 7] [--sd1] [--write]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from pathlib import Path

from benchmarks import pairs
from loravault.jobs.workerenv import GENTLE, QUIET


def main() -> int:
    """Prints the tables; 1 if something is wrong or a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--adapters", type=int, default=1000, help="served by the engine")
    parser.add_argument("--notes", type=int, default=100, help="asked for in notes, served by daemon and worker")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--sd1", action="store_true", help="also a model of SD 1.5's real size (4 GB of memory)")
    parser.add_argument("--write", action="store_true", help="paste the figures into docs/promises.md")
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in QUIET.items()):
        # Both sides get the worker's environment; OpenMP reads its own only when a process starts.
        os.execve(
            sys.executable,
            [sys.executable, "-m", "benchmarks.serving", *sys.argv[1:]],
            {**GENTLE, **os.environ, **QUIET},
        )
    from benchmarks import serving_many, serving_one, serving_queue  # noqa: PLC0415 - torch, after the environment

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many = serving_many.measure(folder / "many", options.adapters, options.notes)
        print(many[0], flush=True)
        one = serving_one.measure(folder / "one", options.pairs, sd1=options.sd1)
        print(one[0], flush=True)
        queue = serving_queue.measure(folder / "queue", max(3, options.pairs // 2))
        print(queue[0], flush=True)
    text = "\n\n".join([*(table for table, _ in (many, one, queue)), f"({pairs.machine()})"])
    if options.write:
        pairs.paste("serving", text)
    return int(not all(kept for _, kept in (many, one, queue)))


if __name__ == "__main__":
    sys.exit(main())
