"""What requests find among the bases: also what came a moment ago, what the Hub's cache has, and a family's own VAE."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loravault.config import VaultConfig
from loravault.formats.generation import BaseRef, VaeRef
from loravault.jobs.catalog import IndexCatalog
from loravault.library.bases import look
from loravault.requests.model import NotFound
from tests import checkpoint_files as files
from tests.checkpoint_files import write


def catalog(folder: Path, **settings: object) -> IndexCatalog:
    config = VaultConfig(vault=folder, bases=(folder / "bases",), **settings)  # type: ignore[arg-type]
    shelf = look(config.bases, None)
    return IndexCatalog(config, (), shelf.usable, shelf.vaes, shelf.reasons)


def test_a_base_that_came_after_the_last_look_is_found(tmp_path: Path) -> None:
    """The folders are not watched, and who has just put a file there asks for it at once."""
    found = catalog(tmp_path)
    assert isinstance(found.find_base("dream", set()), NotFound)
    write(tmp_path / "bases" / "dream.safetensors", files.SD15)
    write(tmp_path / "bases" / "ft-mse.safetensors", files.VAE)
    base = found.find_base("dream", set())
    assert isinstance(base, BaseRef)
    assert base.family == "sd15"
    assert isinstance(found.find_vae("ft-mse"), VaeRef)
    assert isinstance(found.find_vae("other"), NotFound)


def test_what_is_refused_says_why(tmp_path: Path) -> None:
    write(tmp_path / "bases" / "fill.safetensors", files.flux(into=384))
    found = catalog(tmp_path).find_base("Fill", set())
    assert isinstance(found, NotFound)
    assert found.reason == 'The base "fill" cannot be used: it is Flux.1 Fill, which begins with a picture.'


def test_the_hubs_cache_is_asked_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "models--stabilityai--sdxl-turbo" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))
    found = catalog(tmp_path)
    base = found.find_base("stabilityai/sdxl-turbo", set())
    assert isinstance(base, BaseRef)
    assert (base.family, base.path) == ("sdxl", str(folder))
    missing = found.find_base("stabilityai/other", set())
    assert isinstance(missing, NotFound)
    assert "a request does not download one" in str(missing.reason)


def test_a_familys_base_and_vae_are_those_of_the_configuration(tmp_path: Path) -> None:
    for name in ("aaa", "juggernautXL"):
        write(tmp_path / "bases" / f"{name}.safetensors", files.SDXL)
    found = catalog(tmp_path, default_bases={"sdxl": "JuggernautXL"}, default_vaes={"sdxl": "fix"})
    base = found.find_base(None, {"sdxl"})
    assert isinstance(base, BaseRef)
    assert base.name == "juggernautXL"
    assert found.defaults_for("sdxl")["vae"] == "fix"
    assert found.defaults_for("sd15")["vae"] is None
