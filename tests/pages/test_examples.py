"""The example prompt of a card: what a person would type to see what the adapter does."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.formats.prompt_tags import parse_tags
from loravault.library.entry import Entry, Place
from loravault.pages import examples
from loravault.pages.examples import example_prompt, lora_tag, request_uri


def entry(words: tuple[str, ...] = (), **facts: Any) -> Entry:
    place = Place("main", "ink.safetensors", "ok", 10, 0)
    return Entry(
        weight_id="w1-0123456789abcdef", name="ink", places=(place,), state="ok", family="sdxl", variant=None,
        network="lora", rank=4, alpha=4.0, title=None, trigger_words=words, facts=facts,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("captions", "shown"),
    [
        ([["smile", 9], ["red dress", 7]], "sks, smile, red dress"),
        ([["on the left", 9], ["a blue sks at night", 2], ["a red house on a beach", 1]], "a blue sks at night"),
        ([["on the left", 9], ["a red house on a beach", 1]], "sks, a red house on a beach"),
        ([["looking at viewer", 9], ["hand on own hip", 8]], "sks, looking at viewer, hand on own hip"),
        ([], "sks, portrait, soft light"),
    ],
)
def test_captions_that_are_sentences_give_one_scene_and_tags_give_a_list(captions: list[Any], shown: str) -> None:
    """Sentences were cut at their commas and strung together: `on the right, on the left, a blue gho at night`."""
    assert example_prompt(entry(("sks",), captions=captions), "ink") == f"{shown} <lora:ink>"


def test_a_good_sample_prompt_goes_before_captions() -> None:
    asked = entry(("sks",), captions=[["a sks on a beach", 3]], sample_prompts=["<lora:old:1> sks, at the sea"])
    assert example_prompt(replace(asked, weight=0.7), "ink") == "sks, at the sea <lora:ink:0.7>"


@pytest.mark.parametrize(
    ("name", "weight", "tag"),
    [
        ("ink_outline (v2.1)", None, "<lora:ink_outline (v2.1)>"),
        ("ink_outline (v2.1)", 1, "<lora:ink_outline (v2.1):1>"),
        ("水墨 v2", 0.5, "<lora:水墨 v2:0.5>"),
        ("a=b", 1, ""),
        ("a:b", 1, ""),
        (" ink", 1, ""),
        ("<% x %>", 1, ""),
        ("ink", float("inf"), ""),
    ],
)
def test_a_tag_is_only_given_if_it_reads_as_this_name_and_weight(name: str, weight: float | None, tag: str) -> None:
    assert lora_tag(name, weight) == tag


@given(st.text("aZ09_.()+- :=<>[]%\n`é", max_size=8), st.none() | st.floats())
def test_a_plain_name_is_one_that_the_parser_reads_back(name: str, weight: float | None) -> None:
    """The shortcut for plain names gives no tag that its own reader does not understand."""
    tag = lora_tag(name, weight)
    _, tags = parse_tags(tag)
    assert [one.name for one in tags if not one.problem] == ([name] if tag else [])


@given(st.text(max_size=30))
def test_what_a_link_holds_is_quoted_whole(text: str) -> None:
    block = text.encode("utf-8", "replace").decode()
    uri = request_uri("vault", "Try", block)
    content = parse_qs(uri.partition("?")[2], strict_parsing=True)["content"][0]
    assert content == f"---\nloravault: generate\nrun: false\n---\n\n```prompt\n{block}\n```\n"
    assert re.fullmatch(r"[A-Za-z0-9_.~&=%:/?-]*", uri)


_TAG_LIKE = st.text("abZ09 _,.()'+/-<>[]%`#|{}é\u200b\t", max_size=10) | st.sampled_from(
    ["1girl", "long  hair", "#| x"]
)


@given(_TAG_LIKE)
def test_the_shortcut_for_plain_words_says_what_cleaning_says(text: str) -> None:
    quick = examples._cleaned(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples, "_CLEAN", re.compile(r"(?!)"))
        assert quick == examples._cleaned(text)


def test_teeth_tags_take_the_shortcut() -> None:
    assert all(map(examples._CLEAN.match, ["1girl", "film_grain", "forest143 style", "solo (a)", "it's"]))


@pytest.mark.parametrize("captions", [["ab", "cd"], [["a"], 3], [[["x"], 1]], "tags", [["a tag", 3, 4]]])
def test_captions_of_another_shape_cost_no_card(captions: Any) -> None:
    assert example_prompt(entry(captions=captions), "ink")


def test_an_example_shows_one_outfit() -> None:
    """Of an adapter with two dresses the example asked for both: captions of the other one were taken for a scene."""
    captions = [["green gown", 9], ["1girl", 8], ["black gown", 7], ["lace", 7], ["castle", 5]]
    words = ("green gown: green gown", "black gown: black gown, lace")
    assert example_prompt(entry(words, captions=captions), "ink") == "green gown, 1girl, castle <lora:ink>"
    assert example_prompt(entry(("sks", *words), captions=captions), "ink") == "sks, 1girl, castle <lora:ink>"
