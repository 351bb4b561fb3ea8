"""A drive that went between wish and work: a copy of the same weights that is there does as well."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from loravault.config import Root
from loravault.jobs import protocol
from loravault.jobs import supervisor as sup
from tests.world import World


def test_the_copy_that_is_there_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job was given a path on a drive that was away, although the same weights lay in the other folder."""
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    world = World(tmp_path)
    away = world.home / "aa"
    path = world.adapter("ink.safetensors")
    away.mkdir()
    shutil.copy2(path, away / "ink.safetensors")
    world.config = replace(world.config, loras=(Root("aa", away), *world.config.loras))
    used: list[str] = []
    real = sup.Supervisor.start

    def start(self: sup.Supervisor, orders: Sequence[sup.Order]) -> None:
        jobs = [protocol.decode_order(order.line) for order in orders]
        used.extend(use.path for job in jobs if isinstance(job, protocol.Job) for use in job.spec.adapters)
        real(self, orders)

    monkeypatch.setattr(sup.Supervisor, "start", start)
    daemon = world.daemon()
    try:
        daemon.refresh()
        os.rename(away, world.home / "unplugged")
        world.request("Cat.md", "a cat <lora:ink:1>", seed=1)
        world.finish(daemon, "Cat.md")
    finally:
        daemon.close()
    assert used == [str(path)]
    assert world.status("Cat.md") == "done"
