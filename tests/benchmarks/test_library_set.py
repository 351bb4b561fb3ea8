"""The benchmarks' library is made of files that our own reader accepts, and is the same for everybody."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from loravault.formats.safetensors_header import header_of, read_header, reader
from loravault.formats.tensor_table import BrokenFile
from loravault.formats.weight_id import weight_id

library_set = pytest.importorskip("benchmarks.library_set", reason="the package of sources comes without benchmarks")


def content(folder: Path) -> dict[str, str]:
    """Every file: a hash of its first megabyte (the rest is a hole), its length, and its time if it is an adapter."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with open(path, "rb") as file:
                digest = hashlib.sha256(file.read(2**20)).hexdigest()
            when = path.stat().st_mtime_ns if path.suffix == ".safetensors" else 0
            found[path.relative_to(folder).as_posix()] = f"{digest} {path.stat().st_size} {when}"
    return found


def test_the_same_seed_gives_the_same_files_byte_by_byte(tmp_path: Path) -> None:
    for name in ("one", "two"):
        library_set.write(tmp_path / name, 25)
    assert content(tmp_path / "one") == content(tmp_path / "two") != {}


def test_a_plain_set_holds_sound_adapters_with_ids_of_their_own(tmp_path: Path) -> None:
    made = library_set.write(tmp_path, 40, plain=True)
    ids, headers = set(), 0
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert path.suffix == ".safetensors"
            with open(path, "rb") as file:
                header = header_of(file)
                ids.add(weight_id(header, reader(file)))
            headers += header.header_length
    assert len(ids) == made.sound == 40
    assert headers == made.header_bytes


def test_bodies_take_no_space(tmp_path: Path) -> None:
    made = library_set.write(tmp_path, 20, plain=True)
    taken = sum(path.stat().st_blocks * 512 for path in tmp_path.rglob("*.safetensors"))
    assert made.nominal_bytes > 20 * 1_000_000
    assert taken < made.header_bytes + 20 * 65_536


@pytest.mark.parametrize("recipe", library_set.RECIPES, ids=lambda recipe: f"{recipe.architecture}-{recipe.network}")
def test_every_recipe_makes_an_adapter_that_our_reader_accepts(
    recipe: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_set, "RECIPES", (recipe,))
    library_set.write(tmp_path, 1, plain=True)
    (path,) = tmp_path.rglob("*.safetensors")
    header = read_header(path)
    assert header.file_length == os.stat(path).st_size
    assert all(info.dtype in ("F16", "BF16", "F32") for info in header.tensors.values())


@pytest.mark.parametrize("data", library_set.FOREIGN, ids=["page", "pointer", "error", "empty", "zeros"])
def test_what_is_no_adapter_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(BrokenFile):
        read_header(path)
