"""Idle costs nothing: no torch in the daemon, little memory, next to no processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.world import World

SCRIPT = """
import json, os, sys, time
from pathlib import Path
from loravault.osdep import rss_bytes
from tests.world import World

world = World(Path(sys.argv[1]), rescan_s=30.0)
world.request("Cat.md", "a red cat")
daemon = world.daemon(watch=True)
daemon.feed.hint("Cat.md")
world.finish(daemon, "Cat.md")
ticks, cpu, began = 0, time.process_time(), time.monotonic()
while time.monotonic() - began < 4:
    daemon._wake.wait(daemon.tick())
    daemon._wake.clear()
    ticks += 1
heavy = sorted({"torch", "numpy", "PIL", "diffusers", "transformers"} & set(sys.modules))
print(json.dumps({"heavy": heavy, "rss": rss_bytes(), "ticks": ticks, "cpu": time.process_time() - cpu}))
daemon.close()
"""


def test_after_its_work_the_daemon_holds_no_torch_little_memory_and_sleeps(world: World, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=55,
        check=True,
    )
    told = json.loads(run.stdout.splitlines()[-1])

    assert told["heavy"] == []
    assert told["rss"] < 110e6
    assert told["ticks"] <= 8, "about one a second"


def test_a_sleeping_daemon_wakes_when_a_changed_adapter_is_due(world: World) -> None:
    """It slept out its second first: a new file was seen up to a second after it had settled."""
    daemon = world.daemon()
    daemon.tick()
    world.work(daemon, lambda: daemon._pause() > 0)
    daemon.looks.expect(0.3)
    assert 0 < daemon._pause() <= 0.3
    daemon.close()
