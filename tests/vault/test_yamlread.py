"""YAML is read as Obsidian reads it (1.2 core), within caps, and no input does worse than a problem in words."""

from __future__ import annotations

import contextlib
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loravault.vault.yamlread import MAX_BYTES, MAX_DEPTH, MAX_NODES, YamlProblem, read_entries, read_mapping


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12:30", "12:30"),
        ("16:9", "16:9"),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("y", "y"),
        ("0123", 123),
        ("1e-4", 0.0001),
        ("1_000", "1_000"),
        ("0o17", 15),
        ("0x1F", 31),
        ("+7", 7),
        ("-.5", -0.5),
        ("2026-11-20", "2026-11-20"),
        ("2024-13-45", "2024-13-45"),
        ("2024-07-21T12:37:00", "2024-07-21T12:37:00"),
        ("true", True),
        ("True", True),
        ("FALSE", False),
        ("tRue", "tRue"),
        ("null", None),
        ("~", None),
        ("", None),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("12345e67", 1.2345e71),
        ("1.10", 1.1),
        ("=", "="),
        ("<<", "<<"),
        ("18446744073709551615", 18446744073709551615),
        ("v 1.0", "v 1.0"),
        ("a\tb", "a\tb"),
        ("x\t# c", "x"),
        ('"\\u00e9\\n"', "é\n"),
        ("'it''s'", "it's"),
        ('"\\ud83d\\ude00"', "😀"),
        ("[[Foo]]", [["Foo"]]),
        ("!!str 12", "12"),
        ("!foo x", "x"),
        ("|-\n  two\n  lines", "two\nlines"),
        ("a\u2028b", "a\u2028b"),
        ("a\x85b", "a\x85b"),
        ("{a: [1, {b: 2}]}", {"a": [1, {"b": 2}]}),
    ],
)
def test_values_are_those_of_yaml_1_2(text, value):
    read = read_mapping(f"key: {text}\n")["key"]
    assert read == value
    assert type(read) is type(value)


def test_not_a_number_is_a_float_and_keys_are_always_text():
    assert math.isnan(read_mapping("key: .nan")["key"])
    assert list(read_mapping("1: a\nnull: b\n2026-01-01: c\ntrue: d")) == ["1", "null", "2026-01-01", "true"]


@pytest.mark.parametrize("text", ["", "\n", "# a comment\n", "  \n# x\n\n"])
def test_a_block_without_properties_is_empty(text):
    assert read_mapping(text) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3", "`a` occurs twice (line 3)"),
        ("a: {b: 1, b: 2}", "`b` occurs twice"),
        ("a: {{title}}", "in quotes"),
        ("a: x\nb: {{date}}: y", "placeholder"),
        ("a: b: c", "second `: `"),
        ("a:\n\t- x", "tab"),
        ("- x", "a list"),
        ("plain text", "plain text"),
        ("a: &x 1\nb: *x", "alias"),
        ("a: &x [*x]", "alias"),
        ("a: [1", "never closed"),
        ('a: "x', "never closed"),
        ("a: 1\n---\nb: 2", "second document"),
        ("a: \x07", "character"),
        ('a: "\\ud83d"', "half of a character"),
        ("a: " + "[" * 200_000, "longer than"),
        ("a: " + "[" * (MAX_DEPTH + 5), "nested deeper"),
        ("a:\n" + "- x\n" * (MAX_NODES + 1), f"more than {MAX_NODES}"),
        ("a: " + "x" * MAX_BYTES, "longer than"),
    ],
)
def test_what_cannot_be_read_is_a_problem_in_words(text, words):
    with pytest.raises(YamlProblem, match="The properties cannot be read") as caught:
        read_mapping(text)
    assert words in caught.value.message


@pytest.mark.parametrize(
    "fill", ["[", "- ", "{a: ", "? ", "a:\n ", "'", "&a ", "!t ", "#", "\n", "k: v\n", "%Y\n", "|\n", ">-\n"]
)
def test_hostile_blocks_cost_milliseconds(fill):
    """A 60 KB note once killed a daemon through the C parser; here each costs well under a tenth of a second."""
    text = ("a: " + fill * (60_000 // len(fill)))[: MAX_BYTES - 1]
    started = time.process_time()
    with contextlib.suppress(YamlProblem):
        read_mapping(text)
    assert time.process_time() - started < 0.5


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab:-?[]{}#&*!|>'\"%@`, \t\n\r\\0123.~=<\u2028\ud83dé"), max_size=60))
def test_no_text_does_worse_than_a_problem(text):
    try:
        values = read_mapping(text)
    except YamlProblem:
        return
    assert all(isinstance(key, str) for key in values)


def test_what_a_caller_does_to_the_values_stays_with_the_caller():
    """The reader remembers recent texts; a list that a caller changed once came back to the next one."""
    read_mapping("tags: [a]")["tags"].append("b")
    assert read_mapping("tags: [a]") == {"tags": ["a"]}


KEYS = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)


@settings(deadline=None)
@given(
    st.dictionaries(KEYS, st.sampled_from(["1", "x y", '"q: z"', "'s'", "", "[a, b]", "\n  - a\n  - b"]), max_size=6)
)
def test_the_span_of_every_entry_is_where_it_stands(pairs):
    text = "".join(f"{key}: {value}\n" for key, value in pairs.items())
    read = read_entries(text)
    assert [e.key for e in read.entries] == list(pairs)
    for entry, (key, value) in zip(read.entries, pairs.items(), strict=True):
        assert text[entry.key_start : entry.key_end] == key
        assert text[entry.value_start : entry.value_end].strip() == value.strip()
    assert not read.flow
