"""Obsidian's folder for attachments in every form its setting has, and every form it should not have."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.vault.attachments import Attachments, NoAttachments


def setting(vault: Path, value: Any, folder: str = ".obsidian") -> Attachments:
    (vault / folder).mkdir(parents=True, exist_ok=True)
    (vault / folder / "app.json").write_text(json.dumps({"attachmentFolderPath": value, "alwaysUpdateLinks": True}))
    return Attachments.read(vault)


@pytest.mark.parametrize(
    ("value", "root_note", "deep_note"),
    [
        ("/", "", ""),
        ("", "", ""),
        ("Attachments", "Attachments", "Attachments"),
        ("00 Meta/attachments", "00 Meta/attachments", "00 Meta/attachments"),
        ("/Attachments/", "Attachments", "Attachments"),
        ("./", "", "A/B c"),
        (".", "", "A/B c"),
        ("./attachments", "attachments", "A/B c/attachments"),
        ("./a/b/", "a/b", "A/B c/a/b"),
        ("Bilder/Überall", "Bilder/Überall", "Bilder/Überall"),
    ],
)
def test_every_form_of_the_setting(tmp_path: Path, value: str, root_note: str, deep_note: str) -> None:
    attachments = setting(tmp_path, value)
    assert attachments.folder_for("Cat.md") == root_note
    assert attachments.folder_for("A/B c/Cat.md") == deep_note


def test_a_setting_at_its_default_is_absent_and_means_the_root(tmp_path: Path) -> None:
    assert Attachments.read(tmp_path).folder_for("A/Cat.md") == ""
    (tmp_path / ".obsidian").mkdir()
    assert Attachments.read(tmp_path).folder_for("A/Cat.md") == ""
    (tmp_path / ".obsidian" / "app.json").write_text("{}")
    assert Attachments.read(tmp_path).folder_for("A/Cat.md") == ""


@pytest.mark.parametrize("junk", [b"", b"[]", b"{", b"\xff\xfe", b'{"attachmentFolderPath": 7}', b"[" * 9000])
def test_what_cannot_be_read_says_nothing(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / ".obsidian").mkdir()
    (tmp_path / ".obsidian" / "app.json").write_bytes(junk)
    assert Attachments.read(tmp_path).folder_for("A/Cat.md") == ""


def test_an_endless_file_is_not_read(tmp_path: Path) -> None:
    text = json.dumps({"attachmentFolderPath": "Attachments", "x": "y" * 1024 * 1024})
    (tmp_path / ".obsidian").mkdir()
    (tmp_path / ".obsidian" / "app.json").write_text(text)
    assert Attachments.read(tmp_path).setting == ""


def test_a_renamed_configuration_folder_is_found(tmp_path: Path) -> None:
    assert setting(tmp_path, "Media", ".obsidian-work").folder_for("Cat.md") == "Media"


def test_of_two_configuration_folders_the_one_used_last_counts(tmp_path: Path) -> None:
    setting(tmp_path, "Old", ".obsidian")
    setting(tmp_path, "New", ".obsidian-work")
    for number, folder in enumerate((".obsidian", ".obsidian-work")):
        (tmp_path / folder / "workspace.json").write_text("{}")
        os.utime(tmp_path / folder / "workspace.json", (1000 + number, 1000 + number))
    assert Attachments.read(tmp_path).setting == "New"


@pytest.mark.parametrize("value", ["../out", "a/../../b", ".hidden", "./.hidden", "a/.b", "..", "./..", "C:/pictures"])
def test_a_folder_that_is_hidden_or_leaves_the_vault_is_refused_in_words(tmp_path: Path, value: str) -> None:
    with pytest.raises(NoAttachments, match="our own folder instead"):
        setting(tmp_path, value).folder_for("Cat.md")


def test_a_link_out_of_the_vault_is_refused(tmp_path: Path) -> None:
    vault = tmp_path / "vault"
    (tmp_path / "elsewhere").mkdir()
    vault.mkdir()
    (vault / "Media").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NoAttachments, match="leads outside"):
        setting(vault, "Media").folder_for("Cat.md")


@given(value=st.text(), note=st.sampled_from(["Cat.md", "A/Cat.md", "A/B/Cat.md"]))
def test_whatever_is_set_the_folder_is_inside_or_refused(value: str, note: str) -> None:
    root = Path("/nonexistent/vault")
    try:
        folder = Attachments(root, value).folder_for(note)
    except NoAttachments:
        return
    assert not folder.startswith(("/", "."))
    assert all(part and not part.startswith(".") for part in folder.split("/")) or folder == ""
