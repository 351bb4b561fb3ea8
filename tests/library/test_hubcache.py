"""What another program fetched from the Hub is found by its id; nothing is fetched and nothing else is looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loravault.library.hubcache import fetched_base, is_hub_id


def snapshot(cache: Path, revision: str, pipeline: str = "StableDiffusionXLPipeline") -> Path:
    folder = cache / "models--stabilityai--sdxl-turbo" / "snapshots" / revision
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    return folder


@pytest.mark.parametrize(
    ("variable", "below"), [("HF_HUB_CACHE", ""), ("HF_HOME", "hub"), ("XDG_CACHE_HOME", "huggingface/hub")]
)
def test_it_is_found_where_the_environment_says(variable: str, below: str, tmp_path: Path) -> None:
    folder = snapshot(tmp_path / below, "abc")
    found = fetched_base("stabilityai/sdxl-turbo", {variable: str(tmp_path)})
    assert found is not None
    assert (found.name, found.path, found.family) == ("stabilityai/sdxl-turbo", str(folder), "sdxl")


def test_main_comes_before_other_revisions_and_what_cannot_be_drawn_is_passed_over(tmp_path: Path) -> None:
    snapshot(tmp_path, "aaa")
    main = snapshot(tmp_path, "bbb")
    refs = tmp_path / "models--stabilityai--sdxl-turbo" / "refs"
    refs.mkdir()
    (refs / "main").write_text("bbb\n")
    env = {"HF_HUB_CACHE": str(tmp_path)}
    found = fetched_base("stabilityai/sdxl-turbo", env)
    assert found is not None
    assert found.path == str(main)
    (main / "model_index.json").write_text("{}")
    found = fetched_base("stabilityai/sdxl-turbo", env)
    assert found is not None
    assert found.path.endswith("aaa")


@pytest.mark.parametrize("name", ["sdxl", "../x", "/etc/x", "a/b/c", "a/", "", "models/../../x", "stabilityai/other"])
def test_everything_else_is_not_there(name: str, tmp_path: Path) -> None:
    snapshot(tmp_path, "abc")
    assert fetched_base(name, {"HF_HUB_CACHE": str(tmp_path)}) is None
    assert is_hub_id(name) == (name == "stabilityai/other")
