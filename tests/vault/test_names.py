"""Names we give are legal everywhere, NFC, and unmistakable in a vault."""

from __future__ import annotations

import unicodedata
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loravault.vault.names import image_name, image_stem, name_key, safe_file_name, unique_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("[PDXL] style #2", "PDXL style 2"),
        ("a/b\\c:d", "a b c d"),
        ("  .hidden. ", "hidden"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("", "unnamed"),
        ("???", "unnamed"),
        ("cafe\u0301", "café"),
        ("a\u202eb\x00c\td", "abc d"),
        ("x" * 400, "x" * 180),
        ("日" * 100, "日" * 60),
        ("100%", "100"),
        ("\ud800", "unnamed"),
    ],
)
def test_any_text_becomes_a_name(text, name):
    assert safe_file_name(text) == name


@settings(deadline=None)
@given(st.text())
def test_a_safe_name_is_safe_and_stays_what_it_is(text):
    name = safe_file_name(text)
    assert name == safe_file_name(name) == unicodedata.normalize("NFC", name)
    assert not set(name) & set('<>:"/\\|?*#^[]%\0\n')
    assert name.strip(" .") == name != ""
    assert len(name.encode()) <= 181


def test_a_taken_name_gets_a_marker_then_numbers_that_no_sync_tool_gives():
    taken = {"Ghibli.md"}
    assert unique_name("Ink", ".md", taken) == "Ink.md"
    assert unique_name("Ghibli", ".md", taken, marker="LoRA") == "Ghibli (LoRA).md"
    taken |= {"Ghibli (LoRA).md", name_key("Ghibli (LoRA)-2.md")}
    assert unique_name("Ghibli", ".md", taken, marker="LoRA") == "Ghibli (LoRA)-3.md"
    assert unique_name("Ghibli", ".md", taken) == "Ghibli-2.md"


def test_names_that_a_file_system_may_hold_for_the_same_are_the_same():
    assert unique_name("CAFÉ", ".md", {name_key("cafe\u0301.md")}) == "CAFÉ-2.md"


def test_image_names_follow_the_contract():
    when = datetime(2026, 11, 20, 18, 15, 3)
    assert image_name(when, "3fa81c20@desk", 1, ".webp") == "lv-20261120-181503-3fa81c20-1.webp"
    assert image_stem(when, "3fa81c20") == "lv-20261120-181503-3fa81c20"
