"""What the way through the worker costs: from `Supervisor.start_job` to `Finished`, beside the call in a bare script.

Both draw the same demo picture (128×128, 25 steps) with the same weights, threads and libraries, in turns, so that a
busy machine disturbs both alike. The bare call ends with a picture in memory; ours with a file that is durably on disk
and carries its generation data. On a machine with other work the processor row is the one to read.
Run: `python benchmarks/bench_overhead.py [--pairs 20]`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from loravault.formats.generation import BaseRef, GenerationSpec
from loravault.jobs.events import Finished
from loravault.jobs.supervisor import GENTLE, QUIET, Supervisor
from loravault.resources import demo_base

PROMPT, NEGATIVE, SIZE, STEPS, CFG = "a red circle", "", 128, 25, 5.0


def bare_script() -> Callable[[int], None]:
    """`seed -> None`: what somebody without loravault would write."""
    import torch  # noqa: PLC0415 - after the environment is set
    from diffusers import DDIMScheduler, StableDiffusionPipeline  # noqa: PLC0415

    pipe: Any = StableDiffusionPipeline.from_pretrained(demo_base(), safety_checker=None, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)

    def draw(seed: int) -> None:
        image = pipe(
            PROMPT,
            negative_prompt=NEGATIVE,
            width=SIZE,
            height=SIZE,
            num_inference_steps=STEPS,
            guidance_scale=CFG,
            generator=torch.Generator("cpu").manual_seed(seed),
        ).images[0]
        assert image.size == (SIZE, SIZE)

    return draw


class Ours:
    """`seed -> None` through supervisor, pipe, worker and file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._woken = threading.Event()
        self._boss = Supervisor(wake=self._woken.set)
        self._count = 0

    def draw(self, seed: int) -> None:
        self._count += 1
        base = BaseRef(name="demo", path=str(demo_base()), family="demo")
        spec = GenerationSpec(
            base=base,
            prompt=PROMPT,
            negative=NEGATIVE,
            seeds=(seed,),
            width=SIZE,
            height=SIZE,
            steps=STEPS,
            cfg=CFG,
            sampler="DDIM",
        )
        self._boss.start_job(f"job{self._count}", spec, self._folder)
        while not any(isinstance(event, Finished) for event in self._boss.poll()):
            assert self._boss.busy, "the job failed"
            self._woken.wait(1.0)
            self._woken.clear()

    def close(self) -> None:
        self._boss.close()

    def cpu(self) -> float:
        """Seconds of processor used so far by us and by the worker."""
        assert self._boss.pid is not None
        times = psutil.Process(self._boss.pid).cpu_times()
        return time.process_time() + float(times.user + times.system)


#: (seconds on the clock, seconds of processor).
Cost = tuple[float, float]


def cost(draw: Callable[[int], None], seed: int, cpu: Callable[[], float]) -> Cost:
    before, began = cpu(), time.perf_counter()
    draw(seed)
    return time.perf_counter() - began, cpu() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=20)
    pairs = parser.parse_args().pairs
    wanted = {**GENTLE, **QUIET}
    if any(os.environ.get(name) != value for name, value in wanted.items() if name not in GENTLE):
        # Both sides get the worker's environment; OpenMP reads its own only when a process starts.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**GENTLE, **os.environ, **QUIET})
    with tempfile.TemporaryDirectory() as folder:
        ours, bare = Ours(Path(folder)), bare_script()
        for seed in (1, 2):
            ours.draw(seed)
            bare(seed)
        rows: list[tuple[Cost, Cost]] = []
        for seed in range(pairs):
            if seed % 2:
                theirs = cost(bare, seed, time.process_time)
                rows.append((theirs, cost(ours.draw, seed, ours.cpu)))
            else:
                mine = cost(ours.draw, seed, ours.cpu)
                rows.append((cost(bare, seed, time.process_time), mine))
        ours.close()
    print("| | pairs | bare script | ours | extra | ratio | middle half |")
    print("|---|---|---|---|---|---|---|")
    for column, what in enumerate(("clock", "processor")):
        report(what, [(bare_cost[column], our_cost[column]) for bare_cost, our_cost in rows])


def report(what: str, rows: list[tuple[float, float]]) -> None:
    """One markdown row; the ratio is the median of the pairs' ratios."""
    bare, ours = (statistics.median(column) for column in zip(*rows, strict=True))
    ratios = sorted(b / a for a, b in rows)
    extra = statistics.median(b - a for a, b in rows)
    spread = f"{ratios[len(ratios) // 4]:.3f}–{ratios[3 * len(ratios) // 4]:.3f}"
    print(
        f"| start_job → Finished, {SIZE}×{SIZE}, {STEPS} steps, {what} | {len(rows)} | {bare * 1000:.0f} ms | "
        f"{ours * 1000:.0f} ms | {extra * 1000:+.0f} ms | {statistics.median(ratios):.3f} | {spread} |"
    )


if __name__ == "__main__":
    main()
