"""Whatever way a picture is embedded or an adapter is named, it is noticed; our own pages do not count."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.vault.mentions import names_in, pictures_in, read_mentions

STEM = "lv-20261120-181503-3fa81c20-1"
PICTURE = f"LoraVault/Images/2026-11/{STEM}.webp"


def vault(home: Path, files: dict[str, str | bytes]) -> Path:
    for rel, text in files.items():
        path = home / rel
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    return home


def not_a_page(_: bytes) -> bool:
    return False


@pytest.mark.parametrize(
    ("rel", "text"),
    [
        ("a.md", f"![[{PICTURE}|256]]"),
        ("a.md", f"![[{STEM}.webp]]"),
        ("a.md", f"![]({PICTURE})"),
        ("a.md", f"![x](LoraVault/Images/2026%2D11/{STEM}.webp)"),
        ("a.md", f"![x]({PICTURE.replace('-', '%2d').replace('0', '%30')})"),
        ("a.md", f'---\ncover: "[[{PICTURE}]]"\n---\n'),
        ("a.md", f"---\nbanner: {PICTURE}\n---\n"),
        ("a.md", f'<img src="{PICTURE}" width="3">'),
        ("a.md", f"```dataviewjs\ndv.paragraph('![[{STEM.upper()}.WEBP]]')\n```"),
        ("A/B/c.canvas", json.dumps({"nodes": [{"type": "file", "file": PICTURE}]})),
        ("d.excalidraw.md", f"---\nexcalidraw-plugin: parsed\n---\n## Embedded Files\nabc: [[{PICTURE}]]\n"),
        ("d.excalidraw", json.dumps({"files": {"x": PICTURE}})),
        ("v.base", f'views:\n  - filters: file.name == "{STEM}.webp"\n'),
        ("a.md", f"![[{PICTURE}]]".encode("utf-16")),
        ("Templates/t.md", f"![[{PICTURE}]]"),
        ("a.md", "x" * (17 * 1024 * 1024) + f"![[{PICTURE}]]" + "y" * (5 * 1024 * 1024)),
    ],
)
def test_a_picture_is_noticed_however_it_is_embedded(tmp_path: Path, rel: str, text: str | bytes) -> None:
    found = read_mentions(vault(tmp_path, {rel: text}), not_a_page)
    assert STEM in found.embedded
    assert found.problems == ()


def test_a_picture_across_the_border_of_two_pieces_is_noticed(tmp_path: Path) -> None:
    text = "x" * (16 * 1024 * 1024 - 10) + f" {PICTURE} " + "y" * (4 * 1024 * 1024)
    assert STEM in read_mentions(vault(tmp_path, {"a.md": text}), not_a_page).embedded


def test_a_longer_name_is_another_picture() -> None:
    assert pictures_in(f"![[{STEM}0.webp]]".encode()) == {f"{STEM}0"}


def test_pages_of_ours_and_hidden_folders_do_not_embed(tmp_path: Path) -> None:
    home = vault(
        tmp_path,
        {
            "Page.md": f"---\nlv_sum: x\n---\n![[{PICTURE}]]",
            ".trash/old.md": f"![[{PICTURE}]]",
            ".obsidian/workspace.json": PICTURE,
        },
    )
    found = read_mentions(home, lambda data: b"lv_sum" in data)
    assert found.embedded == frozenset()
    assert found.shown == {STEM}


def test_a_folder_that_is_a_link_is_looked_into_once(tmp_path: Path) -> None:
    home = vault(tmp_path / "vault", {"b.md": "x"})
    vault(tmp_path / "shared", {"a.md": f"![[{PICTURE}]]"})
    (home / "Shared").symlink_to(tmp_path / "shared")
    (tmp_path / "shared" / "loop").symlink_to(home)
    found = read_mentions(home, not_a_page)
    assert STEM in found.embedded


def test_what_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = vault(tmp_path, {"a.md": "x", "Deep/.b.md.icloud": b"x"})
    honest = Path.open

    def refuse(self: Path, *args: object, **kwargs: object) -> object:
        if self.name == "a.md":
            raise OSError(5, "Input/output error")
        return honest(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", refuse)
    assert read_mentions(home, not_a_page).problems == (
        "a.md cannot be read (Input/output error)",
        "Deep/.b.md.icloud is only in iCloud, not on this machine",
    )


@pytest.mark.parametrize(
    "text",
    [
        "a cat <lora:Ink_Outline:0.8>",
        "<lora:ink_outline>",
        "<lora:Styles/ink_outline:0.8:0.4>",
        "<lyco: ink_outline :1>",
        "[[LoraVault/LoRAs/Styles/ink_outline|ink 0.8]]",
        "[[ink_outline#Body]]",
        "[x](LoraVault/LoRAs/ink_outline.md)",
        "[x](LoraVault/LoRAs%2Fink_outline.md)",
        "---\nloras: ink_outline 0.8\n---\n",
        "---\nloras:\n  - other\n  - ink_outline 0.8 0.4\n---\n",
        '---\nloras: ["other", "ink_outline"]\n---\n',
        "```prompt\n#| x: ink_outline 0.4, 0.6, 0.8\n```",
        "> #| loras: other 1, ink_outline.safetensors 0.5",
        'Steps: 20, Lora hashes: "other: 12, ink_outline: abc"',
    ],
)
def test_an_adapter_is_noticed_however_it_is_named(text: str) -> None:
    assert "ink_outline" in {name.rpartition("/")[2] for name in names_in(text)}


@pytest.mark.parametrize(
    "text",
    [
        "<lora:'ink:1>",
        "[[LoraVault/LoRAs/'ink]]",
        "#| loras: 'ink 0.5",
        '---\nloras: "\'ink"\n---\n',
        "loras:\n  - 'ink",
    ],
)
def test_a_quote_may_belong_to_the_name(text: str) -> None:
    assert "'ink" in {name.rpartition("/")[2] for name in names_in(text)}


def test_a_folder_that_goes_while_it_is_looked_at_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended `clean` with a traceback."""
    home = vault(tmp_path, {"a.md": "[[ink]]", "Deep/b.md": "[[wash]]"})
    real = os.stat

    def gone(path: Any, *args: Any, **options: Any) -> os.stat_result:
        if str(path).endswith("Deep"):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "stat", gone)
    found = read_mentions(home, not_a_page)
    assert found.problems == ("the folder Deep cannot be read (No such file or directory)",)
    assert "ink" in found.names


def test_the_notes_that_name_something_are_known(tmp_path: Path) -> None:
    home = vault(tmp_path, {"a.md": "<lora:ink:1>", "B/b.md": "[[ink]]", "c.md": "ink in prose"})
    assert read_mentions(home, not_a_page).names["ink"] == {"a.md", "B/b.md"}


@given(st.binary(max_size=300))
def test_any_bytes_are_looked_through(data: bytes) -> None:
    pictures_in(data)
    names_in(data.decode("utf-8", "replace"))
