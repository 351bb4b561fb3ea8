"""What tests of housekeeping do: files beside files, plans, and the keeper that carries them out."""

from __future__ import annotations

import os
from pathlib import Path

from loravault.daemon import Daemon
from loravault.keeping.house import Housekeeper
from loravault.keeping.tidy import CleanPlan, plan_clean
from tests.world import World

OLD = 1_700_000_000


def plan(daemon: Daemon, *kinds: str) -> CleanPlan:
    daemon.refresh()
    with daemon.ctx.index.session() as session:
        return plan_clean(daemon.ctx.config, session, kinds, now=daemon.ctx.now())


def house(daemon: Daemon) -> Housekeeper:
    return Housekeeper(daemon.ctx, daemon.refresh)


def copy(world: World, rel: str, to: str) -> Path:
    path = world.loras / to
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((world.loras / rel).read_bytes())
    return path


def beside(world: World, rel: str, text: str = "{}") -> Path:
    path = world.loras / rel
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def age(world: World) -> None:
    for path in world.loras.rglob("*.safetensors"):
        os.utime(path, (OLD, OLD))
