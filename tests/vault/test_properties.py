"""Single properties are changed and nothing else: not a comment, a blank, a quote or a line end of the user's."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loravault.vault import yamlwrite
from loravault.vault.note import parse_note
from loravault.vault.properties import (
    EditRefused,
    format_value,
    set_properties,
    set_properties_best,
    strip_properties,
)
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


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("lv_message: one\n  two\nb: 2\n", "lv_message: new\nb: 2\n"),
        ("lv_message: one\n\n  two  # mine\nb: 2\n", "lv_message: new  # mine\nb: 2\n"),
        ("lv_message: 'one\n  two' # mine\nb: 2\n", "lv_message: new # mine\nb: 2\n"),
        ('lv_message: "one\\\n  \\ two"\n# mine\n', "lv_message: new\n# mine\n"),
        ("lv_message: >-\n  one\n  two\n\n# mine\nb: 2\n", "lv_message: new\n\n# mine\nb: 2\n"),
        ("lv_message: |+\n  # text\n\n\nb: 2\n", "lv_message: new\n\n\nb: 2\n"),
        ("lv_message: > # mine\n  one  \nb: 2\n", "lv_message: new # mine\nb: 2\n"),
        ("lv_message: |\nb: 2\n", "lv_message: new\nb: 2\n"),
        ("lv_message:\n  one\n  two\nb: 2\n", "lv_message: new\nb: 2\n"),
        ("lv_message: # mine\n  # too\n\n  one # three\nb: 2\n", "lv_message: new # mine\n  # too\n\n# three\nb: 2\n"),
        ("lv_message:\n  > # mine\n  one\nb: 2\n", "lv_message: new\n# mine\nb: 2\n"),
        ("  LV_Message: one\n    two\n  b: 2\n", "  LV_Message: new\n  b: 2\n"),
    ],
)
@pytest.mark.parametrize("eol", ["\n", "\r\n"])
def test_what_another_yaml_writer_folded_of_ours_is_replaced_as_a_whole(before, after, eol):
    """The review's finding: a long `lv_message` that a plugin wrote again over two lines kept `run: true` for ever."""
    data = f"---\na: 1\n{before}run: true\n---\nx".replace("\na", "\n  a" if before.startswith("  ") else "\na")
    data = data.replace("\nrun", "\n  run") if before.startswith("  ") else data
    wanted = data.replace(before, after).replace("\n", eol).encode()
    data = data.replace("\n", eol).encode()
    assert set_properties(data, {"lv_message": "new"}) == wanted
    gone = set_properties(data, {"lv_message": None})
    assert gone == set_properties(wanted, {"lv_message": None}), "comments and empty lines stay the same way"
    assert gone.count(b"mine") == data.count(b"mine")


def test_a_folded_value_that_says_what_it_should_is_left_as_it_is():
    data = b"---\nlv_message: one\n  two\n---\n"
    assert set_properties(data, {"lv_message": "one two"}) == data
    assert set_properties(b"---\nrun: &a false\n---\n", {"run": False}) == b"---\nrun: &a false\n---\n"


@pytest.mark.parametrize(
    ("yaml", "unset", "words"),
    [
        ("run: &a true\n", {"run"}, "anchor"),
        ("run: true\nRun: true\n", {"run"}, "twice"),
        ("run: |\n  true\n", {"run"}, "several lines"),
        ("run: true\nlv_status: [a]\n", {"lv_status"}, "list"),
        ("run: true\nlv_status: !!str a\n", {"lv_status"}, "tag"),
    ],
)
def test_one_property_that_cannot_be_set_does_not_keep_the_others_back(yaml, unset, words):
    data = f"---\n{yaml}mine: 1 # c\n---\nx".encode()
    changes = {"run": False, "lv_status": "done", "lv_job": "a@m", "lv_message": None}
    new, reasons = set_properties_best(data, changes)
    assert set(reasons) == unset
    assert all(words in reason for reason in reasons.values())
    now = parse_note(new).frontmatter.properties
    assert {k: now[k] for k in changes if k not in unset and changes[k] is not None} == {
        k: v for k, v in changes.items() if k not in unset and v is not None
    }
    assert b"mine: 1 # c\n" in new
    assert set_properties_best(new, changes) == (new, reasons), "the same again changes nothing"
    with pytest.raises(EditRefused):
        set_properties(data, changes)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"---\n{run: true, lv_status: done}\n---\n", "JSON"),
        (b"---\nrun: [true\n---\n", "cannot be read"),
        (b"run: true\n", "has none"),
        (b"---\nrun: true\n---\n\xff", "UTF-8"),
    ],
)
def test_where_nothing_can_be_set_every_wish_has_its_reason(data, words):
    new, reasons = set_properties_best(data, {"run": False, "lv_job": "a"})
    assert new == data
    assert set(reasons) == {"run", "lv_job"}
    assert all(words in reason for reason in reasons.values())


def test_in_json_properties_that_say_it_already_nothing_is_missing():
    data = b"---\n{run: false, lv_status: done}\n---\n"
    assert set_properties_best(data, {"run": False, "lv_status": "done", "lv_message": None}) == (data, {})


def test_a_property_that_does_not_read_back_is_found_out_among_the_others(monkeypatch):
    """The last safety net: if a change would not read as intended, that change alone is left out, and told."""
    real = yamlwrite.format_value
    monkeypatch.setattr(yamlwrite, "format_value", lambda v: "other" if v == "bad" else real(v))
    data = b"---\nrun: true\n---\n"
    new, reasons = set_properties_best(data, {"lv_message": "bad", "run": False, "lv_job": "a"})
    assert new == b"---\nrun: false\nlv_job: a\n---\n"
    assert list(reasons) == ["lv_message"]


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


LINE = st.sampled_from(
    ["mine: 1", "# a comment", "", "text: |\n  two\n\n  lines", "other:\n- a", "'q': 'x' # c", "   "]
)
STYLES = st.sampled_from(["plain", "below", "'", '"', ">", "|", ">-", "|+", "> # kept", "|2-"])
CHUNKS = st.lists(st.sampled_from(["one", "two words", "ünï 😀", "it-s", "#x"]), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(st.lists(LINE, max_size=4), st.lists(LINE, max_size=4)),
    STYLES,
    CHUNKS,
    st.sampled_from(["\n", "\r\n"]),
    VALUES,
)
def test_however_our_value_was_written_the_lines_around_it_stay(around, style, chunks, eol, value):
    """The lines before and behind are known here from how the note was made, not from the code under test."""
    above, below = around
    if style in ("plain", "below", "'", '"'):
        quote = style if len(style) == 1 else ""
        chunks = ["x" + chunk for chunk in chunks]  # a bare `#` would be a comment
        ours = "lv_message:" + ("\n  " if style == "below" else " ") + quote + "\n  ".join(chunks) + quote
    else:
        ours = "lv_message: " + style + "".join(f"\n  {chunk}" for chunk in chunks)
    if len(set(above + below) - {"# a comment", "", "   "}) < sum(
        x not in ("# a comment", "", "   ") for x in above + below
    ):
        return  # a key would occur twice
    text = "\n".join(["---", *above, ours, *below, "---", "body"]).replace("\n", eol)
    data = text.encode()
    assert parse_note(data).frontmatter.problem is None
    if isinstance(value, str) and parse_note(data).frontmatter.get("lv_message") == value:
        return
    new = set_properties(data, {"lv_message": value}).decode()
    before, _, behind = text.partition(ours.replace("\n", eol))
    written = format_value(value) + (" # kept" if "#" in style else "")
    assert new == before + "lv_message: " + written + behind


def test_teeth_the_comparison_notices_what_an_emitter_does_to_a_note():
    """The known-bad twin: load and dump. If this passed as `nothing else changed`, the checker would be broken."""
    import yaml

    data = b"---\n# mine\nb: [1, 2]\na: 'x'  # why\nrun: true\n---\nbody\n"
    front = parse_note(data).frontmatter
    dumped = yaml.safe_dump({**front.properties, "run": False}).encode()
    bad = data[: front.yaml_start] + dumped + data[front.yaml_end :]
    assert parse_note(bad).frontmatter.properties["run"] is False
    assert strip_properties(bad, {"run"}.__contains__) != strip_properties(data, {"run"}.__contains__)
