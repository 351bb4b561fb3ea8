"""kill -9 in the middle of a run of previews, the index kept or lost: one callout, one picture for each adapter."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from loravault.vault.note import parse_note
from tests.faults.test_daemon_kill import finish, serve
from tests.world import World

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

NOTE = "Previews.md"
POINTS = (
    "intake.recorded", "job.claimed:2", "job.images-durable:2", "job.images-recorded:2", "job.finished:2",
    "deliver.before-note", "deliver.after-note", "deliver.after-close", "deliver.before-note:2", "deliver.after-note:2",
)  # fmt: skip


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("LORAVAULT_CRASH_AT", raising=False)
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.005")
    return World(tmp_path)


def ask(world: World) -> None:
    for name in ("a", "b", "c", "d"):
        world.adapter(f"{name}.safetensors")
    world.request(NOTE, loravault="preview", count=3)


def check(world: World) -> None:
    note = parse_note((world.vault / NOTE).read_bytes())
    [region] = note.regions
    assert region.intact
    assert region.lines[0].startswith("[!lora-result]+ 3 previews"), world.read(NOTE)
    named = [line.split("|")[0][3:] for line in region.lines if line.startswith("![[")]
    assert len(set(named)) == 3
    assert all((world.vault / name).is_file() for name in named)
    made = list((world.vault / "LoraVault" / "Images").rglob("lv-2*"))
    assert len(made) == 3, "no picture was made twice"


@pytest.mark.parametrize("lost", [False, True], ids=["index-kept", "index-lost"])
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_loses_and_doubles_no_preview(world: World, point: str, lost: bool) -> None:
    ask(world)
    assert serve(world, crash_at=point).wait(timeout=120) == -signal.SIGKILL, f"{point} was never reached"
    if lost:
        for path in world.config.state_dir.glob("index.sqlite*"):
            path.unlink()
    finish(world)
    check(world)
