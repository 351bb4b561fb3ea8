"""Pages that are made by the thousand are filled into forms: nobody may see a difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loravault import resources
from loravault.pages import cards
from loravault.pages.cards import render_card
from loravault.pages.templates import Templates
from tests.pages.card_entries import NAMES, entries

_TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=8) | st.sampled_from(["%s", "%", "{{ x }}", "0"])
#: What a page of pictures is made of.
_PICTURES: Any = st.fixed_dictionaries(
    dict.fromkeys(("up", "title", "count", "try_it", "prompt", "card", "newer", "older"), _TEXT)
    | {"groups": st.lists(st.tuples(_TEXT, _TEXT), max_size=3)}
)


def templates(folder: Path, text: str) -> Templates:
    (folder / "pages").mkdir()
    (folder / "pages" / "one.md.j2").write_text(text)
    return Templates()


@settings(max_examples=60)
@given(st.lists(_PICTURES, min_size=1, max_size=4))
def test_a_filled_page_is_the_rendered_one(many: list[dict[str, Any]]) -> None:
    """Also those after the first of their shape, which never meet the template."""
    ours, folder = Templates(), resources.templates()
    for values in many:
        rendered = Templates().get(folder, "pictures.md.j2").render(values)
        assert ours.fill(folder, "pictures.md.j2", values) == rendered


@settings(max_examples=60)
@given(entries(), entries())
def test_a_filled_card_is_the_rendered_one(first: Any, second: Any) -> None:
    class Plain(Templates):
        def fill(self, folder: Path, name: str, values: Any) -> str:
            return self.get(folder, name).render(values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cards, "_TEMPLATES", Plain())
        wanted = [render_card(one, NAMES, resources.templates()).data for one in (first, second)]
        patch.setattr(cards, "_TEMPLATES", Templates())
        assert [render_card(one, NAMES, resources.templates()).data for one in (first, second)] == wanted


@pytest.mark.parametrize("text", ["{{ x | upper }}", "{% if x == 'a' %}yes{% endif %}", "{{ x[0] }}"])
def test_a_template_that_does_more_than_print_is_found_out(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"one\.md\.j2"):
        templates(tmp_path, text).fill(tmp_path, "one.md.j2", {"x": "a"})


def test_what_is_in_the_template_stays_as_it_is(tmp_path: Path) -> None:
    """Per cent signs of its own, a value twice, one that is not printed."""
    ours = templates(tmp_path, "100 % %s {{ b }}{{ a }}{{ b }}")
    for a, b in (("1", "2"), ("%d", "%%")):
        assert ours.fill(tmp_path, "one.md.j2", {"a": a, "b": b, "c": "x"}) == f"100 % %s {b}{a}{b}"
