"""One line of ours in a user's note is known by its checksum, and only by that."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from loravault.vault.note import parse_note
from loravault.vault.ownline import find_own_lines, own_line
from tests.synth_vault import make_note


def found(text: str) -> list[str]:
    return [line.text for line in find_own_lines(parse_note(text.encode()), "cover")]


LINE = own_line("![[x.webp|320]]", "cover")


def test_the_form_never_changes():
    """It stands in people's vaults; docs/note-format.md describes it."""
    assert LINE == "![[x.webp|320]] ^lv-cover-a87039"


def test_an_intact_line_is_found_with_any_line_end_and_trailing_blanks():
    for eol in ("\n", "\r\n", "\r"):
        assert found(f"---{eol}a: 1{eol}---{eol}{LINE}  {eol}x") == ["![[x.webp|320]]"]
    assert found(LINE) == ["![[x.webp|320]]"]


def test_a_line_that_was_touched_quoted_or_shown_as_code_is_the_users():
    assert found(LINE.replace("320", "321")) == []
    assert found(f"see {LINE}") == []
    assert found(f"> {LINE}") == []
    assert found(f"```\n{LINE}\n```") == []
    assert found(f"```\n{LINE}") == []
    assert found(LINE.replace("lv-cover", "lv-other")) == []
    assert found(LINE + " x") == []
    assert found(f"---\n{LINE}: 1\n---\n") == []


@given(
    seed=st.integers(0, 3), number=st.integers(0, 500), text=st.sampled_from(["a", "![[ü.webp]]", "*No cover yet.*"])
)
@settings(max_examples=100)
def test_in_any_ordinary_note_it_is_found_where_it_was_put_and_nothing_else_is(seed, number, text):
    data = make_note(random.Random(seed), number)
    note = parse_note(data)
    assert find_own_lines(note, "cover") == []
    if note.text_problem or note.open_tail is not None:
        return
    more = data + b"\n\n" + own_line(text, "cover").encode() + b"\n"
    lines = find_own_lines(parse_note(more), "cover")
    assert [(line.text, more[line.start : line.end].decode()) for line in lines] == [(text, own_line(text, "cover"))]
