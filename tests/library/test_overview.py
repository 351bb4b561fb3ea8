"""The library in numbers: counted once each, by what is there, and no file is a duplicate of itself."""

from __future__ import annotations

from typing import Any

from loravault.library.entry import Entry, Place
from loravault.library.overview import Counted, Duplicate, duplicates, has_preview, statistics


def place(rel: str, state: str = "ok", size: int = 10, root: str = "r") -> Place:
    return Place(root, rel, state, size, 1)


def entry(name: str, *places: Place, **fields: Any) -> Entry:
    defaults: dict[str, Any] = {
        "state": "ok", "family": "sdxl", "variant": None, "network": "lora", "rank": 4, "alpha": 4.0, "title": None,
        "trigger_words": (),
    }  # fmt: skip
    return Entry(weight_id=f"w1-{name}", name=name, places=places or (place(name),), **{**defaults, **fields})


def test_the_copies_that_waste_the_most_come_first() -> None:
    small = entry("small", place("a"), place("b", "duplicate", 5))
    large = entry("large", place("c", size=100), place("d", size=101), place("e", size=100, root="s"))
    assert duplicates([entry("one"), small, large]) == [
        Duplicate("w1-large", "large", "r/c", ("r/d", "s/e"), 201, differ=True),
        Duplicate("w1-small", "small", "r/a", ("r/b",), 5, differ=True),
    ]


def test_a_file_that_is_gone_is_no_copy_and_one_file_under_two_names_is_none_of_itself() -> None:
    gone = entry("gone", place("a"), place("b", "missing"))
    away = entry("away", place("a", "missing"), place("b", "missing"), state="missing")
    linked = entry("linked", place("c"), place("d"), place("e"))
    inodes = {("r", "c"): (1, 7), ("r", "d"): (1, 7), ("r", "e"): (1, 8)}
    assert duplicates([gone, away]) == []
    assert [one.others for one in duplicates([linked], inodes)] == [("r/e",)]
    nameless = dict.fromkeys(inodes, (0, 0))
    assert [one.others for one in duplicates([linked], nameless)] == [("r/d", "r/e")]


def test_a_preview_is_any_picture() -> None:
    assert not has_preview(entry("a"))
    assert has_preview(entry("a", preview="a.png"))
    assert has_preview(entry("a", cover="[[a.webp]]"))
    assert has_preview(entry("a", facts={"embedded_preview": "ssmd_cover_images"}))
    assert has_preview(entry("a"), {"w1-a"})


def test_everything_is_counted_once() -> None:
    found = statistics(
        [
            entry(
                "a", place("x/a"), place("x/b", "duplicate"), trigger_words=("w",), pictures=3, hashed=True, rating=4.0
            ),
            entry("b", place("x/c"), preview="b.png", favourite=True, card="LoRAs/b.md", pictures=9),
            entry("c", place("d", "missing"), state="missing", family="flux", network=None),
        ],
        [place("bad"), place("worse", "missing")],
        images=11,
        covers={"w1-c"},
    )
    assert (found.adapters, found.files, found.bytes, found.images) == (3, 4, 40, 11)
    assert found.by_family == {"sdxl": Counted(2, 30), "flux": Counted(1, 0)}
    assert list(found.by_network) == ["lora", "unknown"]
    assert found.by_state == {"ok": Counted(2, 30), "missing": Counted(2, 0), "broken": Counted(1, 10)}
    assert found.by_folder == {"x": Counted(2, 30), "": Counted(1, 0)}
    assert (found.with_trigger_words, found.with_preview, found.hashed, found.rated) == (1, 2, 1, 1)
    assert (found.favourites, found.with_card, found.duplicates, found.freeable) == (1, 1, 1, 10)
    assert (found.most_used, found.never_used) == ((("b", 9), ("a", 3)), 1)


def test_an_empty_library_has_numbers_too() -> None:
    assert statistics([]).adapters == 0
