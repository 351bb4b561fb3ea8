"""Base folders are found whatever lies beside them, and their small files are read once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from loravault.formats.generation import BaseRef
from loravault.library import bases
from loravault.library.bases import list_bases, read_base, vocabulary


def base(folder: Path, width: int = 768) -> Path:
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    (folder / "unet" / "config.json").write_text(json.dumps({"cross_attention_dim": width}))
    return folder


def names(*folders: Path, demo: Path | None = None) -> list[str]:
    return [one.name for one in list_bases(folders, demo)]


def test_a_folder_may_be_a_base_or_hold_some_and_the_demo_comes_last(tmp_path: Path) -> None:
    one = base(tmp_path / "one")
    base(tmp_path / "many" / "b")
    base(tmp_path / "many" / "group" / "a")
    base(tmp_path / "many" / "too" / "deep" / "c")
    base(tmp_path / "many" / ".hidden")
    base(tmp_path / "many" / "unknown", width=77)
    demo = base(tmp_path / "demo-files", width=160)
    assert names(one, tmp_path / "many", tmp_path / "gone", demo=demo) == ["one", "b", "a", "demo"]


def test_a_folder_that_may_not_be_looked_at_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Path.is_dir and is_file raise PermissionError: one such neighbour hid every base, or ended the daemon."""
    base(tmp_path / "good")
    base(tmp_path / "locked")
    (tmp_path / "closed").mkdir()
    real = os.stat

    def stat(path: str | Path, **options: object) -> object:
        if str(path).endswith("locked") or "closed/" in str(path):
            raise PermissionError(13, "Permission denied")
        return real(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", stat)
    assert names(tmp_path) == ["good"]
    assert names(tmp_path / "closed") == []


def test_a_base_whose_name_is_not_text_is_passed_over(tmp_path: Path) -> None:
    """It could not be stored with a job."""
    base(tmp_path / "good")
    try:
        base(tmp_path / os.fsdecode(b"caf\xe9"))
    except OSError:
        pytest.skip("this file system knows only text")
    assert names(tmp_path) == ["good"]


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, '{"a":' * 100_000, '{"_class_name": ["x"]}', "\udcff"])
def test_a_bad_index_is_no_base(tmp_path: Path, content: str) -> None:
    (tmp_path / "model_index.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert read_base(tmp_path) is None


@pytest.mark.parametrize("content", ["", "[]", '{"words": 7}', "[" * 100_000])
def test_a_bad_vocabulary_is_none(tmp_path: Path, content: str) -> None:
    ref = BaseRef(name="x", path=str(tmp_path), family="demo")
    assert vocabulary(ref) is None
    (tmp_path / "vocabulary.json").write_text(content)
    assert vocabulary(ref) is None


def test_a_vocabulary_is_read_once_per_version_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of every note asks for it."""
    reads = []
    real = bases._read_json
    monkeypatch.setattr(bases, "_read_json", lambda path: reads.append(path) or real(path))
    ref = BaseRef(name="x", path=str(tmp_path), family="demo")
    path = tmp_path / "vocabulary.json"
    path.write_text('{"words": ["Red", "cat"]}')
    assert [vocabulary(ref) for _ in range(3)] == [{"red", "cat"}] * 3
    assert len(reads) == 1
    path.write_text('{"words": ["blue"]}')
    os.utime(path, ns=(1, 1))
    assert vocabulary(ref) == {"blue"}
