"""Two ways to the same picture, in turns, so that a busy machine disturbs both alike, and their ratio."""

from __future__ import annotations

import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from loravault.resources import demo_base

PROMPT, NEGATIVE, SIZE, STEPS, CFG = "a red house in a meadow", "", 128, 25, 5.0

#: (seconds on the clock, seconds of processor).
Cost = tuple[float, float]
Draw = Callable[[int], Cost]

PROMISES = Path(__file__).parents[1] / "docs" / "promises.md"


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


def measured(draw: Callable[[int], None]) -> Draw:
    """A call in this process with its cost."""

    def cost(seed: int) -> Cost:
        cpu, began = time.process_time(), time.perf_counter()
        draw(seed)
        return time.perf_counter() - began, time.process_time() - cpu

    return cost


def in_turns(bare: Draw, ours: Draw, pairs: int) -> Iterator[tuple[Cost, Cost]]:
    """Two unmeasured rounds, then pairs; who goes first alternates."""
    for seed in (1, 2):
        ours(seed)
        bare(seed)
    for seed in range(pairs):
        if seed % 2:
            theirs = bare(seed)
            yield theirs, ours(seed)
        else:
            mine = ours(seed)
            yield bare(seed), mine


HEAD = "| | pairs | bare script | ours | extra | ratio (median) | middle half |\n|---|---|---|---|---|---|---|"


def row(what: str, costs: list[tuple[float, float]]) -> str:
    """One markdown row; the ratio is the median of the pairs' ratios."""
    bare, ours = (statistics.median(column) for column in zip(*costs, strict=True))
    ratios = sorted(b / a for a, b in costs)
    extra = statistics.median(b - a for a, b in costs)
    spread = f"{ratios[len(ratios) // 4]:.3f}–{ratios[3 * len(ratios) // 4]:.3f}"
    return (
        f"| {what} | {len(costs)} | {bare * 1000:.0f} ms | {ours * 1000:.0f} ms | {extra * 1000:+.0f} ms | "
        f"{statistics.median(ratios):.3f} | {spread} |"
    )


def machine() -> str:
    """Enough of the machine to read a figure by."""
    import os  # noqa: PLC0415

    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def paste(name: str, text: str, page: Path = PROMISES) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->` on the page."""
    old = page.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(old):
        raise SystemExit(f"{page} has no place for {name}")
    page.write_text(pattern.sub(lambda found: f"{found[1]}{text}\n{found[2]}", old), encoding="utf-8")
