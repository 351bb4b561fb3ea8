"""The notes of a library: first write and second run, memory, search, and how soon one changed file shows everywhere.

Each vault is made by a daemon in a process of its own; nothing waits there for people, and files are not hashed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import figures
from benchmarks.library_set import RECIPES
from benchmarks.writers import TAGS
from loravault.config import Root, VaultConfig
from loravault.daemon import Daemon
from loravault.index.search import search
from loravault.vault.safewrite import VaultWriter

WRITE_RATIO, SEARCH_MS, QUERIES, MEMORY_MB = 3.0, 20, 200, 100
#: Rewritten with every look; it tells the time.
_DASHBOARD = "LoraVault/LoraVault.md"


def daemon_at(home: Path, adapters: Path, *, watch: bool = False) -> Daemon:
    """A daemon on the vault in `home`, open."""
    vault = home / "vault"
    vault.mkdir(parents=True, exist_ok=True)
    config = VaultConfig(
        vault=vault, loras=(Root("loras", adapters),), hashing=False, rescan_s=3600.0, state_root=home / "state"
    )
    daemon = Daemon(config, watch=watch)
    daemon.open()
    return daemon


def step_by_step(step: Callable[[float], bool]) -> None:
    """A keeper's work to its end."""
    while step(1.0):
        pass


def make_notes(daemon: Daemon) -> None:
    """All cards, then all pages."""
    daemon.intake.show_cards()
    daemon._cards_shown = True
    keepers = daemon.keepers
    step_by_step(keepers.cards.step)
    keepers.galleries.library_changed(keepers.cards.take_changed())
    step_by_step(keepers.galleries.step)


def clocked(writer: VaultWriter) -> list[float]:
    """Seconds of every call that puts new files into the vault, from now on."""
    real, costs = writer.create_many, []

    def create_many(*args: Any, **options: Any) -> list[str]:
        began = time.perf_counter()
        try:
            return real(*args, **options)
        finally:
            costs.append(time.perf_counter() - began)

    writer.create_many = create_many  # type: ignore[method-assign]
    return costs


def make_covers(daemon: Daemon) -> None:
    """All covers: a child decodes them, this process waits."""
    covers = daemon.keepers.covers
    while covers.step(1.0) or covers.waiting:
        time.sleep(0.02)


def child(adapters: Path, home: Path) -> dict[str, float]:
    """One vault from nothing, and again."""
    told: dict[str, float] = {}
    daemon = daemon_at(home, adapters)
    told["memory before"] = figures.resident_bytes()
    told["index"] = figures.timed(daemon.refresh)
    told["covers"] = figures.timed(lambda: make_covers(daemon))
    before = dict(figures.files(home / "vault"))
    writing = clocked(daemon.ctx.writer)
    told["notes"] = figures.timed(lambda: make_notes(daemon))
    told["writing"] = sum(writing)
    told["search"] = figures.timed(lambda: step_by_step(daemon.keepers.search.step))
    told["memory after"] = figures.peak_bytes()
    told |= searched(daemon)
    daemon.close()
    first = _without_dashboard(home)
    written = [rel for rel in first if rel not in before]
    told["written"] = len(written)
    told["bytes"] = sum(first[rel][1] for rel in written)
    told["bare notes"] = bare_notes(home, written)
    told["second"], told["rewritten"] = second_run(home, adapters, first)
    return told


def second_run(home: Path, adapters: Path, first: dict[str, tuple[int, int, int]]) -> tuple[float, int]:
    """(seconds, files that another start wrote or took away)."""
    began = time.perf_counter()
    daemon = daemon_at(home, adapters)
    daemon.refresh()
    daemon.settle_library()
    took = time.perf_counter() - began
    daemon.close()
    second = _without_dashboard(home)
    return took, len(set(first.items()) ^ set(second.items()))


def _without_dashboard(home: Path) -> dict[str, tuple[int, int, int]]:
    return {rel: key for rel, key in figures.files(home / "vault") if rel != _DASHBOARD}


def bare_notes(home: Path, written: list[str]) -> float:
    """The same bytes under the same names in an empty folder: temporary file, rename. Median of three."""
    contents = [(rel, (home / "vault" / rel).read_bytes()) for rel in written]
    return statistics.median(
        figures.timed(lambda at=home / f"bare{turn}": write_plainly(at, contents))  # type: ignore[misc]
        for turn in range(3)
    )


def write_plainly(folder: Path, contents: list[tuple[str, bytes]]) -> None:
    """The shortest loop that leaves no half-written file behind a crash of the program."""
    made: set[str] = set()
    for rel, data in contents:
        path = os.path.join(folder, rel)
        parent = os.path.dirname(path)
        if parent not in made:
            os.makedirs(parent, exist_ok=True)
            made.add(parent)
        temp = f"{path}.tmp"
        with open(temp, "wb") as file:
            file.write(data)
        os.replace(temp, path)


def queries() -> Iterator[str]:
    """What people type: words, beginnings, filters, other scripts, and nonsense."""
    rng = random.Random(4)
    families = ("sdxl", "sd15", "flux", "wan", "qwen-image")
    forms: tuple[Callable[[], str], ...] = (
        lambda: rng.choice(TAGS),
        lambda: rng.choice(TAGS)[: rng.randint(1, 4)],
        lambda: f"{rng.choice(TAGS)} {rng.choice(TAGS)}",
        lambda: f"{rng.choice(TAGS)} family:{rng.choice(families)}",
        lambda: f"folder:{rng.choice(RECIPES).folder} unused",
        lambda: f'"{rng.choice(TAGS)}" -{rng.choice(TAGS)}',
        lambda: rng.choice(("", "水墨", "Ünïcode", "🦊", "'; --", "a", "style", "ghibli_style_v2", "zzzzqq")),
    )
    for number in range(QUERIES):
        yield forms[number % len(forms)]()


def searched(daemon: Daemon) -> dict[str, float]:
    """Seconds of a search, as the command line makes it: the usual one and the slowest."""
    costs = []
    for text in queries():
        began = time.perf_counter()
        with daemon.ctx.index.session() as session:
            search(session, text, limit=25)
        costs.append(time.perf_counter() - began)
    return {"search median": statistics.median(costs), "search worst": max(costs)}


def notes(adapters: Path, folder: Path, rounds: int) -> list[figures.Figure]:
    """The figures of the notes; the last vault stays in `folder/vault0`."""
    rows = []
    for turn in reversed(range(rounds)):
        command = [sys.executable, "-m", "benchmarks.library_vault", str(adapters), str(folder / f"vault{turn}")]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    usual = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    worst = max(row["rewritten"] for row in rows)
    grown = max(row["memory after"] - row["memory before"] for row in rows) / 1e6
    files = f"{usual['written']:,.0f} cards and pages, {usual['bytes'] / 1e6:.0f} MB"
    first = figures.ratio(
        f"{files}: first write (read, decided, rendered, written, remembered) / temporary file, rename",
        [(row["bare notes"], row["notes"]) for row in rows],
        WRITE_RATIO,
    )
    writing = figures.ratio(
        f"of it, the writing: each file whole at every moment, all on the disk at the end ({files})",
        [(row["bare notes"], row["writing"]) for row in rows],
        None,
    )
    second = figures.Figure(
        "another start: files written", "", figures.seconds(usual["second"]), f"{worst:.0f}", "0", worst == 0
    )
    memory = figures.Figure(
        "memory of a daemon that makes all of it from nothing: index, covers, cards, pages, search", "", "",
        f"+{grown:.0f} MB", f"≤ {MEMORY_MB} MB", grown <= MEMORY_MB,
    )  # fmt: skip
    slowest = usual["search worst"] * 1000
    found = figures.Figure(
        f"search, {QUERIES} queries: the slowest", "", f"median {figures.seconds(usual['search median'])}",
        f"{slowest:.1f} ms", f"≤ {SEARCH_MS} ms", slowest <= SEARCH_MS,
    )  # fmt: skip
    return [first, writing, second, memory, found]


def answer(measured: Callable[[Path, Path], object]) -> None:
    """Be a process of its own: the folders of the adapters and of the vault are named, figures are printed as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("adapters", type=Path)
    parser.add_argument("home", type=Path)
    options = parser.parse_args()
    print(json.dumps(measured(options.adapters, options.home)))


if __name__ == "__main__":
    answer(child)
