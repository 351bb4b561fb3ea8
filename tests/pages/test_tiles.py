"""Tiles and pictures: what strangers wrote is inert, what names a file outside the vault is no cover."""

from __future__ import annotations

import pytest
from hypothesis import given

from loravault.library.entry import Entry
from loravault.pages.examples import example
from loravault.pages.tiles import Picture, by_time, cover_path, rows, span, tile_of
from tests.pages.card_entries import entries
from tests.pages.shelves import entry, picture


@pytest.mark.parametrize(
    ("cover", "path"),
    [
        ("[[LoraVault/Images/Covers/a.webp]]", "LoraVault/Images/Covers/a.webp"),
        ("[[a.PNG|300]]", "a.PNG"),
        ("./Pictures/a.jpg", "Pictures/a.jpg"),
        ("", None),
        (None, None),
        ("[[Some note]]", None),
        ("#ff8800", None),
        ("https://example.com/a.png", None),
        ("file:///etc/a.png", None),
        ("/etc/a.png", None),
        ("a.png]] <% evil %> [[b.png", None),
    ],
)
def test_only_a_picture_of_the_vault_is_a_cover(cover: str | None, path: str | None) -> None:
    assert cover_path(cover) == path


@pytest.mark.parametrize(
    ("card", "headline"),
    [
        ("LoRAs/Styles/ink.md", "Wet Wash"),
        ("LoRAs/Styles/Ink (LoRA 2).md", "Wet Wash"),
        ("LoRAs/LoRA 0000000000000001.md", "Wet Wash"),
        ("Zettel/My samurai.md", "My samurai"),
        ("LoRAs/[[x]] `y`.md", "[ [x] ] 'y'"),
    ],
)
def test_a_name_that_its_owner_gave_the_card_stands_in_galleries(card: str, headline: str) -> None:
    """Somebody renamed the cards of badly named files, and the gallery went on calling them `dl_0007`."""
    assert tile_of(entry("ink", title="Wet Wash").changed(card=card)).headline == headline


def test_the_cover_file_stands_in_only_where_the_card_says_nothing() -> None:
    """An emptied `cover` is the user's wish."""
    assert tile_of(entry("a", cover=None), "found.webp").cover == "found.webp"
    assert tile_of(entry("a", cover=""), "found.webp").cover is None
    assert tile_of(entry("a", cover="[[mine.webp]]"), "found.webp").cover == "mine.webp"


def test_nothing_of_a_stranger_stays_active() -> None:
    evil = "![[secret]] <%* await x() %> #tag [x](javascript:y) `= z` | a"
    tile = tile_of(entry("a", cover=None, title=evil, trigger_words=(evil,), variant=evil, family=evil))
    for text in (tile.headline, tile.details, tile.words, tile.caption, span([tile])):
        for token in ("[[", "<%", " #tag", "](", "`", "|"):
            assert token not in text


def test_a_title_stands_before_the_name_and_a_missing_file_is_told() -> None:
    tile = tile_of(entry("ink_v2", cover=None, title="Ink", state="missing", weight=0.8, variant="pony"))
    assert (tile.headline, tile.trouble) == ("Ink", "missing")
    assert tile.details == "ink_v2 · SDXL · pony · rank 16 · weight 0.8"


def test_tiles_without_a_cover_stay_with_their_neighbours() -> None:
    tiles = [tile_of(entry(f"a{number:02d}", **({"cover": None} if number % 5 == 0 else {}))) for number in range(20)]
    groups = rows(tiles)
    assert [len(group.shown) + len(group.bare) for group in groups] == [12, 8]
    assert [tile.name for tile in groups[0].bare] == ["a00", "a05", "a10"]
    assert groups[1].label == "a12 – a19"


def test_pictures_stand_by_time_then_number() -> None:
    """`-10` comes after `-2`."""
    names = [f"x/lv-20261118-101503-aa-{number}.webp" for number in (10, 2, 1)]
    assert [p.path[-7:-5] for p in sorted(map(Picture, names), key=lambda p: p.order)] == ["-1", "-2", "10"]


@pytest.mark.parametrize("name", ["lv-20261399-101503-aa-1.webp", "lv-odd.webp", "holiday.webp", "lv-cover-1-2.webp"])
def test_a_name_that_does_not_tell_the_time_is_no_error(name: str) -> None:
    assert (Picture(name).month, Picture(name).day) == ("", "")


def test_an_unknown_time_is_said_so() -> None:
    assert [when for when, _ in by_time([Picture("lv-odd.webp")], months=True)] == ["At an unknown time"]


def test_days_are_put_together_in_the_given_order() -> None:
    some = [Picture(picture(number)) for number in (2001, 1002, 1001, 1)]
    assert [(day, len(pictures)) for day, pictures in by_time(some)] == [
        ("3 November 2026", 1),
        ("2 November 2026", 2),
        ("1 November 2026", 1),
    ]
    assert [(month, len(pictures)) for month, pictures in by_time(some, months=True)] == [("November 2026", 4)]


@given(entries())
def test_words_that_fit_every_tag_are_those_of_the_tile(one: Entry) -> None:
    """A card that was just made tells the words of its example, so that they need not be found again."""
    carded = one.changed(card="LoraVault/LoRAs/x.md")
    for tag in ("", "<lora:ink:1>", "<lora:other/ink:0.5>"):
        assert tile_of(carded, None, example(carded, tag).words) == tile_of(carded)
