"""No path in a note leads out of the vault."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loravault.vault.paths import PathRefused, inside


@pytest.mark.parametrize(
    "rel",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a//b",
        "./a",
        "C:/x",
        "a\\b",
        "a\0b",
        ".obsidian/app.json",
        "a/.git/x",
        "out/x",
        "link.md",
        "dots/x",
    ],
)
def test_no_path_leads_out_of_the_vault_or_into_hidden_folders(tmp_path, rel):
    root = tmp_path / "vault"
    (root / ".hidden").mkdir(parents=True)
    (root / "out").symlink_to(tmp_path)
    (root / "link.md").symlink_to("/etc/passwd")
    (root / "dots").symlink_to(root / ".hidden")
    with pytest.raises(PathRefused):
        inside(root, rel)


def test_links_inside_the_vault_are_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    assert inside(tmp_path, "alias/n.md") == Path(os.path.realpath(tmp_path)) / "real/n.md"
    assert inside(tmp_path, "not/there yet.md").name == "there yet.md"
