"""Gallery pages byte for byte, and that they show everything once whatever the order it came in."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loravault import resources
from loravault.pages import galleries, own
from loravault.pages.galleries import Page, Shelf
from loravault.pages.tiles import Picture, Tile, tile_of
from loravault.vault.names import name_key
from tests.pages.shelves import VIEW, entry, picture

GOLDEN = Path(__file__).parent / "golden"

STYLES = [
    tile_of(entry("ink_outline", "Styles", title="Ink outline", favourite=True)),
    tile_of(entry("ghibli (retro) #2", "Styles", card="LoraVault/LoRAs/Styles/ghibli (retro) 2.md")),
    tile_of(entry("a [b] | c", "Styles", card="LoraVault/LoRAs/Styles/a (b) c.md", state="missing")),
    tile_of(entry("paper", "Styles", cover=None, trigger_words=("paper style", "cut: paper cut, red"), weight=0.8)),
    tile_of(entry("uncarded", "Styles", card=None, variant="pony")),
    tile_of(entry("bare", "Styles", card=None, cover=None, rank=None)),
]
CALLED = {"ink_outline": STYLES[0], "paper": STYLES[3]}


def golden(name: str, page: Page) -> None:
    """Compare with tests/pages/golden; LORAVAULT_GOLDEN=write makes them anew, to be looked at before a commit."""
    data = galleries.render(page, VIEW, resources.templates())
    file = GOLDEN / name
    if os.environ.get("LORAVAULT_GOLDEN") == "write":
        file.write_bytes(data)
    assert data == file.read_bytes()
    assert own.is_ours(data)


def test_a_folder() -> None:
    pages = galleries.catalogue(VIEW, galleries.category_path("LoraVault", "Styles"), "Styles", STYLES)
    assert [page.path for page in pages] == ["LoraVault/Gallery/Folders/Styles folder.md"]
    golden("folder.md", pages[0])


def test_a_family_of_several_pages() -> None:
    tiles = [tile_of(entry(f"lora {number:03d}", "A/B")) for number in range(150)]
    pages = galleries.catalogue(VIEW, galleries.family_path("LoraVault", "sdxl"), "SDXL", tiles)
    assert len(pages) == 4
    golden("family-1.md", pages[0])
    golden("family-2.md", pages[1])


def test_a_month() -> None:
    some = [Picture(picture(number)) for number in (1, 2, 1003, 2004)]
    (page,) = galleries.month(VIEW, galleries.month_path("LoraVault", "2026-11"), "2026-11", some)
    golden("month.md", page)


def test_an_adapter_with_many_pictures() -> None:
    path = "LoraVault/Gallery/Adapters/ink_outline pictures.md"
    some = [Picture(picture(number)) for number in range(130)]
    first, *_, last = galleries.of_adapter(VIEW, path, CALLED["ink_outline"], some)
    assert first.path == path
    golden("adapter-1.md", first)
    golden("adapter-last.md", last)


def test_an_adapter_without_pictures_says_so_and_how_to_make_one() -> None:
    (page,) = galleries.of_adapter(VIEW, "LoraVault/Gallery/Adapters/paper pictures.md", CALLED["paper"], [])
    golden("adapter-empty.md", page)


def test_the_index() -> None:
    shelves = {
        "Base models": [
            Shelf("Flux.1", "LoraVault/Gallery/Families/Flux.1 gallery.md", 2),
            galleries.shelf("SDXL", "LoraVault/Gallery/Families/SDXL gallery.md", STYLES),
            Shelf("Wan", "LoraVault/Gallery/Families/Wan gallery.md", 1),
        ],
        "Folders": [Shelf("Styles", "LoraVault/Gallery/Folders/Styles folder.md", 6)],
        "Months": [Shelf("November 2026", "LoraVault/Gallery/Months/Made in 2026-11.md", 4)],
    }
    golden("index.md", galleries.index(VIEW, shelves, 6, 4))
    golden("index-empty.md", galleries.index(VIEW, {}, 0, 0))


@given(st.integers(0, 200), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_pages_are_a_pure_function_and_show_everything_once(count: int, chance: random.Random) -> None:
    """The order in which a scan found things is not in the pages."""
    tiles = [tile_of(entry(f"lora {number % 40}", f"{number}")) for number in range(count)]
    shots = [Picture(picture(number * 7, 1 + number % 2)) for number in range(count)]
    plans = []
    for _ in range(2):
        catalogue = galleries.catalogue(VIEW, "F/Gallery/X.md", "X", tiles)
        pictures = galleries.of_adapter(VIEW, "F/Gallery/Y pictures.md", STYLES[0], shots)
        plans.append((catalogue, pictures))
        chance.shuffle(tiles)
        chance.shuffle(shots)
    assert plans[0] == plans[1]
    catalogue, pictures = plans[0]
    assert sorted(tile.weight_id for page in catalogue for tile in page.tiles) == sorted(t.weight_id for t in tiles)
    assert sorted(shot.path for page in pictures for shot in page.pictures) == sorted(shot.path for shot in shots)
    for page in (*catalogue, *pictures):
        assert len(page.tiles) <= 60
        assert len(page.pictures) <= 60
    paths = [name_key(page.path) for page in (*catalogue, *pictures)]
    assert len(set(paths)) == len(paths)


@given(st.integers(20, 250), st.integers(0, 10**9), st.booleans())
@settings(max_examples=30)
def test_one_more_changes_few_pages(count: int, seed: int, is_picture: bool) -> None:
    """Counted as files that would be written or removed, of up to 17."""

    def plan(numbers: range | list[int]) -> dict[str, Any]:
        if is_picture:
            shots = [Picture(picture(number)) for number in numbers]
            return {page.path: page for page in galleries.of_adapter(VIEW, "Y pictures.md", STYLES[0], shots)}
        tiles = [tile_of(entry(f"lora {number:05d}", str(seed))) for number in numbers]
        return {page.path: page for page in galleries.catalogue(VIEW, "X.md", "X", tiles)}

    numbers = list(range(0, 2 * count, 2))
    before, after = plan(numbers), plan([*numbers, seed % count * 2 + 1])
    changed = {path for path in before | after if before.get(path) != after.get(path)}
    assert len(changed) <= 12


def test_the_newest_picture_changes_the_first_page_alone() -> None:
    """What happens for every picture that is made, but for the moments at which a page begins."""
    quiet = 0
    for count in range(200, 300):
        old, new = (
            {p.path: p for p in galleries.month(VIEW, "M.md", "2026-11", [Picture(picture(k)) for k in range(n)])}
            for n in (count, count + 1)
        )
        quiet += {path for path in old | new if old.get(path) != new.get(path)} == {"M.md"}
    assert quiet >= 90


def test_a_name_that_the_vault_has_is_not_taken_again() -> None:
    """A second note of one name makes Obsidian rewrite the links to the first."""
    taken = {name_key("SDXL GALLERY")}
    assert galleries.family_path("F", "sdxl", taken) == "F/Gallery/Families/SDXL gallery (LoRA).md"
    assert galleries.family_path("F", "sdxl") == "F/Gallery/Families/SDXL gallery.md"


@pytest.mark.parametrize("category", ["", "a/b", "con", "x" * 300, "[a] #1 | b", "..", "é", "  "])
def test_a_folder_of_any_name_has_a_page_that_can_be_linked(category: str) -> None:
    path = galleries.category_path("F", category)
    name = path.rpartition("/")[2]
    assert not set(name) & set('[]#|^\\:*?"<>')
    assert len(name.encode()) <= 200
    assert path.startswith("F/Gallery/Folders/")


def test_folders_that_files_cannot_tell_apart_share_a_page() -> None:
    assert galleries.category_key("Styles") == galleries.category_key("styles")
    assert galleries.category_key("a?") == galleries.category_key("a*")
    assert galleries.category_key("a/b") != galleries.category_key("ab")


def test_tiles_are_values_that_can_be_compared() -> None:
    """The keeper finds out by comparing whether anything changed."""
    assert tile_of(entry("a")) == tile_of(entry("a"))
    assert isinstance(hash(tile_of(entry("a"))), int)
    assert isinstance(STYLES[0], Tile)
