"""A new adapter file gets a place: whole, once, and over nobody's file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from loravault.library import placing
from loravault.library.placing import place_adapter


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    path = tmp_path / "made.safetensors"
    path.write_bytes(b"weights" * 1000)
    return path


def place(source: Path, **more: Any) -> str:
    values: dict[str, Any] = {
        "folder": "Characters/Cats", "name": "my-cat", "token": "abc", "earlier": None, "is_taken": lambda _name: False,
        "chosen": lambda _rel: None, **more,
    }  # fmt: skip
    return place_adapter(source, source.parent / "root", **values)


def files(source: Path) -> list[str]:
    root = source.parent / "root"
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_it_is_there_whole_under_its_name(source: Path) -> None:
    assert place(source) == "Characters/Cats/my-cat.safetensors"
    assert files(source) == ["Characters/Cats/my-cat.safetensors"]
    assert (source.parent / "root/Characters/Cats/my-cat.safetensors").read_bytes() == source.read_bytes()
    assert place(source, folder="", name="top") == "top.safetensors"


def test_nobodys_file_is_replaced(source: Path) -> None:
    home = source.parent / "root/Characters/Cats"
    home.mkdir(parents=True)
    (home / "my-cat.safetensors").write_bytes(b"theirs")
    os.symlink("nowhere", home / "my-cat-2.safetensors")
    assert place(source) == "Characters/Cats/my-cat-3.safetensors"
    assert (home / "my-cat.safetensors").read_bytes() == b"theirs"


def test_a_name_that_means_another_adapter_elsewhere_is_not_taken(source: Path) -> None:
    assert place(source, is_taken=lambda name: name == "my-cat").endswith("/my-cat-2.safetensors")


def test_a_file_that_comes_at_the_last_moment_is_not_replaced(source: Path) -> None:
    def somebody_is_quicker(rel: str) -> None:
        target = source.parent / "root" / rel
        if rel.endswith("my-cat.safetensors"):
            target.write_bytes(b"theirs")

    assert place(source, chosen=somebody_is_quicker).endswith("/my-cat-2.safetensors")
    assert (source.parent / "root/Characters/Cats/my-cat.safetensors").read_bytes() == b"theirs"


@pytest.mark.parametrize("when", ["before the name", "after the name"])
def test_after_a_crash_there_is_one_file(source: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    chosen: list[str] = []
    honest = placing.replace_no_overwrite

    def crash(temporary: Path, target: Path) -> None:
        if when == "after the name":
            honest(temporary, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(placing, "replace_no_overwrite", crash)
        with pytest.raises(KeyboardInterrupt):
            place(source, chosen=chosen.append)
    # the index has seen the file meanwhile
    again = place(source, earlier=chosen[-1], is_taken=lambda name: when == "after the name" and name == "my-cat")
    assert again == chosen[-1]
    assert files(source) == ["Characters/Cats/my-cat.safetensors"]


def test_what_was_chosen_and_then_taken_by_somebody_else_is_left_to_them(source: Path) -> None:
    home = source.parent / "root/Characters/Cats"
    home.mkdir(parents=True)
    (home / "my-cat.safetensors").write_bytes(b"theirs")
    assert place(source, earlier="Characters/Cats/my-cat.safetensors").endswith("/my-cat-2.safetensors")


def test_a_root_that_is_away_is_not_made(source: Path) -> None:
    (source.parent / "root").rmdir()
    with pytest.raises(FileNotFoundError):
        place(source)
    assert not (source.parent / "root").exists()


def test_a_full_disk_leaves_nothing_behind(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(placing.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        place(source, folder="")
    assert files(source) == []
