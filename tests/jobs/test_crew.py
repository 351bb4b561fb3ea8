"""Several devices: a worker for each, told apart by what it sees; jobs go where they fit, and none waits idly."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from loravault import settings
from loravault.daemon import Daemon
from loravault.doctor import Finding, device, examine
from loravault.jobs.crew import Crew
from loravault.jobs.lanes import Held, Lane
from loravault.jobs.workerenv import CARDS, VISIBLE, for_device, with_cards
from tests.jobs.supervising import FAKE, ROOT
from tests.jobs.test_path import running
from tests.world import World


def test_each_worker_sees_only_its_card() -> None:
    assert for_device("cuda:1", {}, several=True) == {"LORAVAULT_DEVICE": "cuda", VISIBLE: "1"}
    assert for_device("cuda:1", {VISIBLE: "4, 7"}, several=True) == {"LORAVAULT_DEVICE": "cuda", VISIBLE: "7"}
    assert for_device("cuda:1", {VISIBLE: "GPU-a,GPU-b"}, several=True)[VISIBLE] == "GPU-b"
    missing = for_device("cuda:2", {VISIBLE: "4,7"}, several=True)
    assert missing == {"LORAVAULT_DEVICE": "cuda:2", VISIBLE: "4,7"}, "torch says that there is none"


def test_a_worker_that_sees_its_own_card_is_told_of_the_others() -> None:
    """A training on several cards starts processes there; only those that workers may use count."""
    assert with_cards(["cuda:0", "cuda:1"], {"A": "b"}) == {"A": "b", CARDS: "0,1"}
    assert with_cards(["cuda:0", "cuda:1", "cuda:2"], {VISIBLE: "4,7"})[CARDS] == "4,7"
    assert with_cards(["cpu", "cuda:1"], {}) == {}


@pytest.mark.parametrize("wish", ["auto", "cpu", "mps", "cuda", "cuda:1"])
def test_a_single_worker_is_told_its_device_and_sees_what_we_see(wish: str) -> None:
    assert for_device(wish, {VISIBLE: "3"}, several=False) == {"LORAVAULT_DEVICE": wish, VISIBLE: "3"}


@pytest.mark.parametrize(
    ("raw", "value"),
    [("auto", "auto"), (["cuda:0", "cuda:1"], ("cuda:0", "cuda:1")), (["cuda:1"], "cuda:1"), (["cpu", "cuda:0"],) * 2],
)
def test_devices_in_the_configuration(raw: Any, value: Any) -> None:
    found = settings.SHARED["device"](raw)
    assert found == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("raw", [[], ["cuda:0", "cuda:0"], ["auto", "cpu"], ["cuda", "cuda:1"], "gpu", 1, [1]])
def test_devices_that_are_none_are_refused(raw: Any) -> None:
    with pytest.raises(settings.NotThis):
        settings.SHARED["device"](raw)


def crew(tmp_path: Path, wish: str | tuple[str, ...], **env: str) -> Crew:
    ours = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    ours.pop(VISIBLE, None)
    return Crew(FAKE, ours, wish, tmp_path / "worker.log", lambda: None, 30.0)


def ready(made: Crew, lane: Lane) -> None:
    import time

    lane.supervisor.warm_up()
    give_up = time.monotonic() + 20
    while not lane.supervisor.device:
        lane.supervisor.poll()
        assert time.monotonic() < give_up
        time.sleep(0.01)
    made.grow()


def test_what_is_queued_waits_behind_a_training_only_if_every_worker_is_at_one(tmp_path: Path) -> None:
    """And for the one that ends first; one that was asked to make way keeps nobody waiting."""
    made = crew(tmp_path, ("cuda:0", "cuda:1"))
    long, short = (Held(name, "", 0, False, training=True, begun=True) for name in ("long", "short"))
    made.lanes[0].held["long"] = long
    assert made.training is None
    made.lanes[1].held["picture"] = Held("picture", "", 1, False, begun=True)
    assert made.training is None
    made.lanes[1].held = {"short": short}
    assert made.training is not None
    long.seconds_left, short.seconds_left = 3000.0, 60.0
    assert made.training is short
    short.seconds_left = None
    assert made.training is long, "nothing is known of the other yet"
    long.paused = True
    assert made.training is None


def test_with_auto_the_first_worker_says_how_many_there_are(tmp_path: Path) -> None:
    made = crew(tmp_path, "auto", LORAVAULT_FAKE_CARDS="3")
    try:
        made.grow()
        assert len(made.lanes) == 1
        ready(made, made.lanes[0])
        assert [lane.name for lane in made.lanes] == ["cuda:0", "cuda:1", "cuda:2"]
        assert [lane.supervisor.pid is not None for lane in made.lanes] == [True, False, False], "none before its work"
        ready(made, made.lanes[1])
        assert made.lanes[1].supervisor.cards == 1, "it sees its own"
        assert made.devices == "cuda:0 (Fake), cuda:1 (Fake)"
        assert len(made.lanes) == 3, "and grows no more"
        made.lanes[0].supervisor.close()
        ready(made, made.lanes[0])
        assert made.lanes[0].supervisor.cards == 1, "the next one in the first place sees its own, too"
    finally:
        made.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["worker-2.log", "worker.log"]


@pytest.mark.parametrize(("wish", "cards"), [("auto", "1"), ("auto", "0"), ("cuda:0", "3")])
def test_one_device_is_one_worker(tmp_path: Path, wish: str, cards: str) -> None:
    made = crew(tmp_path, wish, LORAVAULT_FAKE_CARDS=cards)
    try:
        ready(made, made.lanes[0])
        assert len(made.lanes) == 1
        assert made.devices == ("fake" if cards == "0" else "cuda (Fake)")
    finally:
        made.close()


def test_doctor_names_every_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("LORAVAULT_FAKE_CARDS", "4")
    assert device("auto", FAKE).text == "cuda (Fake) and 3 more: a worker for each of the 4 cards"
    assert device("cuda:1", FAKE).text == "cuda (Fake)"
    world = World(tmp_path, device=("cuda:0", "cuda:1"), state_root=tmp_path / "state")
    found = [one.text for one in examine(world.config, lambda wish: Finding("device", wish)) if one.label == "device"]
    assert found == ["cuda:0", "cuda:1"]


# ---- with a daemon


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("LORAVAULT_FAKE_CARDS", "2")
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.03")
    monkeypatch.delenv(VISIBLE, raising=False)
    return World(tmp_path, device=("cuda:0", "cuda:1"))


def at_work(daemon: Daemon) -> int:
    return sum(any(held.fraction for held in lane.begun) for lane in daemon.dispatcher.lanes)


def test_two_notes_are_drawn_at_the_same_time(two: World) -> None:
    """Although they could be drawn together: there is a worker for each."""
    for n in range(2):
        two.request(f"Note {n}.md", f"a red cat {n}", seed=n, steps=60)
    with running(two) as daemon:
        two.work(daemon, lambda: at_work(daemon) == 2)
        daemon.board.write(stopped=False)
        two.finish(daemon, "Note 0.md", "Note 1.md")
        assert [lane.device for lane in daemon.dispatcher.lanes] == ["cuda:0 (Fake)", "cuda:1 (Fake)"]
    assert [two.results(f"Note {n}.md") for n in range(2)] == [1, 1]


def test_the_queue_says_where_each_is_drawn(two: World) -> None:
    for n in range(2):
        two.request(f"Note {n}.md", f"a red cat {n}", seed=n, steps=100)
    from loravault.index import commands

    with running(two) as daemon:
        two.work(daemon, lambda: at_work(daemon) == 2)
        daemon.board._progress_at = float("-inf")
        daemon.board.write()
        with daemon.ctx.index.session() as session:
            told = commands.fact(session, "progress") or ""
    assert "on cuda:0" in told
    assert "on cuda:1" in told


def test_a_worker_without_work_takes_what_the_other_has_not_begun(two: World) -> None:
    """Both blocks were claimed for one worker while the other was busy; then that one is free."""
    two.request("A slow.md", "fake:slow=0.1 a", seed=1, steps=120)
    two.request("B quick.md", "b", seed=1, steps=10)
    with running(two) as daemon:
        two.work(daemon, lambda: at_work(daemon) == 2)
        for n in range(3):
            two.request(f"C {n}.md", f"c {n}", seed=n, steps=20 + n)
        two.finish(daemon, "B quick.md", "C 0.md", "C 1.md", "C 2.md", timeout=40)
        assert two.status("A slow.md") != "done", "nobody waited behind it"


def test_a_job_goes_to_the_worker_that_has_its_adapters(two: World) -> None:
    for name in ("ink", "oil"):
        two.adapter(f"{name}.safetensors")
    with running(two) as daemon:
        daemon.refresh()
        for n, name in enumerate(("ink", "oil")):
            two.request(f"First {name}.md", f"a <lora:{name}:1>", seed=n, steps=30)
        two.finish(daemon, "First ink.md", "First oil.md")
        loaded = {lane.setup: lane.name for lane in daemon.dispatcher.lanes}
        assert len(loaded) == 2
        for name in ("oil", "ink"):
            two.request(f"Second {name}.md", f"another <lora:{name}:1>", seed=9, steps=30)
        two.finish(daemon, "Second ink.md", "Second oil.md")
        assert {lane.setup: lane.name for lane in daemon.dispatcher.lanes} == loaded


def test_a_dead_worker_does_not_disturb_the_other(two: World) -> None:
    two.request("A poison.md", "fake:segv", seed=1, steps=8)
    two.request("B.md", "b", seed=1, steps=60)
    with running(two) as daemon:
        two.finish(daemon, "A poison.md", "B.md", timeout=40)
    assert (two.status("A poison.md"), two.status("B.md")) == ("failed", "done")
