"""Links mean the files that Obsidian opens for them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from loravault.vault.resolving import LinkFinder

FILES = (
    "cat.jpg", "Pictures/cat.jpg", "Pictures/Old/cat.jpg", "Notes/Deep/dog.jpg", "Notes/dog.jpg", "Z/dog.jpg",
    "A/B/same.png", "C/same.png", "Notes/same.png/x.md", "café.jpg", "Upper.JPG",
)  # fmt: skip


@pytest.mark.parametrize(
    ("link", "note", "expected"),
    [
        ("cat.jpg", "Notes/n.md", "cat.jpg"),
        ("Pictures/cat.jpg", "Notes/n.md", "Pictures/cat.jpg"),
        ("Old/cat.jpg", "n.md", "Pictures/Old/cat.jpg"),
        ("/Pictures/cat.jpg", "Pictures/n.md", "Pictures/cat.jpg"),
        ("./cat.jpg", "Pictures/n.md", "Pictures/cat.jpg"),
        ("../cat.jpg", "Pictures/n.md", "cat.jpg"),
        ("../../cat.jpg", "Pictures/n.md", None),
        ("dog.jpg", "Notes/n.md", "Notes/dog.jpg"),
        ("dog.jpg", "Elsewhere/n.md", "Z/dog.jpg"),
        ("same.png", "n.md", "C/same.png"),
        ("same.png", "A/n.md", "A/B/same.png"),
        ("at.jpg", "n.md", None),
        ("CAFÉ.JPG", "n.md", "café.jpg"),
        (unicodedata.normalize("NFD", "café.jpg"), "n.md", "café.jpg"),
        ("upper.jpg", "n.md", "Upper.JPG"),
        ("gone.jpg", "n.md", None),
    ],
)
def test_a_link_means_the_file_that_obsidian_would_open(link: str, note: str, expected: str | None) -> None:
    assert LinkFinder(FILES).find(link, note) == expected


def test_hidden_files_and_folders_are_nowhere(tmp_path: Path) -> None:
    for rel in (".trash/a.jpg", "x/.b.jpg", "x/c.jpg"):
        (tmp_path / rel).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / rel).touch()
    finder = LinkFinder.of_vault(tmp_path)
    assert [finder.find(name, "n.md") for name in ("a.jpg", ".b.jpg", "c.jpg")] == [None, None, "x/c.jpg"]
