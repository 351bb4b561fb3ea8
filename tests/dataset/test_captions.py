"""From a caption to what is learned with a picture."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.dataset.captions import (
    Variation,
    Words,
    captioned,
    common_parts,
    holds,
    parts,
    plain,
    prefixed,
    varied,
)
from loravault.formats.chance import chance

CAT = Words(trigger="sks cat", class_word="cat")
TAGS = st.lists(st.text("abc é", min_size=1, max_size=5).filter(str.strip), max_size=8)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("on a sofa, seen from the side", "sks cat, on a sofa, seen from the side"),
        ("a photo of sks cat on a sofa", "a photo of sks cat on a sofa"),
        ("A photo of SKS  Cat", "A photo of SKS Cat"),
        ("sks_cat, sofa", "sks_cat, sofa"),
        ("sks cats on a sofa", "sks cat, sks cats on a sofa"),  # another word
        ("a photo of [trigger] on a sofa", "a photo of sks cat on a sofa"),
        ("[Trigger]", "sks cat"),
        ("", "sks cat"),
        (None, "sks cat"),
        ("  two\n lines ", "sks cat, two lines"),
    ],
)
def test_the_trigger_is_put_in_where_it_is_lacking(caption: str | None, expected: str) -> None:
    assert captioned(caption, CAT) == expected


@pytest.mark.parametrize(
    ("words", "caption", "expected"),
    [
        (Words("zkx", "cat"), None, "zkx cat"),
        (Words("zkx"), None, "zkx"),
        (Words("", "cat"), None, "cat"),
        (Words("", "cat"), "a cat", "a cat"),
        (Words(""), None, ""),
        (Words(""), "a [trigger] here", "a here"),
        (Words("zkx, red hat"), "red hat, sofa", "zkx, red hat, sofa"),  # only what is lacking
        (Words(r"a\1 (b)"), "x [trigger]", r"x a\1 (b)"),
        (Words("art"), "party", "art, party"),
        (Words("art"), "smart", "art, smart"),
        (Words("art"), "artist", "art, artist"),
        (Words("art"), "(art:1.2) and more", "(art:1.2) and more"),
        (Words("c++"), "c++, code", "c++, code"),
        (Words("кот"), "рыжий Кот спит", "рыжий Кот спит"),
        (Words("猫"), "a 猫", "a 猫"),
    ],
)
def test_triggers_of_every_kind(words: Words, caption: str | None, expected: str) -> None:
    assert captioned(caption, words) == expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a photo of sks cat, sofa", "a photo of cat, sofa"),
        ("a photo of [trigger]", "a photo of cat"),
        ("a dog", "a dog"),
        (None, "cat"),
    ],
)
def test_regularisation_pictures_get_none_of_the_trigger(caption: str | None, expected: str) -> None:
    assert captioned(caption, Words("sks cat", "cat", regularisation=True)) == expected


def test_a_trigger_that_is_taken_out_leaves_no_hole() -> None:
    words = Words("zkx", regularisation=True)
    assert captioned("zkx, sofa", words) == "sofa"
    assert captioned("sofa, zkx, lamp", words) == "sofa, lamp"
    assert captioned("sofa, [trigger]", words) == "sofa"
    assert captioned("zkx", words) == ""


@given(st.text(max_size=40), st.text(max_size=12))
def test_putting_in_twice_changes_nothing(caption: str, trigger: str) -> None:
    words = Words(" ".join(trigger.split()))
    once = captioned(caption, words)
    assert captioned(once, words) == once


@given(st.text(max_size=40), st.text(max_size=12).filter(lambda text: any(c.isalnum() for c in text)))
def test_the_trigger_is_there_afterwards(caption: str, trigger: str) -> None:
    line = " ".join(trigger.split())
    assert all(holds(captioned(caption, Words(line)), part) for part in parts(line))


@given(TAGS, st.integers(0, 9), st.integers(0, 2**32))
def test_shuffling_keeps_every_part_and_the_first_ones_in_front(tags: list[str], keep: int, seed: int) -> None:
    caption = ", ".join(tags)
    found = parts(varied(caption, Variation(shuffle=True, keep_tokens=keep), chance(seed, purpose="t")))
    expected = parts(caption)
    assert sorted(found) == sorted(expected)
    assert found[:keep] == expected[:keep]


def test_kohyas_marks_say_what_stays() -> None:
    caption = "zkx, cat ||| a, b, c, d, e ||| best"
    found = [varied(caption, Variation(shuffle=True), chance(n, purpose="t")) for n in range(20)]
    assert all(one.startswith("zkx, cat, ") and one.endswith(", best") for one in found)
    assert len(set(found)) > 10
    assert varied(caption, Variation(), chance(0, purpose="t")) == plain(caption) == "zkx, cat, a, b, c, d, e, best"


def test_parts_drop_out_as_often_as_asked_and_the_trigger_never() -> None:
    caption = ", ".join(["sks cat", *(f"tag{n}" for n in range(10))])
    variation = Variation(tag_dropout=0.3)
    found = [parts(varied(caption, variation, chance(n, purpose="t"), "sks cat")) for n in range(400)]
    assert all(one[0] == "sks cat" for one in found)
    assert abs(sum(len(one) - 1 for one in found) / 4000 - 0.7) < 0.04
    assert all(sorted(one[1:]) == one[1:] for one in found)  # in their order


def test_whole_captions_drop_out_as_often_as_asked() -> None:
    found = [varied("a, b", Variation(dropout=0.1), chance(n, purpose="t")) for n in range(2000)]
    assert set(found) == {"", "a, b"}
    assert abs(found.count("") - 200) < 50


@given(TAGS, st.integers(0, 2**32), st.integers(0, 3), st.floats(0, 1), st.floats(0, 1))
def test_the_same_generator_gives_the_same_caption(
    tags: list[str], seed: int, keep: int, tag_dropout: float, dropout: float
) -> None:
    variation = Variation(shuffle=True, keep_tokens=keep, tag_dropout=tag_dropout, dropout=dropout)
    caption = ", ".join(tags)
    assert varied(caption, variation, chance(seed, purpose="t")) == varied(
        caption, variation, chance(seed, purpose="t")
    )


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [("", "a cat"), ("score_9", "score_9, a cat"), ("score_9,", "score_9, a cat"), ("photo of ", "photo of a cat")],
)
def test_a_prefix_stands_in_front(prefix: str, expected: str) -> None:
    assert prefixed("a cat", prefix) == expected
    assert prefixed("", prefix) == ""  # a caption that dropped out is empty


def test_what_stands_in_nearly_every_caption_is_found() -> None:
    captions = [f"sks cat, Red collar, {n}" for n in range(9)] + ["sks cat, sofa"]
    assert common_parts(captions) == ("sks cat", "red collar")
    assert common_parts(captions[:4]) == ()
