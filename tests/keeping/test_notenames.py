"""The names that notes have, kept from one look to the next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loravault.keeping.notenames import NoteNames, TakenNames

PAGES = "F/Gallery/Adapters/"


def names_of(*paths: str) -> NoteNames:
    notes = NoteNames(lambda: paths, "F")
    notes.look()
    return notes


def test_only_a_page_of_pictures_that_some_card_embeds_takes_its_name() -> None:
    """What a deleted card left waits for it to be made anew; nobody is asked as long as no name meets a page."""
    asked: list[int] = []

    def embedded() -> list[str]:
        asked.append(1)
        return [f"{PAGES}ink pictures.md"]

    names = TakenNames(
        names_of(f"{PAGES}ink pictures.md", f"{PAGES}Wash pictures.md", "notes/oil.md", "F/Gallery/x gallery.md"),
        embedded,
    )
    assert "oil" in names
    assert "x gallery" in names
    assert "pen" not in names
    assert not asked
    assert "ink pictures" in names
    assert "wash pictures" not in names
    assert len(asked) == 1
    names.add(["wash pictures"])
    assert "wash pictures" in names


def test_a_page_of_a_gallery_takes_the_name_of_no_note_elsewhere() -> None:
    notes = names_of("F/Gallery/sdxl gallery.md", f"{PAGES}ink pictures.md", "Daily/Oil.md")
    assert [key in notes.elsewhere for key in ("sdxl gallery", "ink pictures", "oil")] == [False, False, True]


_FOLDERS = st.sampled_from(["", "a/", "F/Gallery/", "F/Gallery/Families/", PAGES, "F/Gallery", "F/"])
_PATHS = st.tuples(_FOLDERS, st.sampled_from(["ink", "INK", "\xe9", "e\u0301", "oil"])).map(
    lambda two: f"{two[0]}{two[1]}.md"
)


@given(st.lists(st.sets(_PATHS, max_size=8), max_size=6))
def test_what_is_kept_is_what_a_first_look_would_find(looks: list[set[str]]) -> None:
    current: set[str] = set()
    kept = NoteNames(lambda: current, "F")
    for current in looks:
        kept.look()
        anew = names_of(*current)
        assert set(kept.pictures) == set(anew.pictures)
        for key in ("ink", "\xe9", "oil", "INK"):
            assert (key in kept.elsewhere, key in kept) == (key in anew.elsewhere, key in anew)
