"""Links are written so that Obsidian finds them, and read as it writes them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loravault.vault.links import Wikilink, embed, parse_wikilink, wikilink


def test_links_are_written_by_full_path():
    assert wikilink("LoraVault/LoRAs/ink.md") == "[[LoraVault/LoRAs/ink]]"
    assert wikilink("LoraVault/LoRAs/ink.md", "ink 0.8") == "[[LoraVault/LoRAs/ink|ink 0.8]]"
    assert embed("Images/x.webp") == "![[Images/x.webp]]"
    assert embed("Images/x.webp", 256) == "![[Images/x.webp|256]]"


def test_an_alias_cannot_end_its_link():
    assert wikilink("a.md", "x]] | [[y\n") == "[[a|x)) ¦ ((y]]"
    assert wikilink("a.md", " \n") == "[[a]]"


@pytest.mark.parametrize("path", ["C# notes.md", "a|b.md", "a^b.md", "[x].md", "100%%.md"])
def test_a_path_that_no_wikilink_can_hold_becomes_a_markdown_link(path):
    link = wikilink(path, "alias")
    assert link.startswith("[alias](")
    assert not set(link[8:-1]) & set("#|^[] ")
    assert embed(path, 100).startswith("![100](")


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("[[a/b|ink 0.8]]", Wikilink("a/b", "", "ink 0.8")),
        (" [[a]] ", Wikilink("a")),
        ("![[x.png|300]]", Wikilink("x.png", "", "300", True)),
        ("[[a#Head|x]]", Wikilink("a", "Head", "x")),
        ("[[a#^id]]", Wikilink("a", "^id")),
        ("[[#Head]]", Wikilink("", "Head")),
        ("[[a\\|b]]", Wikilink("a", "", "b")),
        ("[[a|]]", Wikilink("a", "", "")),
        ("a", None),
        ("[[a]] b", None),
        ("[[]]", None),
        ("[[a", None),
        ("[[a\nb]]", None),
        ("[[a]b]]", None),
    ],
)
def test_links_are_read(text, link):
    assert parse_wikilink(text) == link


@settings(deadline=None)
@given(
    st.text(alphabet="abc /.-_üЖ", min_size=1).filter(lambda s: s.strip() == s), st.text(alphabet="ab c.8-", max_size=9)
)
def test_a_written_link_reads_back(path, alias):
    link = parse_wikilink(wikilink(path + ".md", alias))
    assert link == Wikilink(path, "", " ".join(alias.split()) or None)
