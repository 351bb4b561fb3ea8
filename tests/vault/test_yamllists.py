"""Lists and empty values are set as Obsidian writes them; what stands around and between stays, or it is refused."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loravault.vault.note import parse_note
from loravault.vault.properties import EMPTY, EditRefused, set_properties, strip_properties
from loravault.vault.yamlwrite import format_flow, property_lines
from tests.synth_vault import make_note


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        (b"---\nc: []\n---\nx", {"c": ("a", "b")}, b"---\nc:\n  - a\n  - b\n---\nx"),
        (b"---\nc:\n---\nx", {"c": ("a",)}, b"---\nc:\n  - a\n---\nx"),
        (b"---\nc: \n---\nx", {"c": ("a",)}, b"---\nc:\n  - a\n---\nx"),
        (b"---\nc: one\nd: 1\n---\nx", {"c": ("a",)}, b"---\nc:\n  - a\nd: 1\n---\nx"),
        (b"---\nc:\n  - a\n  - b\nd: 1\n---\n", {"c": ("z",)}, b"---\nc:\n  - z\nd: 1\n---\n"),
        (b"---\nc:\n- a\n- b\nd: 1\n---\n", {"c": ("z", "y")}, b"---\nc:\n- z\n- y\nd: 1\n---\n"),
        (b"---\nc:\n  - a\n\n# mine\nd: 1\n---\n", {"c": ("z",)}, b"---\nc:\n  - z\n\n# mine\nd: 1\n---\n"),
        (b"---\nc:\n  - a\nd: 1\n---\n", {"c": ()}, b"---\nc: []\nd: 1\n---\n"),
        (b"---\nc: # why\n  - a\nd: 1\n---\n", {"c": ()}, b"---\nc: [] # why\nd: 1\n---\n"),
        (b"---\nc: # why\n  - a\nd: 1\n---\n", {"c": ("b",)}, b"---\nc: # why\n  - b\nd: 1\n---\n"),
        (b"---\nc: [a, b] # why\n---\n", {"c": ("z: y",)}, b'---\nc: ["z: y"] # why\n---\n'),
        (b"---\nc: [a, b] # why\n---\n", {"c": ()}, b"---\nc: [] # why\n---\n"),
        (b"---\nc: # why\n---\n", {"c": ("a",)}, b'---\nc: ["a"] # why\n---\n'),
        (b"---\r\nc: []\r\nd: 1\r\n---\r\n", {"c": ("a",)}, b"---\r\nc:\r\n  - a\r\nd: 1\r\n---\r\n"),
        (b"---\r\nc:\r\n  - a\r\n---\r\n", {"c": ("b", "c")}, b"---\r\nc:\r\n  - b\r\n  - c\r\n---\r\n"),
        (b"---\na: 1\n---\n", {"c": ("x y", "1")}, b'---\na: 1\nc:\n  - x y\n  - "1"\n---\n'),
        (b"---\na: 1\n---\n", {"c": ()}, b"---\na: 1\nc: []\n---\n"),
        (b"---\nc:\n  - a\n---\n", {"c": ("a",)}, b"---\nc:\n  - a\n---\n"),
        (b"---\nc: [ 'a' ]\n---\n", {"c": ("a",)}, b"---\nc: [ 'a' ]\n---\n"),
        (b'---\nc:\n  - "a #b"\n  - c\n---\n', {"c": ("d",)}, b"---\nc:\n  - d\n---\n"),
        (b"---\nc: old\n---\n", {"c": EMPTY}, b"---\nc:\n---\n"),
        (b"---\nc: old # why\n---\n", {"c": EMPTY}, b"---\nc: # why\n---\n"),
        (b"---\nc: ~\n---\n", {"c": EMPTY}, b"---\nc: ~\n---\n"),
        (b"---\na: 1\n---\n", {"c": EMPTY}, b"---\na: 1\nc:\n---\n"),
    ],
)
def test_only_the_list_changes(before, changes, after):
    assert set_properties(before, changes) == after


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"---\nc:\n  - a # mine\n---\n", "has a comment"),
        (b"---\nc:\n  - a\n  # mine\n  - b\n---\n", "between its items"),
        (b"---\nc:\n  - a\n\n  - b\n---\n", "between its items"),
        (b"---\nc:\n  # mine\n  - a\n---\n", "before|between it and"),
        (b"---\nc:\n  - - a\n---\n", "nested"),
        (b"---\nc:\n  - a\n    b\n---\n", "several lines"),
        (b"---\nc:\n  - {a: 1}\n---\n", "nested"),
        (b"---\nc: [a,\n  b]\n---\n", "several lines"),
        (b"---\nc: {a: 1}\n---\n", "nested properties"),
        (b"---\nc: |\n  a\n---\n", "several lines"),
        (b"---\nc: &x [a]\n---\n", "tag or anchor"),
    ],
)
def test_a_list_of_the_users_own_making_is_refused_in_words(data, words):
    with pytest.raises(EditRefused, match=words):
        set_properties(data, {"c": ("z",)})


def test_a_scalar_never_replaces_a_list():
    with pytest.raises(EditRefused, match="holds a list"):
        set_properties(b"---\nc: [a]\n---\n", {"c": "x"})
    with pytest.raises(EditRefused, match="holds a list"):
        set_properties(b"---\nc: [a]\n---\n", {"c": EMPTY})


_ITEMS = st.lists(st.text(st.characters(blacklist_categories=("Cs",)), max_size=12), max_size=4).map(tuple)


@given(items=_ITEMS, flow=st.booleans())
@settings(max_examples=200)
def test_every_list_reads_back_as_itself(items, flow):
    lines = [f"c: {format_flow(items)}"] if flow else property_lines("c", items)
    front = parse_note("\n".join(["---", *lines, "---", ""]).encode()).frontmatter
    assert front.problem is None
    assert front.properties == {"c": list(items)}


@given(
    seed=st.integers(0, 3),
    number=st.integers(0, 400),
    first=_ITEMS,
    second=_ITEMS,
)
@settings(max_examples=120)
def test_in_any_ordinary_note_every_other_byte_stays(seed, number, first, second):
    data = make_note(random.Random(seed), number)
    try:
        once = set_properties(data, {"lv_list": first})
    except EditRefused:
        return
    again = set_properties(once, {"lv_list": second})
    ours = {"lv_list"}.__contains__
    assert strip_properties(once, ours, lists=True) == data
    assert strip_properties(again, ours, lists=True) == data
    assert parse_note(again).frontmatter.get("lv_list") == list(second)
