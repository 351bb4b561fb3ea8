"""Texts are cut where people would cut them, and every text is a query."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.formats.cuts import compounds
from loravault.index.search_words import (
    Filter,
    Query,
    Term,
    index_text,
    make_filter,
    parse_query,
    path_key,
    rating_of,
)


def test_a_document_keeps_the_order_of_its_words_and_has_every_compound_as_a_whole_too() -> None:
    assert (
        index_text(["ghibliStyleV2 cat", "my_cat my-cat"]) == "ghibli style v 2 cat my cat my cat ghiblistylev2 mycat"
    )
    assert index_text([]) == ""


def test_words_phrases_exclusions_and_filters_are_told_apart() -> None:
    query = parse_query('cat "red dress" -dog -"blue hat" family:SDXL -tag:"my tag" rating:>=4 Favourite is:broken')
    assert query.terms == (
        Term((("cat",),)),
        Term((("red",), ("dress",)), quoted=True),
        Term((("dog",),), excluded=True),
        Term((("blue",), ("hat",)), quoted=True, excluded=True),
    )
    assert query.filters == (
        Filter("family", "sdxl"),
        Filter("tag", "my tag", excluded=True),
        Filter("rating", ">=4"),
        Filter("is", "favourite", bare=Term((("favourite",),))),
        Filter("is", "broken"),
    )


def test_letters_without_blanks_between_words_stay_together() -> None:
    assert parse_query("動漫风 cat").terms == (Term((("動",), ("漫",), ("风",))), Term((("cat",),)))
    assert parse_query("ghibli動漫").terms == (Term((("ghibli",),)), Term((("動",), ("漫",))))


def test_what_is_no_filter_is_words() -> None:
    for text, words in (
        ("rating:good", ["rating", "good"]),
        ("foo:bar", ["foo", "bar"]),
        ("family:", ["family"]),
        ("is:nice", ["is", "nice"]),
        ("<lora:ink_outline:0.8>", ["lora", "ink", "outline", "0", "8"]),
    ):
        query = parse_query(text)
        assert query.filters == ()
        assert [part for term in query.terms for one in term.compounds for part in one] == words


def test_a_quote_that_is_not_closed_is_closed_by_the_end() -> None:
    assert parse_query('"red dress').terms == (Term((("red",), ("dress",)), quoted=True),)
    assert parse_query("“red dress”").terms == (Term((("red",), ("dress",)), quoted=True),)
    assert parse_query('"" " - --').terms == ()


def test_quotes_make_a_word_of_a_filter() -> None:
    assert parse_query('"broken" mirror').filters == ()


def test_a_flag_can_be_read_as_a_word() -> None:
    query = parse_query("broken mirror")
    assert query.filters[0].value == "broken"
    assert query.with_flags_as_words() == Query((Term((("broken",),)), Term((("mirror",),))), ())
    assert parse_query("mirror is:broken").with_flags_as_words() is None


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("family", "SDXL, Flux", Filter("family", "sdxl,flux")),
        ("folder", "/Styles/My_Anime/", Filter("folder", "styles/my anime")),
        ("rating", ">= 4.5", Filter("rating", ">=4.5")),
        ("rating", "many", None),
        ("rating", "4 or 5", None),
        ("is", "FAVORITE", Filter("is", "favourite")),
        ("is", "pretty", None),
        ("tag", " , ", None),
    ],
)
def test_filters_from_options(key: str, value: str, expected: Filter | None) -> None:
    assert make_filter(key, value) == expected


def test_ratings_are_operators_and_numbers() -> None:
    assert [rating_of(text) for text in ("4", ">=4", "<2.5", "=0")] == [("=", 4), (">=", 4), ("<", 2.5), ("=", 0)]


def test_paths_compare_whatever_case_accents_and_underscores() -> None:
    assert path_key("Stîles/ Red_Dress//x") == "stiles/red dress/x"


@given(st.text())
def test_no_text_fails_and_words_hold_nothing_that_could_be_syntax(text: str) -> None:
    query = parse_query(text)
    for term in query.terms:
        for compound in term.compounds:
            assert all(part and not set(part) & set(' "*:^()+-\0\n') for part in compound)


@given(st.text(alphabet="aZ9_-. 動é"))
def test_every_word_of_a_document_is_found_in_its_index_text(text: str) -> None:
    indexed = f" {index_text([text])} "
    for compound in compounds(text):
        assert f" {' '.join(compound)} " in indexed
        assert f" {''.join(compound)} " in indexed
