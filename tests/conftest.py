"""What holds for every test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Test processes share the cores. Threads of torch that spin while they wait for each other take the time of those they
# wait for: several times slower, and more so the more tests run. Read when torch is imported, by workers' workers too.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is no bug: time limits belong to pytest-timeout, not to single examples.
settings.register_profile("default", deadline=None)
settings.load_profile("default")

#: Where single files take a minute or more. They begin first: else one process has such a file left when all others are
#: done. (`--no-loadscope-reorder`: xdist would begin with the files of the most tests, which are the quick ones.)
_LONG = ("e2e", "faults", "engine/training", "engine", "jobs", "benchmarks")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The rooms with the long files first; within a room the order stays."""
    here = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        room = item.path.parent.relative_to(here).as_posix() if item.path.is_relative_to(here) else ""
        return next((number for number, long in enumerate(_LONG) if room == long), len(_LONG))

    items.sort(key=rank)
