"""Whatever a JSON file can hold becomes bounded plain text, numbers and lists, or nothing."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.formats import plain

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(ANY)
def test_every_value_is_taken(value: Any) -> None:
    for text in (plain.one_line(value, 20), plain.cut_line(value, 20), plain.paragraphs(value, 20)):
        assert text is None or (0 < len(text) <= 20 and text == text.strip())
    number = plain.number(value, -5, 5)
    assert number is None or -5 <= number <= 5
    assert plain.whole(value, 1, 9) in (None, 1, 2, 3, 4, 5, 6, 7, 8, 9)
    assert all(isinstance(line, str) and line for line in plain.strings(value))
    plain.table(value)
    plain.objects(value)
    plain.json_in(value)


@given(st.text())
def test_no_control_character_remains(text: str) -> None:
    for found in (plain.one_line(text), plain.paragraphs(text)):
        for char in found or "":
            assert char == "\n" or char in "\u200c\u200d" or unicodedata.category(char)[0] != "C"
    line = plain.one_line(text)
    assert line is None or "\n" not in line


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One</p><p>Two &amp; three</p>", "One\n\nTwo & three"),
        ("a<br>b<br />c", "a\nb\nc"),
        ("<ul><li>x</li><li><b>y</b></li></ul>after", "- x\n- y\nafter"),
        ("<h2>Head</h2>text", "Head\n\ntext"),
        ('<a href="https://x.y">link</a> <img src="x">', "link"),
        ("<script>alert('<p>')</script>shown<style>p{}</style>", "shown"),
        ("<!-- hidden <p> -->shown", "shown"),
        ("<!-- never closed", "never closed"),
        ("I <3 this, 1 < 2 > 0", "I <3 this, 1 < 2 > 0"),
        ("use <lora:ink:0.8> please", "use <lora:ink:0.8> please"),
        ("a\r\n\r\n\r\n\r\nb\t c", "a\n\nb c"),
        ("&lt;script&gt;", "<script>"),
        ("None", None),
        (" \n ", None),
        ("<p></p>", None),
        (None, None),
        (5, None),
    ],
)
def test_html_becomes_readable(html: Any, text: str | None) -> None:
    assert plain.paragraphs(html) == text


def test_long_texts_are_cut_and_say_so() -> None:
    assert plain.paragraphs("word " * 5000, 10) == "word word…"
    assert plain.cut_line("word " * 50, 10) == "word word…"
    assert plain.one_line("word " * 50, 10) is None


def test_numbers() -> None:
    assert plain.number("1e-4", 0, 1) == 1e-4
    for bad in (True, "x", "nan", "inf", 10**400, float("nan"), None, [], "1" * 41):
        assert plain.number(bad, -1e300, 1e300) is None
    assert plain.whole("3.0") == 3
    assert plain.whole(3.5) is None


def test_equal_words_are_one_in_their_first_spelling() -> None:
    assert plain.strings("Ink, ink, INK, brush") == ("Ink", "brush")
    assert plain.strings(["a", None, 5, " b\n"]) == ("a", "b")


def test_json_as_python_writes_it() -> None:
    assert plain.load_json('{"a": NaN, "b": 1e999}')["a"] is None
    assert plain.load_json('{"a": "\\ud800"}') == {"a": "\ud800"}
    for bad, words in (("", "Expecting"), ("{", "Expecting"), ("[" * 100_000, "too deeply"), ("9" * 5000, "limit")):
        with pytest.raises(ValueError, match=words):
            plain.load_json(bad)
