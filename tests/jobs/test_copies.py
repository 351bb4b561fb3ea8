"""A drive that went or a file that was renamed between wish and work: where the same weights are now does as well."""

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


def paths_given(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The adapter files that workers are given from here on."""
    used: list[str] = []
    real = sup.Supervisor.start

    def start(self: sup.Supervisor, orders: Sequence[sup.Order]) -> None:
        jobs = [protocol.decode_order(order.line) for order in orders]
        used.extend(use.path for job in jobs if isinstance(job, protocol.Job) for use in job.spec.adapters)
        real(self, orders)

    monkeypatch.setattr(sup.Supervisor, "start", start)
    return used


def test_the_copy_that_is_there_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job was given a path on a drive that was away, although the same weights lay in the other folder."""
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    world = World(tmp_path)
    away = world.home / "aa"
    path = world.adapter("ink.safetensors")
    away.mkdir()
    shutil.copy2(path, away / "ink.safetensors")
    world.config = replace(world.config, loras=(Root("aa", away), *world.config.loras))
    used = paths_given(monkeypatch)
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


def test_a_file_that_was_renamed_a_moment_ago_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The note was refused for good ("No such file. Is its drive there?"), as nobody had looked since the renaming."""
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    world = World(tmp_path, rescan_s=3600.0)
    path = world.adapter("ink.safetensors")
    used = paths_given(monkeypatch)
    daemon = world.daemon()
    try:
        daemon.refresh()
        looks = daemon.ctx.looks.finished
        (world.loras / "Styles").mkdir()
        os.rename(path, world.loras / "Styles" / "ink_outline.safetensors")
        world.request("Cat.md", *[f"{what} <lora:ink:1>" for what in ("a cat", "a dog", "a tree")])
        daemon.feed.hint("Cat.md")
        world.finish(daemon, "Cat.md")
        looks = daemon.ctx.looks.finished - looks
    finally:
        daemon.close()
    assert used == [str(world.loras / "Styles" / "ink_outline.safetensors")] * 3
    assert looks <= 2


def test_a_file_that_is_gone_is_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    world = World(tmp_path, rescan_s=3600.0)
    path = world.adapter("ink.safetensors")
    used = paths_given(monkeypatch)
    daemon = world.daemon()
    try:
        daemon.refresh()
        looks = daemon.ctx.looks.finished
        path.unlink()
        world.request("Cat.md", *[f"{what} <lora:ink:1>" for what in ("a cat", "a dog", "a tree")])
        daemon.feed.hint("Cat.md")
        world.finish(daemon, "Cat.md")
        looks = daemon.ctx.looks.finished - looks
    finally:
        daemon.close()
    assert used == [str(path)] * 3, "the worker says what is wrong with it"
    assert looks <= 2
