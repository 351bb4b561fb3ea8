"""A walk names every note that can be one, and its keys can be stored whatever the file system counts in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.vault.walk import is_text, key_of, stat_key, walk_notes


def status(size: int = 1, mtime_ns: int = 1, dev: int = 1, ino: int = 1) -> os.stat_result:
    return os.stat_result((0o100644, ino, dev, 1, 0, 0, size, 0, 0, 0), {"st_mtime_ns": mtime_ns})  # type: ignore[arg-type]


numbers = st.integers(0, 2**64 - 1)


@given(numbers, numbers, numbers, numbers)
def test_a_key_fits_into_64_signed_bits_and_files_that_differ_keep_differing(
    dev: int, ino: int, other_dev: int, other_ino: int
) -> None:
    first, second = key_of(status(dev=dev, ino=ino)), key_of(status(dev=other_dev, ino=other_ino))
    assert all(-(2**63) <= number < 2**63 for number in first)
    assert (first == second) == ((dev, ino) == (other_dev, other_ino))


def test_a_usual_key_is_what_the_system_says(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("x")
    real = path.stat()
    assert stat_key(path) == (real.st_size, real.st_mtime_ns, real.st_dev, real.st_ino)


@pytest.mark.parametrize("mtime_ns", [2**63, 2**64, 10**20, -(10**20)])
def test_a_time_beyond_2262_is_cut_not_turned_round(mtime_ns: int) -> None:
    """Folded it would be in the past, and a file of the future would count as quiet for centuries."""
    cut = key_of(status(mtime_ns=mtime_ns))[1]
    assert -(2**63) <= cut < 2**63
    assert (cut > 0) == (mtime_ns > 0)


def test_a_walk_leaves_out_what_can_be_no_note(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".trash").mkdir()
    for name in ("a.md", "sub/b.MD", "sub/c.txt", ".trash/d.md", os.fsdecode(b"caf\xe9.md")):
        try:
            (tmp_path / name).write_text("x")
        except OSError:
            assert not is_text(name)  # this file system knows only text
    (tmp_path / "link.md").symlink_to(tmp_path / "a.md")
    assert [seen.rel for seen in walk_notes(tmp_path, lambda _: False)] == ["a.md", "sub/b.MD"]
    assert [seen.rel for seen in walk_notes(tmp_path, lambda rel: rel == "sub")] == ["a.md"]
