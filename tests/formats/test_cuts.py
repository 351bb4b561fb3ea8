"""Texts are cut where people would cut them."""

from __future__ import annotations

import pytest

from loravault.formats.cuts import compounds, long_words


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("ghibliStyleV2", ["ghibli style v 2"]),
        ("SDXLStyle XL", ["sdxl style", "xl"]),
        ("my_cat-v1.5 don't", ["my cat v 1 5", "don t"]),
        ("3d 2girls", ["3 d", "2 girls"]),
        ("Ångström café CAFÉ CAFE\u0301 Straße Øre Łódź", ["angstrom", *["cafe"] * 3, "strasse", "ore", "lodz"]),
        ("ＡＢＣ ﬁne", ["abc", "fine"]),
        ("動漫Style", ["動", "漫", "style"]),
        ("がな カナ 한글", ["が", "な", "カ", "ナ", "한", "글"]),
        ("ÜberКот Кот2", ["uber кот", "кот 2"]),
        ("🐱cat 🐱", ["🐱", "cat", "🐱"]),
        ("a  --  b\x00c\ud800d", ["a", "b", "c", "d"]),
        ("_-.'", []),
        ("", []),
    ],
)
def test_words_are_folded_and_cut_at_capitals_digits_and_signs(text: str, cut: list[str]) -> None:
    assert [" ".join(parts) for parts in compounds(text)] == cut


def test_the_words_of_a_name_are_those_that_say_what_it_is_like() -> None:
    assert long_words("ghibliStyle_V2") == ["ghiblistyle", "ghibli", "style"]
    assert long_words("Café_red 2048") == ["cafe"]
    assert long_words("水墨画风格") == ["水墨画风格"]
