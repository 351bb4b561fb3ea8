"""Adapters in memory: read once, bounded in bytes, and never one that is not the file any more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from loravault.engine.bases import Base, load_base
from loravault.engine.cache import AdapterShelf
from loravault.engine.devices import choose_device
from loravault.errors import UserError
from loravault.formats.generation import BaseRef
from tests.tiny import make_adapter, use_of

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def base(tiny: BaseRef) -> Base:
    return load_base(tiny, choose_device("cpu"))


def test_an_adapter_is_read_once(base: Base, tmp_path: Path) -> None:
    make_adapter(tmp_path / "ink.safetensors")
    shelf, use = AdapterShelf(base), use_of(tmp_path / "ink.safetensors")
    assert shelf.get(use) is shelf.get(replace(use, te=0.1, name="another name"))
    assert shelf.bytes == shelf.get(use).bytes > 0


def test_the_one_used_longest_ago_makes_room(base: Base, tmp_path: Path) -> None:
    uses = []
    for number in range(3):
        make_adapter(tmp_path / f"{number}.safetensors", seed=number)
        uses.append(use_of(tmp_path / f"{number}.safetensors"))
    size = AdapterShelf(base).get(uses[0]).bytes
    shelf = AdapterShelf(base, limit=2 * size)
    first, second = shelf.get(uses[0]), shelf.get(uses[1])
    assert shelf.get(uses[0]) is first
    shelf.get(uses[2])
    assert shelf.bytes == 2 * size
    assert shelf.get(uses[0]) is first
    assert shelf.get(uses[1]) is not second


def test_one_that_is_larger_than_all_the_room_can_be_used_all_the_same(base: Base, tmp_path: Path) -> None:
    make_adapter(tmp_path / "ink.safetensors")
    shelf, use = AdapterShelf(base, limit=1), use_of(tmp_path / "ink.safetensors")
    assert shelf.get(use) is shelf.get(use)


def test_a_file_that_changed_is_read_again_and_its_old_form_is_forgotten(base: Base, tmp_path: Path) -> None:
    path = tmp_path / "ink.safetensors"
    make_adapter(path, seed=1)
    shelf, use = AdapterShelf(base), use_of(path)
    old = shelf.get(use)
    make_adapter(path, seed=2)
    with pytest.raises(UserError, match="is another one by now"):
        shelf.get(use)
    new = shelf.get(use_of(path))
    assert new is not old
    assert shelf.bytes == new.bytes


def test_a_file_that_is_gone_is_not_served_from_memory(base: Base, tmp_path: Path) -> None:
    """A picture must not say it was made with a file that nobody has."""
    path = tmp_path / "ink.safetensors"
    make_adapter(path)
    shelf, use = AdapterShelf(base), use_of(path)
    shelf.get(use)
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        shelf.get(use)
