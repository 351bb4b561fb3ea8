"""`loravault bases` lists what is there and says why something cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

from tests import checkpoint_files
from tests.checkpoint_files import write

from .helpers import app_in, call


def test_they_are_listed_with_what_is_wrong_and_where_they_were_looked_for(tmp_path: Path) -> None:
    app = app_in(tmp_path)
    folder = tmp_path / "models"
    write(folder / "juggernautXL.safetensors", checkpoint_files.SDXL)
    write(folder / "sdxl_vae.safetensors", checkpoint_files.VAE)
    (folder / "old.ckpt").write_bytes(b"pickle")
    config = tmp_path / "conf" / "config.toml"
    settings = f"bases = ['{folder}', '{tmp_path / 'away'}']\ndefault_bases = {{ sdxl = 'JuggernautXL' }}\n"
    config.write_text(settings + config.read_text())

    result = call(app, "bases")

    assert result.code == 0
    rows = {line.split()[0]: line.split() for line in result.out.splitlines()}
    assert rows["juggernautXL"][1:3] == ["sdxl", "file"]
    assert rows["juggernautXL"][-4:] == ["ok,", "default", "for", "sdxl"]
    assert rows["demo"][1:3] == ["demo", "folder"]
    assert rows["demo"][-2:] == ["ok,", "default"]
    assert "! old: it is a pickle, which is never opened because it can run programs" in result.out
    assert "VAEs: sdxl_vae" in result.out
    assert f"{tmp_path / 'away'} is not there" in result.out

    found = json.loads(call(app, "bases", "--json").out)

    assert [(one["name"], one["state"]) for one in found["bases"]] == [
        ("juggernautXL", "ok"), ("old", "refused"), ("demo", "ok")
    ]  # fmt: skip
    assert [one["name"] for one in found["vaes"]] == ["sdxl_vae", "demo"]


def test_without_folders_it_says_how_to_name_some(tmp_path: Path) -> None:
    result = call(app_in(tmp_path), "bases")
    assert "No folders with bases are configured" in result.out


def test_nothing_is_fetched_unless_the_network_is_allowed(tmp_path: Path) -> None:
    result = call(app_in(tmp_path), "bases", "--fetch", "some/base")
    assert result.code != 0
    assert "some/base was not fetched, because nothing may be: say `network = true` in config.toml" in result.err
