"""Names we give are unmistakable in a vault."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loravault.vault import names
from loravault.vault.links import embed, parse_wikilink, wikilink
from loravault.vault.names import STEM_BYTES, free_stem, image_stem, name_key, safe_stem


def test_names_of_pictures_follow_the_contract():
    when = datetime(2026, 11, 20, 18, 15, 3)
    assert image_stem(when, "3fa81c20@desk") == image_stem(when, "3fa81c20") == "lv-20261120-181503-3fa81c20"


@pytest.mark.parametrize(
    ("text", "stem"),
    [
        ("ink_outline", "ink_outline"),
        ("[PDXL] style #2", "(PDXL) style 2"),
        ('a/b\\c:d*e?f"g<h>i|j', "a b c d e f g h i j"),
        ("^caret %%hidden%% 100%", "caret hidden 100%"),
        ("CON", "_CON"),
        ("nul.tar", "_nul.tar"),
        ("console", "console"),
        ("COM¹", "_COM¹"),
        ("trailing. . ", "trailing"),
        (".hidden", "_hidden"),
        ("...", "_"),
        ("", "unnamed"),
        ("   ", "unnamed"),
        ("Über 東京 🎨 v1.0", "Über 東京 🎨 v1.0"),
        ("e\u0301", "\xe9"),
        ("right\u202eto left", "right to left"),
        ("zero\u200bwidth", "zero width"),
        ("tab\tnew\nline\xa0nbsp", "tab new line nbsp"),
    ],
)
def test_any_text_becomes_a_name_that_every_file_system_and_every_link_can_hold(text, stem):
    assert safe_stem(text) == stem


@given(st.text(max_size=300))
@example("👩\u200d🚀" * 60)
@example("e" * 178 + "e\u0301" * 4)
@settings(max_examples=300)
def test_a_stem_is_legal_linkable_and_stays_what_it_is(text):
    """Safe on Windows, as a wikilink and as an embed; NFC; short enough; making a stem of a stem changes nothing."""
    stem = safe_stem(text)
    assert stem
    assert len(stem.encode()) <= STEM_BYTES
    assert unicodedata.normalize("NFC", stem) == stem
    assert not re.search(r'[\x00-\x1f"*/:<>?\\|#^\[\]]|%%', stem)
    assert stem[0] != "."
    assert stem[-1] not in " ."
    assert safe_stem(stem) == stem
    assert parse_wikilink(wikilink(f"F/{stem}")).path == f"F/{stem}".removesuffix(".md")
    assert parse_wikilink(embed(f"F/{stem}.webp", 256)).path == f"F/{stem}.webp"


def test_a_taken_name_gets_the_kind_behind_it_whatever_its_case_or_composition():
    taken = {name_key(name) for name in ("Ghibli", "ghibli (lora)", "Cafe\u0301")}

    def is_free(stem):
        return name_key(stem) not in taken

    assert free_stem("ghibli", is_free) == "ghibli (LoRA 2)"
    assert free_stem("CAF\xc9", is_free) == "CAF\xc9 (LoRA)"
    assert free_stem("other", is_free) == "other"


class _NothingIsPlain:
    """In the place of the shortcut."""

    def match(self, _text: str) -> None:
        return None


_PARTS = st.sampled_from(
    ["a", "Z", "9", "_", "-", ".", " ", "(", ")", "[", "+", ",", "'", "%", "con", "NUL", "com1", "é"]
)


@settings(max_examples=300)
@given(st.lists(_PARTS, max_size=6).map("".join), st.integers(2, 12))
def test_the_shortcut_for_plain_names_gives_the_same_names(text, limit):
    quick = safe_stem(text, limit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "_PLAIN", _NothingIsPlain())
        assert quick == safe_stem(text, limit)


@given(st.lists(st.sampled_from(["ink", "Ink", "ink (LoRA)", "pen"]), max_size=30), st.sets(st.sampled_from(["ink"])))
def test_to_remember_the_last_number_finds_the_same_names(wanted: list[str], there: set[str]) -> None:
    """A hundred files of one name asked for each number before theirs."""
    found = []
    for tried in (None, {}):
        taken, names = set(there), []
        for one in wanted:
            names.append(free_stem(one, lambda stem, taken=taken: name_key(stem) not in taken, tried=tried))
            taken.add(name_key(names[-1]))
        found.append(names)
    assert found[0] == found[1]
