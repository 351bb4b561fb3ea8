"""Single properties are changed and nothing else: not a comment, a blank, a quote or a line end of the user's."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loravault.vault.note import parse_note
from loravault.vault.properties import EditRefused, format_value, set_properties, strip_properties
from loravault.vault.yamlread import read_mapping
from tests.synth_vault import make_note


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        (b"---\nrun: true\n---\nx", {"run": False}, b"---\nrun: false\n---\nx"),
        (b"---\r\nrun: true  # go\r\n---\r\n", {"run": False}, b"---\r\nrun: false  # go\r\n---\r\n"),
        (b'---\nrun: "true" # c\n---\n', {"run": False}, b"---\nrun: false # c\n---\n"),
        (b"---\nrun:\n---\n", {"run": False}, b"---\nrun: false\n---\n"),
        (b"---\nrun: \n---\n", {"run": False}, b"---\nrun: false\n---\n"),
        (b"---\nrun:   # why\n---\n", {"run": False}, b"---\nrun: false  # why\n---\n"),
        (b"---\nrun: # why\n---\n", {"run": False}, b"---\nrun: false # why\n---\n"),
        (b"---\nRun : true\n---\n", {"run": False}, b"---\nRun : false\n---\n"),
        (b"---\nrun:\ttrue\t\n---\n", {"run": False}, b"---\nrun:\tfalse\t\n---\n"),
        (b"---\nrun: False\n---\n", {"run": False}, b"---\nrun: False\n---\n"),
        (b"---\n'run': true\n---\n", {"run": False}, b"---\n'run': false\n---\n"),
        (b"--- \na: 1\n--- \t\nbody", {"lv_job": "x@m"}, b"--- \na: 1\nlv_job: x@m\n--- \t\nbody"),
        (b"---\n---\n", {"lv_job": "x"}, b"---\nlv_job: x\n---\n"),
        (b"---\r\n---", {"lv_job": "x"}, b"---\r\nlv_job: x\r\n---"),
        (b"\xef\xbb\xbf---\na: 1\n---", {"lv_job": "x"}, b"\xef\xbb\xbf---\na: 1\nlv_job: x\n---"),
        (b"---\n  a: 1\n  b: 2\n---\n", {"lv_job": "x"}, b"---\n  a: 1\n  b: 2\n  lv_job: x\n---\n"),
        (b"---\na: |\n  text\n\n---\n", {"lv_job": "x"}, b"---\na: |\n  text\n\nlv_job: x\n---\n"),
        (b"---\na: 1\r\nb: 2\n---\n", {"a": 7}, b"---\na: 7\r\nb: 2\n---\n"),
        (b"---\nlv_message: old\nb: 2\n---\n", {"lv_message": None}, b"---\nb: 2\n---\n"),
        (b"---\nlv_message: old # mine\n---\n", {"lv_message": None}, b"---\n# mine\n---\n"),
        (b"---\nb: 2\n---\n", {"lv_message": None}, b"---\nb: 2\n---\n"),
        (b"plain", {"lv_message": None}, b"plain"),
        ("---\nä: ö\nrun: true\n---\nü".encode(), {"run": False}, "---\nä: ö\nrun: false\n---\nü".encode()),
    ],
)
def test_only_the_value_changes(before, changes, after):
    assert set_properties(before, changes) == after


def test_a_block_is_made_only_when_asked_for():
    with pytest.raises(EditRefused, match="has none"):
        set_properties(b"text\r\n", {"loravault": "card"})
    made = set_properties(b"\xef\xbb\xbftext\r\n", {"loravault": "card", "n": 1}, create=True)
    assert made == b"\xef\xbb\xbf---\r\nloravault: card\r\nn: 1\r\n---\r\ntext\r\n"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"---\nrun: [true]\n---\n", "holds a list"),
        (b"---\nrun:\n  - true\n---\n", "holds a list"),
        (b"---\nrun: {a: 1}\n---\n", "nested"),
        (b"---\nrun: |\n  true\n---\n", "several lines"),
        (b"---\nrun: a\n  b\n---\n", "several lines"),
        (b"---\nrun: 'a\n  b'\n---\n", "several lines"),
        (b"---\nrun: !!bool true\n---\n", "tag or anchor"),
        (b"---\nrun: &x true\n---\n", "tag or anchor"),
        (b"---\n? run\n: true\n---\n", "several lines"),
        (b"---\nrun: true\nRun: false\n---\n", "occurs twice"),
        (b"---\nrun: true\nrun: false\n---\n", "occurs twice"),
        (b"---\n{run: true}\n---\n", "JSON"),
        (b"---\nrun: [\n---\n", "never closed"),
        (b"---\njust text\n---\n", "plain text"),
        (b"run: true\n", "has none"),
        (b"---\nrun: true\n---\n\xff", "UTF-8"),
    ],
)
def test_what_cannot_be_done_surgically_is_refused_in_words(data, words):
    with pytest.raises(EditRefused, match="not changed") as caught:
        set_properties(data, {"run": False})
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (0.8, "0.8"),
        (2**53 - 1, str(2**53 - 1)),
        (2**64, f'"{2**64}"'),
        ("done", "done"),
        ("3fa81c20@desk", "3fa81c20@desk"),
        ("2026-11-20T18:15:03", "2026-11-20T18:15:03"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("it's", "it's"),
        ("a, b; c", "a, b; c"),
        ("x#y", "x#y"),
        ("4 images · 日本 😀", "4 images · 日本 😀"),
        ("true", '"true"'),
        ("null", '"null"'),
        ("", '""'),
        ("12", '"12"'),
        ("1e5", '"1e5"'),
        ("12345e67", '"12345e67"'),
        ("a: b", '"a: b"'),
        ("a #b", '"a #b"'),
        ("[[x|y]]", '"[[x|y]]"'),
        ("- x", '"- x"'),
        ("-x", "-x"),
        ("a:", '"a:"'),
        (" a", '" a"'),
        ("a ", '"a "'),
        ('say "x": y', "'say \"x\": y'"),
        ('say "x"', 'say "x"'),
        ("@x", '"@x"'),
        ("`x`", '"`x`"'),
        ("%x", '"%x"'),
        ("---", '"---"'),
        ("two\nlines", '"two\\nlines"'),
        ("tab\there", '"tab\\there"'),
        ("\u2028", '"\\u2028"'),
        ("\x07", '"\\x07"'),
    ],
)
def test_values_are_written_as_obsidian_writes_them(value, text):
    assert format_value(value) == text


def test_an_infinite_number_is_a_mistake_of_ours():
    with pytest.raises(ValueError, match="infinite"):
        format_value(float("inf"))


TEXTS = st.text(max_size=40).map(lambda s: s.encode("utf-8", "replace").decode())
VALUES = st.one_of(
    TEXTS, st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1), st.floats(allow_nan=False, allow_infinity=False)
)


@settings(deadline=None)
@given(VALUES)
@example("a\u0085b")
@example("\ufeff")
@example("'\"")
def test_every_value_reads_back_as_itself(value):
    read = read_mapping(f"key: {format_value(value)}\n")["key"]
    assert read == value
    assert type(read) is type(value)


KEYS = st.sampled_from(["run", "cancel", "lv_status", "lv_message", "lv_job", "lv_cover", "status", "title", "tags"])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 300), st.dictionaries(KEYS, st.one_of(st.none(), VALUES), max_size=4))
def test_in_any_ordinary_note_every_other_byte_stays(seed, number, changes):
    """W5: user spans identical, our keys read back as intended, and the same change again changes nothing."""
    data = make_note(random.Random(seed), number)
    if len(data) > 50_000:
        return
    try:
        new = set_properties(data, changes)
    except EditRefused:
        return
    before, after = parse_note(data), parse_note(new)
    assert new[after.body_start :] == data[before.body_start :]
    assert strip_properties(new, changes.__contains__) == strip_properties(data, changes.__contains__)
    if before.frontmatter:
        kept = {k: v for k, v in before.frontmatter.properties.items() if k not in changes}
        assert repr({k: v for k, v in after.frontmatter.properties.items() if k not in changes}) == repr(kept)
        assert all(after.frontmatter.properties.get(k) == v for k, v in changes.items())
    assert set_properties(new, changes) == new


def test_teeth_the_comparison_notices_what_an_emitter_does_to_a_note():
    """The known-bad twin: load and dump. If this passed as `nothing else changed`, the checker would be broken."""
    import yaml

    data = b"---\n# mine\nb: [1, 2]\na: 'x'  # why\nrun: true\n---\nbody\n"
    front = parse_note(data).frontmatter
    dumped = yaml.safe_dump({**front.properties, "run": False}).encode()
    bad = data[: front.yaml_start] + dumped + data[front.yaml_end :]
    assert parse_note(bad).frontmatter.properties["run"] is False
    assert strip_properties(bad, {"run"}.__contains__) != strip_properties(data, {"run"}.__contains__)
