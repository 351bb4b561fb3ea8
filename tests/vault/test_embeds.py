"""Which pictures a note embeds, and which words belong to each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.vault.embeds import picture_embeds
from loravault.vault.note import parse_note


def embeds(body: str) -> list[tuple[str, str | None]]:
    return [(one.target, one.caption) for one in picture_embeds(parse_note(f"---\na: 1\n---\n{body}".encode()))]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("![[a.jpg]]\nsks cat on a sofa\n", [("a.jpg", "sks cat on a sofa")]),
        ("![[a.jpg]]\none\ntwo\n\nno caption", [("a.jpg", "one two")]),
        ("![[a.jpg]]\n\nafter an empty line", [("a.jpg", None)]),
        ("![[a.jpg|300]] asleep", [("a.jpg", "asleep")]),
        ("![[a.jpg|640x480]]\nasleep", [("a.jpg", "asleep")]),
        ("![[a.jpg|asleep on a roof]]", [("a.jpg", "asleep on a roof")]),
        ("![[a.jpg|alias|300]]\nbelow wins", [("a.jpg", "below wins")]),
        ("![[deep/a b.jpg#x]]", [("deep/a b.jpg", None)]),
        ("![](a%20b.jpg)\nasleep", [("a b.jpg", "asleep")]),
        ("![asleep|300](<a b.jpg> 'title')", [("a b.jpg", "asleep")]),
        ("![300](x(1).png)", [("x(1).png", None)]),
        ("![[a.jpg]] ![[b.jpg]]\nboth", [("a.jpg", "both"), ("b.jpg", "both")]),
        ("![[a.jpg]]\n![[b.jpg]]\nonly b", [("a.jpg", None), ("b.jpg", "only b")]),
        ("- ![[a.jpg]]\n  asleep\n- ![[b.jpg]] awake\n- other", [("a.jpg", "asleep"), ("b.jpg", "awake")]),
        ("- ![[a.jpg]]\n\t- asleep\n- other", [("a.jpg", "asleep")]),
        ("1. ![[a.jpg]]\n2. not its caption", [("a.jpg", None)]),
        ("- [ ] ![[a.jpg]] asleep", [("a.jpg", "asleep")]),
        ("> [!info] Cats\n> ![[a.jpg]]\n> asleep\n>\n> other", [("a.jpg", "asleep")]),
        ("> ![[a.jpg]]\n> [!tip] other", [("a.jpg", None)]),
        ("![[a.jpg]]\n# heading", [("a.jpg", None)]),
        ("![[a.jpg]]\n```prompt\na cat\n```\n", [("a.jpg", None)]),
        ("![[a.jpg]]\n---\nother", [("a.jpg", None)]),
        ("```\n![[a.jpg]]\n```\n`![[b.jpg]]` %% ![[c.jpg]] %%\n<!-- ![[d.jpg]]\n-->", []),
        ("![[a.jpg]]\n%% private %%\n", [("a.jpg", None)]),
        (
            "![[a.jpg]]\nsee [[Cats|the cat]] and [this](x.md) **bold** ^abc123",
            [("a.jpg", "see the cat and this bold")],
        ),
        ("| ![[a.jpg\\|100]] | words |\n|---|---|\n| ![[b.jpg]] | y |", [("a.jpg", None), ("b.jpg", None)]),
        ("[[a.jpg]] [x](b.jpg)", []),
        ("![[a.jpg]]<br>\r\nasleep\r\n\r\nother", [("a.jpg", "asleep")]),
        ("text above\n![[a.jpg]]", [("a.jpg", None)]),
        ("![[]]![]()", []),
    ],
)
def test_an_embed_has_the_words_beside_and_below_it(body: str, expected: list[tuple[str, str | None]]) -> None:
    assert embeds(body) == expected


def test_addresses_are_told_apart() -> None:
    [web, data] = picture_embeds(parse_note(b"![](https://x.org/a.jpg) ![x](data:image/png;base64,AA)"))
    assert (web.target, web.external, data.external) == ("https://x.org/a.jpg", True, True)


def test_our_own_results_hold_no_pictures_to_learn_from() -> None:
    from loravault.vault.regions import render_region

    region = render_region(["[!lora-result]+ 1 image", "![[LoraVault/Images/x.webp|256]]"], "3fa81c20")
    assert embeds(f"![[a.jpg]]\n\n{region}\n\n![[b.jpg]]\n") == [("a.jpg", None), ("b.jpg", None)]


@given(st.text(alphabet="![]()|<>`%-#>\n a.jpg\\\"'^x1", max_size=80))
def test_any_text_is_read_without_an_error(body: str) -> None:
    for target, caption in embeds(body):
        assert target
        assert caption is None or ("\n" not in caption and caption)
