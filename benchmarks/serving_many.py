"""A thousand adapters in random order: the base is loaded once, memory stays flat, and its weights come back."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

from benchmarks.serving_set import Served, make_set
from loravault.config import Root, VaultConfig
from loravault.daemon import Daemon
from loravault.engine import generate as engine_room
from loravault.engine.bases import Base, load_base
from loravault.engine.devices import choose_device
from loravault.engine.generate import Engine
from loravault.formats.generation import AdapterUse, BaseRef, GenerationSpec
from loravault.library.bases import read_base
from loravault.resources import demo_base
from loravault.vault.note import parse_note

#: The shelf of adapters that were read is made so small that it is full after some of them: 1 GiB never would be.
SHELF_MB = 8
#: Bytes that a process may grow by between the first fifth and the end.
GROWTH = 32 << 20
#: As many pictures are drawn again by an engine that knows nothing of the others.
AGAIN = 8
SIDE, STEPS = 64, 2


@dataclass
class Run:
    """What was seen while many were served."""

    served: int = 0
    loads: int = 0
    seconds: float = 0.0
    sizes: list[int] = field(default_factory=list)
    wrong: int = 0
    identical: bool = False

    @property
    def growth(self) -> int:
        """Bytes between the first fifth and the greatest afterwards."""
        settled = max(1, len(self.sizes) // 5)
        return max(self.sizes[settled:]) - max(self.sizes[:settled])


def measure(folder: Path, count: int, notes: int) -> tuple[str, bool]:
    """(table, whether all promises are kept)."""
    base = demo()
    made = make_set(folder / "loras", load_base(base, choose_device("cpu")), count)
    by_engine = through_engine(base, made, folder / "out")
    rows = [_row(f"the engine, {count} adapters of {len({one.algorithm for one in made})} algorithms", by_engine)]
    kept = by_engine.loads == 1 and by_engine.growth <= GROWTH and by_engine.identical and not by_engine.wrong
    if notes:
        by_notes = through_notes(folder, made[:notes])
        rows.append(_row(f"notes, daemon and worker, {notes} adapters", by_notes, "in 1 worker"))
        kept &= by_notes.loads == 1 and by_notes.growth <= GROWTH and not by_notes.wrong
    head = (
        "| served in random order by | each | base loaded | memory, first fifth → end | weights afterwards | wrong |\n"
        "|---|---|---|---|---|---|"
    )
    return "\n".join([head, *rows]), kept


def demo() -> BaseRef:
    """The demo base."""
    found = read_base(demo_base(), "demo")
    assert found is not None
    return found


def _row(what: str, run: Run, loaded: str = "1×") -> str:
    settled = max(run.sizes[: max(1, len(run.sizes) // 5)])
    weights = "bit-identical" if run.identical else "–"
    loads = loaded if run.loads == 1 else f"✗ {run.loads}×"
    flat = "✓" if run.growth <= GROWTH else "✗"
    return (
        f"| {what} | {run.seconds / run.served * 1000:.0f} ms | {loads} | "
        f"{settled >> 20} → {(settled + run.growth) >> 20} MB {flat} | {weights} | {run.wrong} |"
    )


# ---- the engine


def through_engine(base: BaseRef, made: Sequence[Served], out: Path) -> Run:
    """One picture with each adapter, in random order; some of them again by engines that know nothing of the others."""
    run, engine = Run(), Engine("cpu", adapter_bytes=SHELF_MB << 20)
    order = list(made)
    random.Random(7).shuffle(order)
    with counted(run):
        bare = pixels(engine, base, (), out, "bare")
        loaded = engine._loaded
        assert loaded is not None
        before = digest(loaded.base)
        drawn = {}
        began = time.perf_counter()
        for number, one in enumerate(order):
            found = pixels(engine, base, (one.use,), out, "served")
            run.served += 1
            if number % max(1, len(order) // 100) == 0:
                run.sizes.append(psutil.Process().memory_info().rss)
            if number % max(1, len(order) // AGAIN) == 0:
                drawn[number] = found
        run.seconds = time.perf_counter() - began
        after = pixels(engine, base, (), out, "bare")
        run.identical = digest(loaded.base) == before and bool((after == bare).all())
    fresh = Engine("cpu")
    for number, found in drawn.items():
        fresh._loaded = None
        run.wrong += not bool((pixels(fresh, base, (order[number].use,), out, "again") == found).all())
    return run


def pixels(engine: Engine, base: BaseRef, uses: tuple[AdapterUse, ...], out: Path, stem: str) -> Any:
    """A small picture, as numbers."""
    spec = GenerationSpec(
        base=base, prompt="a red house", seeds=(5,), width=SIDE, height=SIDE, steps=STEPS, cfg=1.0, sampler="Euler",
        adapters=uses, image_format="png",
    )  # fmt: skip
    outcome = engine.generate(spec, out, stem=stem)
    assert not outcome.unused_keys, (uses, outcome.unused_keys)
    return np.asarray(Image.open(outcome.images[0].path))


@contextmanager
def counted(run: Run) -> Iterator[None]:
    """Counts how often the engine loads a base."""
    real = engine_room.load_base

    def counting(*arguments: Any) -> Base:
        run.loads += 1
        return real(*arguments)

    engine_room.load_base = counting
    try:
        yield
    finally:
        engine_room.load_base = real


def digest(base: Base) -> str:
    """Of every bit of the denoiser and the text encoders."""
    sha = hashlib.sha256()
    for component in base.drawer.models:
        for name, tensor in sorted(getattr(base.pipe, component).state_dict().items()):
            sha.update(name.encode())
            sha.update(tensor.contiguous().view(torch.uint8).numpy())
    return sha.hexdigest()


# ---- notes


def through_notes(folder: Path, made: Sequence[Served]) -> Run:
    """A note for each adapter, all ticked, answered by the real daemon with its real worker."""
    run, vault = Run(), folder / "vault"
    vault.mkdir()
    os.environ["LORAVAULT_STATE_DIR"] = str(folder / "state")
    config = VaultConfig(
        vault=vault, loras=(Root("loras", folder / "loras"),), read_quiet_s=0.0, write_quiet_s=0.0, grace_s=0.0,
        together_s=0.0, rescan_s=3600.0, cards=False, galleries=False, hashing=False,
        adapter_memory_mb=SHELF_MB,
    )  # fmt: skip
    daemon = Daemon(config, watch=False)
    daemon.open()
    try:
        daemon.tick()
        order = list(made)
        random.Random(7).shuffle(order)
        began = time.perf_counter()
        pids = set()
        for number, one in enumerate(order):
            rel = f"Picture {number}.md"
            (vault / rel).write_text(_request(one.use), "utf-8")
            pids |= _answered(daemon, vault, rel, run)
            run.wrong += "> [!lora-result]" not in (vault / rel).read_text("utf-8")
            run.served += 1
        run.seconds = time.perf_counter() - began
        run.loads = len(pids)  # a worker loads a base when it is another, and only this one was asked for
    finally:
        daemon.close()
    return run


def _answered(daemon: Daemon, vault: Path, rel: str, run: Run) -> set[int]:
    """Ticks until the note has its answer; the workers that were seen."""
    pids: set[int] = set()
    daemon.feed.hint(rel)
    for _ in range(2000):
        daemon.tick()
        if (pid := daemon.dispatcher.lanes[0].supervisor.pid) is not None and pid not in pids:
            pids.add(pid)
        note = parse_note((vault / rel).read_bytes()).frontmatter
        if note is not None and note.properties.get("lv_status") in ("done", "failed"):
            break
        daemon._wake.wait(daemon._pause())
        daemon._wake.clear()
    run.sizes += [psutil.Process(pid).memory_info().rss for pid in pids]
    return pids


def _request(use: AdapterUse) -> str:
    return (
        f"---\nloravault: generate\nrun: true\nbase: demo\nseed: 5\nsteps: {STEPS}\ncfg: 1\nsize: {SIDE}x{SIDE}\n"
        f"sampler: Euler\n---\n```prompt\na red house <lora:{use.name}:{use.te}:{use.unet}>\n```\n"
    )
