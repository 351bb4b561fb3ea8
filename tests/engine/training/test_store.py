"""What is kept for the next training: whole or not there, never out of date, never too much."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest
import torch

from loravault.engine.training import store as module
from loravault.engine.training.store import Store, fingerprint, key_of

pytestmark = pytest.mark.engine

TENSORS = {
    "mean": torch.arange(12.0).reshape(3, 4),
    "half": torch.ones(2, 2, dtype=torch.bfloat16),
    "one": torch.tensor(3),
}


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_is_kept_comes_back_bit_for_bit(tmp_path: Path) -> None:
    key = key_of("a", 1)
    assert Store(tmp_path).read("latents", key) is None
    for found in (Store(tmp_path).write("latents", key, TENSORS), Store(tmp_path).read("latents", key)):
        assert found is not None
        assert found.keys() == TENSORS.keys()
        assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)
        assert found["half"].dtype == torch.bfloat16
    assert Store(tmp_path).read("texts", key) is None
    assert len(files(tmp_path)) == 1


def test_keys_differ_with_everything_they_are_made_of() -> None:
    keys = [
        key_of(*parts) for parts in (("a", "b"), ("ab",), ("a", ["b"]), ("a", None), ("a", 1), ("a", "1"), ("a", 1.5))
    ]
    assert len(set(keys)) == len(keys)
    assert key_of({"x": 1, "y": 2}) == key_of({"y": 2, "x": 1})


@pytest.mark.parametrize("damage", ["cut", "flip", "zeros", "empty", "folder"])
def test_a_damaged_file_is_as_if_it_were_not_there(tmp_path: Path, damage: str) -> None:
    """Also one whose head is whole and whose numbers are not, as a crash of the machine leaves it."""
    store, key = Store(tmp_path), key_of("x")
    store.write("latents", key, TENSORS)
    (path,) = files(tmp_path)
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        broken = {
            "cut": data[:-5],
            "flip": data[:-1] + bytes([data[-1] ^ 1]),
            "zeros": data[:-40] + bytes(40),
            "empty": b"",
        }
        path.write_bytes(broken[damage])
    assert Store(tmp_path).read("latents", key) is None
    if damage != "folder":
        assert files(tmp_path) == []
        assert torch.equal(Store(tmp_path).write("latents", key, TENSORS)["mean"], TENSORS["mean"])


def test_a_disk_that_takes_nothing_costs_time_only(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    store = Store(blocked / "cache")
    for _ in range(2):
        found = store.write("latents", key_of("x"), TENSORS)
        assert torch.equal(found["mean"], TENSORS["mean"])
    assert len(store.problems) == 1
    assert "could not be kept" in store.problems[0]


def write_often(folder: str, ready: object) -> None:
    ready.wait()  # type: ignore[attr-defined]
    store = Store(Path(folder))
    for turn in range(30):
        key = key_of("shared", turn % 3)
        found = store.read("latents", key) or store.write("latents", key, {"x": torch.full((400,), float(turn % 3))})
        assert float(found["x"].mean()) == turn % 3


def test_two_processes_write_the_same(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(2)
    both = [context.Process(target=write_often, args=(str(tmp_path), ready)) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(30)
    assert [one.exitcode for one in both] == [0, 0]
    assert len(files(tmp_path)) == 3


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    before = Store(tmp_path)
    keys = [key_of(number) for number in range(5)]
    for number, key in enumerate(keys):
        before.write("latents", key, {"x": torch.zeros(1000)})
        os.utime(before._path("latents", key), (1000 + number, 1000 + number))
    size = before._path("latents", keys[0]).stat().st_size
    store = Store(tmp_path, limit=3 * size)
    assert store.read("latents", keys[0]) is not None  # used just now
    assert store.trim() == 2 * size
    assert [store.read("latents", key) is not None for key in keys] == [True, False, False, True, True]
    assert store.trim() == 0


def test_what_this_training_uses_is_never_removed(tmp_path: Path) -> None:
    store = Store(tmp_path, limit=10)
    keys = [key_of(number) for number in range(4)]
    for key in keys:
        store.write("texts", key, {"x": torch.zeros(100)})
    assert store.trim() == 0
    assert all(store.read("texts", key) is not None for key in keys)
    assert Store(tmp_path, limit=10).trim() > 0
    assert files(tmp_path) == []


def test_what_a_dead_process_left_is_cleared_after_a_day(tmp_path: Path) -> None:
    (tmp_path / "latents" / "ab").mkdir(parents=True)
    old, young = (tmp_path / "latents" / "ab" / f".{name}.1.2.tmp" for name in ("old", "young"))
    old.touch()
    young.touch()
    os.utime(old, (time.time() - 90_000,) * 2)
    Store(tmp_path).trim()
    assert files(tmp_path) == [young]


def test_mapped_tensors_outlive_their_file(tmp_path: Path) -> None:
    """Another process may clean up while this one trains."""
    store = Store(tmp_path)
    found = store.write("latents", key_of("x"), {"x": torch.full((100_000,), 2.5)})
    Store(tmp_path, limit=0).trim()
    assert files(tmp_path) == []
    assert float(found["x"].mean()) == 2.5


def test_beyond_so_many_files_they_are_read_instead_of_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system has only so many maps for a process."""
    monkeypatch.setattr(module, "_MOST_MAPS", 1)
    store = Store(tmp_path)
    found = [store.write("latents", key_of(number), {"x": torch.full((9,), float(number))}) for number in range(3)]
    assert [float(one["x"].mean()) for one in found] == [0.0, 1.0, 2.0]
    for path in files(tmp_path):  # in place, as nobody should: what was read does not notice
        path.write_bytes(bytes(path.stat().st_size))
    assert [float(one["x"].mean()) for one in found[1:]] == [1.0, 2.0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_cannot_be_read_now_stays(tmp_path: Path) -> None:
    store, key = Store(tmp_path), key_of("x")
    store.write("latents", key, TENSORS)
    (path,) = files(tmp_path)
    path.chmod(0)
    assert store.read("latents", key) is None
    path.chmod(0o600)
    assert store.read("latents", key) is not None


def test_a_fingerprint_is_of_every_bit() -> None:
    torch.manual_seed(0)
    one = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    torch.manual_seed(0)
    same = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    assert fingerprint(one) == fingerprint(same)
    with torch.no_grad():
        same[0].weight[3, 3] += 1e-6  # type: ignore[index, operator]
    prints = {fingerprint(one), fingerprint(same), fingerprint(one.to(torch.bfloat16)), fingerprint(one[0])}
    assert len(prints) == 4
