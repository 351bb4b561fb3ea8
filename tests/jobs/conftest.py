"""A world per test, with its state below the test's own folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.world import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    return World(tmp_path)


@pytest.fixture
def together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world in which answers wait long for each other, so that the count of writes does not depend on speed."""
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    return World(tmp_path, together_s=30.0)
