"""The quick look reads what an event named, and takes in only what no other place has a say in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loravault.config import Root
from loravault.index import adapters
from loravault.index.database import Index
from loravault.index.hinted import look_at_hinted
from loravault.index.refresh import Refreshed, refresh_adapters
from loravault.index.tables import AdapterRow
from tests.formats import headers
from tests.index.library import LATER


class Loras:
    """One root and its index."""

    def __init__(self, home: Path) -> None:
        self.index = Index(home / "state" / "index.sqlite")
        self.root = Root("main", home / "main")
        self.root.path.mkdir(parents=True)

    def put(self, name: str, fill: int) -> None:
        headers.write(self.root.path / name, headers.adapter(headers.lora(), fill=fill))

    def hint(self, *names: str) -> Refreshed:
        return look_at_hinted(self.index, [self.root], {"main": names})

    def look(self) -> Refreshed:
        return refresh_adapters(self.index, [self.root], now=lambda: LATER)

    def rows(self) -> list[AdapterRow]:
        with self.index.session() as session:
            return sorted(adapters.adapters(session), key=lambda row: row.rel)

    def told(self) -> list[tuple[str, str | None, str]]:
        return [(row.rel, row.weight_id, row.state) for row in self.rows()]


@pytest.fixture
def loras(tmp_path: Path):
    made = Loras(tmp_path)
    yield made
    made.index.close()


def test_a_new_and_a_replaced_file_are_taken_in_and_the_whole_look_finds_nothing_more(loras: Loras) -> None:
    loras.put("old.safetensors", 1)
    loras.look()
    (before,) = loras.rows()
    loras.put("new.safetensors", 2)
    loras.put("old.safetensors", 3)
    result = loras.hint("new.safetensors", "old.safetensors")
    new, old = loras.rows()
    assert old.weight_id != before.weight_id
    assert result.weights == {new.weight_id, old.weight_id, before.weight_id}
    assert not loras.look().read


def test_a_file_of_zeros_waits_only_while_it_may_still_be_filled(loras: Loras) -> None:
    """An old one that was moved into the folder waited for the whole look, and so did the benchmark's, which is one."""
    loras.put("base.safetensors", 1)
    path = loras.root.path / "hollow.safetensors"
    headers.write(path, headers.adapter(headers.lora(width=4096, rank=128, out=4096), fill=0))
    assert not loras.hint(path.name).weights
    os.utime(path, (1, 1))
    assert len(loras.hint(path.name).weights) == 1


def test_a_sidecar_that_came_is_read_for_its_adapter(loras: Loras) -> None:
    loras.put("ink.safetensors", 1)
    loras.look()
    (loras.root.path / "ink.txt").write_text("A brush, very wet.\n")
    assert len(loras.hint("ink.txt").weights) == 1
    assert "very wet" in loras.rows()[0].facts


def test_a_file_that_did_not_change_is_not_read(loras: Loras, monkeypatch: pytest.MonkeyPatch) -> None:
    loras.put("ink.safetensors", 1)
    loras.look()
    monkeypatch.setattr("loravault.index.hinted.read_adapter", None)
    assert not loras.hint("ink.safetensors").weights


def test_copies_moves_and_what_is_broken_are_left_to_the_whole_look(loras: Loras) -> None:
    loras.put("ink.safetensors", 1)
    loras.look()
    before = loras.told()
    loras.put("copy.safetensors", 1)
    (loras.root.path / "half.safetensors").write_bytes(b"\x00" * 40)
    assert not loras.hint("copy.safetensors", "half.safetensors", "gone.safetensors").weights
    assert loras.told() == before
    loras.look()
    assert {row.state for row in loras.rows()} == {"ok", "duplicate", "broken"}


def test_of_two_new_files_with_the_same_weights_one_is_left_to_the_whole_look(loras: Loras) -> None:
    """Both would have been called the original, and nobody would have looked again."""
    loras.look()
    loras.put("a.safetensors", 1)
    loras.put("b.safetensors", 1)
    loras.hint("a.safetensors", "b.safetensors")
    assert len(loras.rows()) == 1
    loras.look()
    assert [row.state for row in loras.rows()].count("duplicate") == 1


NAMES = ("a.safetensors", "b.safetensors", "sub/a.safetensors", "sub/c.safetensors")
EVENTS = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 3)), min_size=1, max_size=8)


@settings(max_examples=30)
@given(EVENTS, EVENTS)
def test_after_the_whole_look_nobody_can_tell_that_there_was_a_quick_one(
    tmp_path_factory: pytest.TempPathFactory, first: list[tuple[str, int]], then: list[tuple[str, int]]
) -> None:
    """Files come, change their weights and go (0), hinted or not: the index ends the same."""
    ends = []
    for hinted in (True, False):
        loras = Loras(tmp_path_factory.mktemp("hinted"))
        for events in (first, then):
            for name, fill in events:
                if fill:
                    loras.put(name, fill)
                else:
                    (loras.root.path / name).unlink(missing_ok=True)
            if hinted and events is then:
                loras.hint(*(name for name, _ in events))
            loras.look()
        loras.look()
        ends.append(loras.told())
        loras.index.close()
    assert ends[0] == ends[1]
