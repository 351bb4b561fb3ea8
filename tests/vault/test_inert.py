"""Strangers' text is one harmless line: nothing in it runs, links, embeds, tags or closes anything (U1)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from loravault.vault import inert as rules
from loravault.vault.inert import inert, inert_value, inert_with_tags
from loravault.vault.note import parse_note

TOKENS = [
    "<%",
    "<%*",
    "%>",
    "```dataviewjs",
    "```",
    "`$=",
    "`=",
    "`",
    "[[",
    "]]",
    "![",
    "![[",
    "[",
    "]",
    "(",
    ")",
    "[^1]",
    "[a]: x",
    "%%",
    "<iframe>",
    "<img src=x>",
    "<!--",
    "-->",
    "obsidian://new",
    "javascript:alert(1)",
    "https://x.org",
    "mailto:a@b",
    "data:text/html",
    "---",
    "***",
    "> [!lora-result]+",
    "^lv-12345678-abcdef",
    "\u202e",
    "\u2066",
    "\u200b",
    "#tag",
    "#",
    "{{title}}",
    "{",
    "}",
    "::",
    "$x$",
    "\\",
    "|",
    "~~~",
    "==",
    "\n",
    "\r\n",
    " ",
    "1. ",
    "- ",
    "+ ",
    "= ",
    "a",
    "é",
    "<",
    "%",
    "&lt;",
]
HARMLESS_ALONE = ("***", "&lt;", "-->")
ACTIVE = re.compile(
    r"<%|%>|`|\[\[|\]\]|!\[|%%|<[A-Za-z!/?]|(?i:obsidian|javascript|vbscript|data|file|mailto):\S|://|\]\(|\]\[|\]:|\[\^|\[!"
    r"|-{3}|\^|\{\{|\}\}|::|#\w|\$|\\|\||~|[\u202a-\u202e\u2066-\u2069\u200b\u200e\u200f\n\r\x00-\x1f]"
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(TOKENS), max_size=12).map("".join))
def test_no_active_token_is_left(text):
    safe = inert(text)
    assert not ACTIVE.search(safe), safe
    assert inert(safe) == safe


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(TOKENS), max_size=8).map("".join))
def test_markdown_sees_nothing_but_text_in_it(text):
    tokens = MarkdownIt("commonmark").parse(f"> [!note] title\n> {inert(text)}\n")
    kinds = {child.type for token in tokens for child in token.children or ()}
    assert kinds <= {
        "text",
        "softbreak",
        "strong_open",
        "strong_close",
        "em_open",
        "em_close",
        "text_special",
        "entity",
    }
    assert {token.type for token in tokens} == {
        *("blockquote_open", "paragraph_open", "inline", "paragraph_close", "blockquote_close")
    }
    note = parse_note(f"```prompt\nx\n```\n\n> [!note] t\n> {inert(text)}\n".encode())
    assert (len(note.fences), note.regions, note.open_tail) == (1, (), None)


TAGS = (
    "<lora:add_detail:0.3>",
    "<lora:a:0.3:te=1>",
    "<lora:",
    "<lora:x",
    ":1>",
    "<lora:<%x%>:1>",
    "<lora:`a`:1>",
    "<lora:[[a]]:1>",
)
#: Code with tags and nothing else: no sign that begins, ends or runs anything.
SPAN = re.compile(r"`((?:<lora:(?:(?!::|--|->)[^<>%`$\[\]{}!#|\\^~*/\n\u200b\u202a-\u202e\u2066-\u2069])+>)+)`")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*TOKENS, *TAGS]), max_size=12).map("".join))
def test_a_lora_tag_gets_through_as_code_and_nothing_active_with_it(text):
    safe = inert_with_tags(text)
    # like a blank, a backtick makes nothing of what stands before it
    assert not ACTIVE.search(SPAN.sub(" ", safe)), safe
    tokens = MarkdownIt("commonmark").parse(f"> [!note] title\n> {safe}\n")
    children = [child for token in tokens for child in token.children or ()]
    quiet = {"text", "softbreak", "strong_open", "strong_close", "em_open", "em_close", "text_special", "entity"}
    assert {child.type for child in children} <= {*quiet, "code_inline"}
    assert all(SPAN.fullmatch(f"`{child.content}`") for child in children if child.type == "code_inline")
    assert {token.type for token in tokens} == {
        *("blockquote_open", "paragraph_open", "inline", "paragraph_close", "blockquote_close")
    }


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("best with <lora:add_detail:0.3> and #2", "best with `<lora:add_detail:0.3>` and ＃2"),
        ("<lora:a:1><lora:b:-0.5>", "`<lora:a:1><lora:b:-0.5>`"),
        ("- <lora:a b (v1.0)>, - x", "\u2060- `<lora:a b (v1.0)>`, - x"),
        ("<lora:a:1> - x", "`<lora:a:1>` - x"),
        ("<LORA:Ü:0.3:te=1>", "`<LORA:Ü:0.3:te=1>`"),
        ("<lora:<% x %>:1>", "< lora:< % x % >:1 >"),
        ("<b>x</b>", "< b >x< /b >"),
    ],
)
def test_a_lora_tag_can_be_copied(text, safe):
    """A tag quoted in a sidecar's note became `< lora:add_detail:0.3 >` on the card, which is none."""
    assert inert_with_tags(text) == safe
    assert len(inert_with_tags("<lora:a:1> " * 100, 50)) < 70


def test_harmless_text_stays_as_it_is():
    text = "Ghibli style v2.1 (best at 0.8), 80 % of users say: great! 日本語 👩‍🚀 it's 5 < 6"
    assert inert(text) == text


@pytest.mark.parametrize(
    ("text", "safe"),
    [("[PDXL] style #2", "[PDXL] style ＃2"), ("a\n\nb\tc", "a b c"), ("see https://x.org", "see https: //x.org")],
)
def test_tokens_are_broken_readably(text, safe):
    assert inert(text) == safe


def test_a_limit_cuts_with_an_ellipsis():
    assert inert("a long sentence", 7) == "a long…"
    assert inert("short", 7) == "short"


def test_teeth_the_scanner_finds_what_an_unguarded_writer_leaves():
    assert all(ACTIVE.search(token) for token in TOKENS if len(token.strip()) > 2 and token not in HARMLESS_ALONE)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words, 0.8", "plain words, 0.8"),
        ("style #2 ~ $5 a_b--c (x:1.2) \\(y\\)", "style #2 ~ $5 a_b--c (x:1.2) \\(y\\)"),
        ("[PDXL] x", "[PDXL] x"),
        ("<% evil %>", "< % evil % >"),
        ("<%* x -%>", "< %* x -% >"),
        ("<b onload=x>", "< b onload=x>"),
        ("<lora:x:1>", "< lora:x:1>"),
        ("a <3 b", "a <3 b"),
        ("[[[x]]]", "[ [ [x] ] ]"),
        ("{{date}}", "{ {date} }"),
        ("%%hidden%%", "% %hidden% %"),
        ("`= this`", "'= this'"),
        ("two\nlines\t\u202eturned\u200b", "two lines turned"),
    ],
)
def test_a_value_keeps_what_a_person_may_copy_and_runs_nothing(text, shown):
    assert inert_value(text) == shown
    assert inert_value(shown) == shown


@given(st.text(max_size=60))
def test_no_value_runs_or_links_anything(text):
    line = inert_value(text)
    assert not re.search(r"<%|%>|\[\[|\]\]|\{\{|\}\}|%%|`|[\r\n]", line)
    assert inert_value(line) == line
    assert len(inert_value(text, 10).replace("…", "")) <= 2 * 10


class _NothingIsHarmless:
    """In the place of the shortcut."""

    def match(self, _text: str) -> None:
        return None


_NEAR_HARMLESS = st.one_of(
    st.text(max_size=20),
    st.text("abzA09 ,;./()'\"&+@?·×_-:#=*[]{}%!<>\n\t\u00a0", max_size=12),
    st.lists(st.sampled_from([*TOKENS, "1", "12)", "3. x", "_", "-", "--", "word"]), max_size=5).map("".join),
)


@settings(max_examples=400, deadline=None)
@given(_NEAR_HARMLESS, st.none() | st.integers(0, 12))
def test_the_shortcut_for_plain_words_says_what_the_rules_say(text, limit):
    quick = inert(text, limit), inert_value(text, limit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "_HARMLESS", _NothingIsHarmless())
        assert quick == (inert(text, limit), inert_value(text, limit))


def test_teeth_most_texts_take_the_shortcut():
    texts = ["long hair", "1girl", "ink_outline-v2", "12,000 steps · 10 epochs", "Styles/ink.safetensors", "it's (a) b"]
    assert all(rules._HARMLESS.match(text) for text in texts)
    others = ["", "1. x", "- x", "a  b", "a ", "a: b", "é"]
    assert not any(rules._HARMLESS.match(text) for text in others)
