"""A file that an event names is taken in at once; the whole look comes after it, whatever else happens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from loravault import looking
from loravault.index import adapters
from loravault.index.refresh import Refreshed
from loravault.looking import Looks
from tests.world import World


class Watch:
    """Looks over a world's loras folder, with a clock that stands still until it is moved."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.daemon = world.daemon()
        self.now = 1000.0
        monkeypatch.setattr(self.daemon.ctx, "steady", lambda: self.now)
        self.whole: list[Refreshed] = []
        self.quick: list[set[str]] = []
        self.looks = Looks(self.daemon.ctx, self.whole.append, self.quick.append)

    def wait(self, seconds: float, step: float = 0.5) -> None:
        """Time passes; every half second somebody asks whether a look is due."""
        end = self.now + seconds
        while self.now < end:
            self.now += step
            if self.looks.due_in <= 0:
                self.looks.step()

    def known(self) -> set[str]:
        with self.daemon.ctx.index.session() as session:
            return {row.rel for row in adapters.adapters(session)}


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    made = Watch(World(tmp_path, rescan_s=3600.0), monkeypatch)
    yield made
    made.daemon.close()


def test_what_an_event_names_is_taken_in_before_all_is_looked_at(watch: Watch) -> None:
    watch.wait(1)
    assert len(watch.whole) == 1, "the first look is whole"
    watch.world.adapter("ink.safetensors")
    root = watch.world.config.loras[0].name
    watch.looks.hint(root, "ink.safetensors")
    watch.wait(looking.SETTLE_S)
    assert (watch.known(), len(watch.quick), len(watch.whole)) == ({"ink.safetensors"}, 1, 1)
    watch.wait(looking.AFTER_HINTED_S)
    assert len(watch.whole) == 2


def test_a_download_that_names_its_file_all_the_time_keeps_no_whole_look_away(watch: Watch) -> None:
    watch.wait(1)
    watch.world.adapter("silent.safetensors")  # no event tells of this one
    root = watch.world.config.loras[0].name
    for _ in range(12):
        watch.looks.hint(root, "big.safetensors.part")
        watch.wait(0.5)
    assert watch.known() == {"silent.safetensors"}


def test_many_names_at_once_and_a_root_in_trouble_are_left_to_the_whole_look(watch: Watch) -> None:
    watch.wait(1)
    root = watch.world.config.loras[0].name
    for number in range(looking.MOST + 1):
        watch.looks.hint(root, f"{number}.safetensors")
    watch.wait(looking.SETTLE_S)
    assert (watch.quick, len(watch.whole)) == ([], 2)
    watch.world.adapter("ink.safetensors")
    watch.daemon.ctx.troubles[f"root.{root}"] = "it has suddenly lost its files"
    watch.looks.hint(root, "ink.safetensors")
    watch.wait(looking.SETTLE_S)
    assert watch.quick == []


def test_what_the_first_file_needs_is_made_while_it_settles(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turning the tables of the families round took a fifth of the time in which a new file is to be seen."""
    made: list[None] = []
    monkeypatch.setattr(looking, "prepare", lambda: made.append(None))
    watch.wait(1)
    assert not made, "a start without new files needs none of it"
    watch.looks.hint(watch.world.config.loras[0].name, "ink.safetensors")
    assert made
