"""A note is read into spans without touching a byte, and what is no text says so."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loravault.vault.note import MAX_NOTE_BYTES, block_hash, might_be_request, parse_note
from tests.synth_vault import make_note


@pytest.mark.parametrize(
    ("data", "span", "properties"),
    [
        (b"---\na: 1\n---\nx", (0, 12), {"a": 1}),
        (b"\xef\xbb\xbf---\na: 1\n---\nx", (3, 15), {"a": 1}),
        (b"---\r\na: 1\r\n---\r\nx", (0, 14), {"a": 1}),
        (b"--- \na: 1\n---\t\nx", (0, 13), {"a": 1}),
        (b"---\n---", (0, 7), {}),
        (b"---\na: 1\n---", (0, 12), {"a": 1}),
        (b"---\na: |\n  ---\n  x\n---\n", (0, 22), {"a": "---\nx\n"}),
    ],
)
def test_the_block_of_properties_is_found(data, span, properties):
    front = parse_note(data).frontmatter
    assert (front.start, front.end) == span
    assert (front.properties, front.problem) == (properties, None)


@pytest.mark.parametrize(
    "data",
    [b"", b"\n---\na: 1\n---\n", b"----\na: 1\n----\n", b"---\na: 1\n", b"---\na: 1\n...\nx", b" ---\na: 1\n---\n"],
)
def test_what_obsidian_does_not_take_for_properties_is_text(data):
    assert parse_note(data).frontmatter is None


def test_unreadable_properties_are_a_problem_with_the_line_of_the_note():
    note = parse_note(b"---\na: 1\na: 2\n---\n```prompt\nx\n```\n")
    assert note.frontmatter.properties == {}
    assert note.frontmatter.problem == "The properties cannot be read: the property `a` occurs twice (line 3)."
    assert len(note.fences) == 1


def test_property_names_are_found_in_any_case_as_in_obsidian():
    front = parse_note(b"---\nRun: true\nlv_job: x\n---\n").frontmatter
    assert (front.get("run"), front.get("LV_JOB"), front.get("other", 7)) == (True, "x", 7)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"a\0b", "NUL"),
        (b"a\xff", "UTF-8"),
        ("---\na: 1\n---\n".encode("utf-16"), "NUL"),
        (b"x" * (MAX_NOTE_BYTES + 1), "1 MiB"),
        (b"a\n<<<<<<< HEAD\nb\n=======\nc\n>>>>>>> x\n", "conflict"),
        (b"<<<<<<< HEAD\r\n=======\r\n>>>>>>> x", "conflict"),
    ],
)
def test_what_is_no_text_is_not_parsed(data, word):
    note = parse_note(data)
    assert word in note.text_problem
    assert (note.frontmatter, note.fences, note.regions, note.text) == (None, (), (), "")


def test_a_heading_line_or_an_arrow_is_no_merge_conflict():
    assert parse_note(b"title\n=======\n\n<<<<<<< not\n").text_problem is None


def test_equal_blocks_are_told_apart_by_their_order():
    text = b"```prompt\na\n```\n\n```prompt\nb\n```\n\n~~~prompt\na  \n\n~~~\n\n```text\na\n```\n"
    fences = parse_note(text).fences
    assert [fence.ordinal for fence in fences] == [0, 0, 1, 0]
    assert fences[0].block_hash == fences[2].block_hash == block_hash("a")
    assert [f.index for f in parse_note(text).prompts] == [0, 1, 2]


def test_a_block_hash_ignores_line_ends_and_trailing_blanks_and_nothing_else():
    assert block_hash("a \r\nb\r\n\n") == block_hash("a\nb") != block_hash(" a\nb")
    assert len(block_hash("")) == 16


def test_the_cheap_look_finds_requests_and_skips_the_crowd():
    assert might_be_request(b"---\nloravault: generate\n---\n")
    assert might_be_request(b"\xef\xbb\xbf---\nLoraVault: generate\n---\n")
    assert not might_be_request(b"loravault is mentioned")
    assert not might_be_request(b"---\ntitle: x\n---\n")


@pytest.mark.parametrize(
    "properties",
    [
        "loravault: generate",
        "loravault:\n  generate",
        "loravault : generate",
        '"LoraVault": generate',
        "'loravault' : generate",
        "{title: x, loravault: generate}",
        "? loravault\n: generate",
        "title: x\r\nloravault: generate",
        "? loravault # a remark\n: generate",
        "{title: x,\n  'loravault': generate}",
    ],
)
def test_however_the_property_is_written_the_cheap_look_finds_it(properties: str) -> None:
    data = f"---\n{properties}\n---\n".encode()
    front = parse_note(data).frontmatter
    assert front is not None
    assert front.get("loravault") == "generate"
    assert might_be_request(data)


@pytest.mark.parametrize(
    "slip",
    ["loravault：generate", "loravault generate", "loravault; generate", "loravault= generate", "`loravault`: generate",
     "**loravault**: generate", "  loravault : [generate"],
)  # fmt: skip
def test_a_slip_in_the_property_itself_is_looked_at_and_so_told(slip: str) -> None:
    """A ticked note with a fullwidth colon, as Chinese and Japanese keyboards type it, would wait without a word."""
    assert might_be_request(f"---\n{slip}\nrun: true\n---\n".encode())


@pytest.mark.parametrize(
    "note",
    [
        b"---\ncssclasses:\n  - loravault\n  - img-grid\n---\n",
        b"---\ncover: '[[LoraVault/Images/a.webp]]'\n---\n![[LoraVault/Images/a.webp]]\n",
    ],
)
def test_a_note_that_only_shows_what_is_ours_is_not_parsed_at_every_start(note: bytes) -> None:
    """Ten thousand pages of ours cost each start four seconds."""
    assert not might_be_request(note)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_raise(data):
    assert parse_note(data).data is data


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 200))
def test_spans_of_ordinary_notes_are_in_order_and_inside(seed, number):
    note = parse_note(make_note(random.Random(seed), number))
    at = 0
    for fence in note.fences:
        assert at <= fence.start <= fence.body_start <= fence.body_end <= fence.end <= fence.outer_end <= len(note.data)
        at = fence.start + 1


def test_a_ten_kilobyte_note_takes_two_milliseconds():
    text = "---\nloravault: generate\nrun: true\nseed: 4\ntags:\n  - a\n---\n" + "- item\n  `x`\n\n> quote\n\n" * 60
    data = (text + "```prompt\na\n```\n" + "a paragraph line of ordinary length for a note\n" * 180).encode()
    assert len(data) > 9_500
    times = []
    for _ in range(20):
        started = time.process_time()
        parse_note(data)
        times.append(time.process_time() - started)
    assert min(times) < 0.004, "measured 1.2 ms on the reference machine"
