"""Which page a card's text embeds."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.pages.cardpages import embed_start, embedded_page

#: What a name is: short, without what a link or a file system cannot hold; `.md` and a heading or width may follow.
_SLOWLY = re.compile(r"([^\[\]|#^\r\n/\\:*?\"<>]{1,200}?)(?:\.md)?(?:[#|][^\[\]\r\n]*)?\]\]")


@given(
    st.lists(st.sampled_from(["a", "ink pictures", ".md", "#", "|", "]", "]]", "^", "\n", "x" * 198, "."]), max_size=5)
)
def test_the_page_is_the_shortest_name_that_the_embed_can_mean(parts: list[str]) -> None:
    text = "".join(parts)
    found = _SLOWLY.match(text)
    page = embedded_page("LV", f"# hello\n{embed_start('LV')}{text}")
    assert page == (f"LV/Gallery/Adapters/{found[1]}.md" if found else None)


@pytest.mark.parametrize(
    ("text", "name"), [("ink pictures]]", "ink pictures"), ("ink.md|x]]", "ink"), (".md]]", ".md"), ("a/b]]", None)]
)
def test_what_an_embed_means(text: str, name: str | None) -> None:
    page = embedded_page("LV", embed_start("LV") + text)
    assert page == (f"LV/Gallery/Adapters/{name}.md" if name else None)
