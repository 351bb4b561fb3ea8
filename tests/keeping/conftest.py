"""The vault that most keepers are tried on, and a daemon over it. A file that needs another one has its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from loravault.daemon import Daemon
from tests.world import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    return World(tmp_path)


@pytest.fixture
def daemon(world: World) -> Iterator[Daemon]:
    daemon = world.daemon()
    try:
        yield daemon
    finally:
        daemon.close()
