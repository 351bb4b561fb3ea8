"""Our reader agrees with what the real Obsidian parsed out of the same notes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loravault.vault.note import parse_note

FILES = sorted((Path(__file__).parents[1] / "fixtures" / "obsidian").glob("*.json"))


def test_the_oracle_is_there():
    assert len(FILES) == 60
    sections = [s for path in FILES for s in json.loads(path.read_text("utf-8"))["sections"]]
    assert sum(s["type"] == "code" for s in sections) >= 8, "without code sections the fence check would be empty"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_properties_and_code_sections_agree_with_obsidian(path):
    oracle = json.loads(path.read_text("utf-8"))
    text = oracle["fileContents"]
    note = parse_note(text.encode())

    def utf16(offset: int) -> int:
        return len(text.encode()[:offset].decode().encode("utf-16-le")) // 2

    def spans(kind: str) -> list[tuple[int, int]]:
        places = [s["position"] for s in oracle["sections"] if s["type"] == kind]
        return [(place["start"]["offset"], place["end"]["offset"]) for place in places]

    front = note.frontmatter
    assert spans("yaml") == ([(utf16(front.start), utf16(front.end))] if front else [])
    assert (front.properties if front else {}) == (oracle["frontmatter"] or {})
    assert spans("code") == [(utf16(f.start), utf16(f.end)) for f in note.fences if not f.container]
