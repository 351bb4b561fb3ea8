"""Code blocks are found where CommonMark and Obsidian find them."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from loravault.vault.note import parse_note

ATOMS = [
    *("```", "````", "~~~", "```prompt", "~~~ x`y", "`", "  ", "    ", "\t", " ", "> ", ">", "- ", "-", "* ", "+ "),
    *("1. ", "2. ", "10) ", "text", "", "x ", "# h", "---", "***", "==="),
    *("<!--", "-->", "<div>", "</div>", "<b>", "<script>", "</script>", "<?"),
]
LINE = st.lists(st.sampled_from(ATOMS), max_size=4).map("".join)


@settings(max_examples=200, deadline=None)
@given(st.lists(LINE, min_size=1, max_size=9))
@example(["- a", "  ```prompt", "  x", "```"])
@example(["+ 10) ===* ", "2. ", "</script>", "```--->", ""])
@example(["1.  ", "<div>", "", "===</script>", "> ~~~ x"])
def test_fences_are_those_of_an_independent_commonmark_parser(lines):
    text = "\n".join(lines) + "\n"
    assume(not text.startswith("---"))
    assume(
        not any("    >" in line or "\t>" in line for line in lines)
    )  # where markdown-it itself departs from the spec
    expected = [
        (token.level > 0, token.map[0], token.info.strip(), _lines(token.content))
        for token in MarkdownIt("commonmark").parse(text)
        if token.type == "fence"
    ]
    data = text.encode()
    found = [(bool(f.container), data[: f.start].count(b"\n"), f.info, _lines(f.body)) for f in parse_note(data).fences]
    assert found == expected


def _lines(body: str) -> list[str]:
    return [line.strip() for line in body.rstrip().split("\n")]


@pytest.mark.parametrize("eol", ["\n", "\r\n", "\r"])
def test_a_fence_knows_its_span_its_body_and_its_language(eol):
    text = eol.join(["text", "  ```Prompt {#x}  ", "  a cat", "", "   on a mat  ", "  ````", "after"])
    fence = parse_note(text.encode()).fences[0]
    assert (fence.language, fence.info, fence.closed, fence.container) == ("prompt", "Prompt {#x}", True, "")
    assert fence.body == "a cat\n\n on a mat  "
    assert text.encode()[fence.start : fence.end].decode() == eol.join(text.split(eol)[1:6])
    assert text.encode()[fence.body_start : fence.body_end].decode() == eol.join(text.split(eol)[2:5]) + eol


def test_a_fence_that_is_never_closed_runs_to_the_end_and_says_so():
    note = parse_note(b"text\n\n```prompt\na cat\n")
    assert (note.fences[0].closed, note.fences[0].end, note.open_tail) == (False, len(note.data), 6)


def test_a_fence_at_the_end_without_a_final_newline_is_closed():
    note = parse_note(b"```prompt\na cat\n```")
    assert (note.fences[0].closed, note.fences[0].body, note.open_tail) == (True, "a cat", None)


@pytest.mark.parametrize(
    ("text", "containers"),
    [
        ("- x\n  ```prompt\n  a\n  ```\n", ["list"]),
        ("> ```prompt\n> a\n> ```\n", ["quote"]),
        ("> [!note]\n> - ```prompt\n>   a\n>   ```\n", ["quote"]),
        ("1. ```prompt\n   a\n   ```\n\n```prompt\nb\n```\n", ["list", ""]),
        ("- x\n\n```prompt\na\n```\n", [""]),
        ("    ```prompt\n    a\n    ```\n", []),
        ("%%\n```prompt\na\n```\n%%\n```prompt\nb\n```\n", [""]),
        ("%% aside %%\n```prompt\na\n```\n", [""]),
        ("<!--\n```prompt\na\n```\n-->\n", []),
        ("<div>\n```prompt\na\n```\n</div>\n", []),
        ("<div>\n\n```prompt\na\n```\n", [""]),
        ("```` md\n```prompt\na\n```\n````\n", [""]),
    ],
)
def test_containers_comments_and_html_decide_what_a_fence_is(text, containers):
    assert [fence.container for fence in parse_note(text.encode()).fences] == containers


def test_a_comment_that_is_never_closed_does_not_swallow_requests_in_silence():
    note = parse_note(b"text\n%%\n```prompt\na\n```\n")
    assert len(note.prompts) == 1
    assert note.open_tail == 5


def test_the_list_around_a_fence_ends_where_its_last_item_ends():
    text = b"- x\n  ```prompt\n  a\n  ```\n- y\n\n  more\n\nafter\n"
    fence = parse_note(text).fences[0]
    assert text[: fence.outer_end].endswith(b"  more")
