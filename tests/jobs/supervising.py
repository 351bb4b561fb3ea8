"""What tests of the supervisor share: a fake worker, jobs for it, and looks at what becomes of them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loravault.formats.generation import BaseRef, GenerationSpec
from loravault.formats.outcome import Provenance
from loravault.jobs.events import (
    Event,
    Finished,
    JobCancelled,
    JobFailed,
    VersionMismatch,
    WorkerDied,
)
from loravault.jobs.supervisor import Supervisor

ROOT = Path(__file__).parents[2]
FAKE = [sys.executable, str(ROOT / "tests" / "fakes" / "engine_child.py")]


def spec(prompt: str = "a cat", *, seeds: tuple[int, ...] = (1,), steps: int = 4, **more: Any) -> GenerationSpec:
    base = BaseRef(name="demo", path="/nowhere", family="demo")
    values: dict[str, Any] = {"base": base, "width": 16, "height": 16, "cfg": 7.0, "sampler": "Euler", **more}
    return GenerationSpec(prompt=prompt, seeds=seeds, steps=steps, **values)


@contextmanager
def supervisor(
    *, env: dict[str, str] | None = None, command: list[str] | None = None, **more: Any
) -> Iterator[Supervisor]:
    """A supervisor of the fake that does not wait long for anything."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    more = {"stall_s": 0.15, "term_grace_s": 0.2, **more}
    made = Supervisor(command or FAKE, environment, **more)
    try:
        yield made
    finally:
        made.close()


def until(
    boss: Supervisor,
    enough: Callable[[Event], bool],
    seconds: float = 20.0,
    doing: Callable[[Event], None] | None = None,
) -> list[Event]:
    """Polls until an event is `enough`; returns all of them."""
    events: list[Event] = []
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        new = boss.poll()
        events += new
        for event in new if doing is not None else ():
            doing(event)
        if any(enough(event) for event in new):
            return events
        time.sleep(0.005)
    raise AssertionError(f"nothing within {seconds} s after {events[-20:]}")


def answer(event: Event) -> bool:
    return isinstance(event, Finished | JobFailed | JobCancelled | WorkerDied | VersionMismatch)


def run(boss: Supervisor, prompt: str, folder: Path, job: str = "j1", **more: Any) -> list[Event]:
    boss.start_job(job, spec(prompt, **more), folder, provenance=Provenance(job=job, fingerprint="f" * 16))
    events = until(boss, answer)
    assert sum(answer(event) for event in events) == 1
    assert boss.busy is None
    return events


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").exists() and ") Z " in Path(f"/proc/{pid}/stat").read_text()


def wait_gone(pid: int, seconds: float) -> float:
    began = time.monotonic()
    while not gone(pid):
        assert time.monotonic() - began < seconds, f"process {pid} lives on"
        time.sleep(0.01)
    return time.monotonic() - began
