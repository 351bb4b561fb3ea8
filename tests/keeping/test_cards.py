"""A card is made once under a name of its own, and kept current in our keys alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from loravault.keeping.cards import CardKeeper
from tests.keeping.cardworld import INK, CardWorld, weight_id


@pytest.fixture
def world(tmp_path: Path) -> CardWorld:
    return CardWorld(tmp_path)


def test_every_adapter_gets_one_card_in_the_folder_of_its_category(world):
    world.adapter("Styles/ink.safetensors", 1)
    world.adapter("top.safetensors", 2)
    world.adapter("gone.safetensors", 3, state="missing")
    world.settle()
    assert world.cards() == {INK: weight_id(1), "LoraVault/LoRAs/top.md": weight_id(2)}


def test_nothing_is_made_before_every_note_was_read(world):
    """A card that is not read yet would get a twin."""
    world.adapter("Styles/ink.safetensors", 1)
    world.read_all = False
    world.settle()
    assert world.cards() == {}
    assert not world.keeper.step(1.0), "what waits for notes is not busy"
    world.read_all = True
    world.settle(1)
    assert list(world.cards()) == [INK]


def test_a_second_run_writes_nothing_and_opens_nothing(world):
    for number in range(30):
        world.adapter(f"a/{number}.safetensors", number)
    world.settle()
    before = world.snapshot()
    world.opened.clear()
    world.keeper.library_changed(None)
    world.settle()
    world.open()
    world.keeper.library_changed(None)
    world.settle()
    assert world.snapshot() == before
    assert world.opened == []


def test_names_are_unique_in_the_vault_whatever_case_or_composition(world):
    world.note("Daily/GHIBLI.md", "my thoughts")
    world.note("Cafe\u0301.md", "nfd")
    for number, name in enumerate(
        ["Styles/ghibli", "Other/Ghibli", "CAF\u00c9", "[PDXL] style #2", "CON", "x" * 300, "🎨 paint", "a.b.c", "."]
    ):
        world.adapter(f"{name}.safetensors", number)
    world.settle()
    stems = sorted(Path(rel).stem for rel in world.cards())
    assert "Ghibli (LoRA)" in stems
    assert "ghibli (LoRA 2)" in stems
    assert "CAF\u00c9 (LoRA)" in stems
    assert "(PDXL) style 2" in stems
    assert "_CON" in stems
    assert "🎨 paint" in stems
    assert "a.b.c" in stems
    assert len(world.cards()) == 9
    assert len({stem.casefold() for stem in stems}) == 9
    assert (world.vault / "Daily/GHIBLI.md").read_text() == "my thoughts"


def test_no_card_takes_the_name_of_a_page_of_ours(world):
    """On a first run no page is there yet: a card was called like the dashboard, and links to that led to it."""
    pages = [
        "LoraVault",
        "LoRA gallery",
        "SDXL gallery",
        "Styles folder",
        "Made in 2026-11",
        "made in an unknown month",
    ]
    for number, name in enumerate([*pages, "Made in Abyss", "yellow folder"]):
        world.adapter(f"Styles/{name}.safetensors", number)
    world.settle()
    stems = {Path(rel).stem for rel in world.cards()}
    assert stems == {*(f"{name} (LoRA)" for name in pages), "Made in Abyss", "yellow folder"}


def test_names_that_the_loop_knows_are_believed_without_a_walk(world, monkeypatch):
    """A walk through ten thousand notes took a third of a second of every batch."""
    monkeypatch.setattr("loravault.keeping.cards.walk_notes", lambda *_: pytest.fail("walked"))
    world.keeper = CardKeeper(
        world.ctx, note_paths=lambda: ["Daily/Ink.md", "LoraVault/Gallery/Adapters/b pictures.md"]
    )
    for number, name in enumerate(["ink", "b", "c"]):
        world.adapter(f"{name}.safetensors", number)
    world.settle()
    world.adapter("Other/c.safetensors", 7)
    world.keeper.library_changed(None)
    world.settle()
    assert {Path(rel).stem for rel in world.cards()} == {"ink (LoRA)", "b", "c", "c (LoRA)"}, "and those just made"


def test_only_our_keys_change_when_hashes_arrive_and_at_most_every_few_minutes(world):
    world.adapter("Styles/ink.safetensors", 1)
    world.settle()
    path = world.vault / INK
    path.write_text(path.read_text().replace("rating:\n", "rating: 4 # mine\n") + "\nMy own words.\n")
    before = path.read_text()
    world.change(1, sha256="ab" * 32, autov2="12345e6789")
    world.settle()
    after = path.read_text()
    assert after == before.replace("sha256:\n", f"sha256: {'ab' * 32}\n").replace("autov2:\n", 'autov2: "12345e6789"\n')

    world.change(1, autov3="cd" * 32)
    while world.keeper.step(1.0):
        pass
    assert path.read_text() == after, "a few minutes have not passed"
    world.change(1, state="missing")
    while world.keeper.step(1.0):
        pass
    assert "state: missing\n" in path.read_text(), "a change of the state does not wait"
    assert f"autov3: {'cd' * 32}\n" in path.read_text()


def test_a_card_that_is_being_edited_is_written_when_it_has_come_to_rest(world, monkeypatch):
    world.adapter("Styles/ink.safetensors", 1)
    world.settle()
    before = (world.vault / INK).read_bytes()
    world.ctx.now = lambda: 0.0
    world.ctx.settle.forget(INK)
    world.change(1, rank=8)
    world.keeper.step(1.0)
    assert (world.vault / INK).read_bytes() == before
    world.clock += 6
    world.keeper.step(1.0)
    assert "rank: 8\n" in (world.vault / INK).read_text()


def test_an_edit_between_reading_and_writing_wins_and_we_come_again(world, monkeypatch):
    world.adapter("Styles/ink.safetensors", 1)
    world.settle()
    path = world.vault / INK
    real = world.ctx.writer.replace

    def edited_first(rel, base, new, rebase=None):
        path.write_bytes(path.read_bytes() + b"\nan edit at the same moment\n")
        monkeypatch.setattr(world.ctx.writer, "replace", real)
        return real(rel, base, new, rebase)

    monkeypatch.setattr(world.ctx.writer, "replace", edited_first)
    world.change(1, rank=8)
    world.settle()
    assert path.read_text().endswith("\nan edit at the same moment\n")
    assert "rank: 8\n" in path.read_text()


def test_the_cover_is_filled_once_kept_current_and_left_alone_when_it_is_the_users(world):
    world.adapter("Styles/ink.safetensors", 1)
    world.settle()
    assert "cover" not in world.properties(INK)
    assert "*No cover yet.*" in (world.vault / INK).read_text()
    first, second = (f"LoraVault/Images/Covers/lv-cover-0000000000000001-{n}.webp" for n in ("aaaaaaaa", "bbbbbbbb"))
    for cover in (first, second):
        world.covers[weight_id(1)] = cover  # a new picture is not kept waiting
        world.keeper.library_changed({weight_id(1)})
        world.settle()
        assert world.properties(INK)["cover"] == f"[[{cover}]]"
        assert f"![[{cover}|320]] ^lv-cover-" in (world.vault / INK).read_text()
    text = (world.vault / INK).read_text()
    world.note(INK, text.replace(f'cover: "[[{second}]]"\n', "").replace("|320]]", "|500]]"))
    mine = (world.vault / INK).read_text()
    world.covers[weight_id(1)] = first
    world.clock += 200
    world.open()
    world.keeper.library_changed({weight_id(1)})
    world.settle()
    assert (world.vault / INK).read_text() == mine, "the user took both away from us"


def test_a_full_disk_is_told_and_tried_again(world, monkeypatch):
    world.adapter("Styles/ink.safetensors", 1)

    def full(_items, _refused=None):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(world.ctx.writer, "create_many", full)
    world.settle()
    assert "No space left" in world.ctx.troubles["cards.write"]
    monkeypatch.undo()
    world.settle(4)
    assert list(world.cards()) == [INK]
    assert "cards.write" not in world.ctx.troubles


@pytest.mark.parametrize("link", [False, True])
def test_a_folder_that_cannot_be_made_keeps_only_its_own_cards_waiting(world, link):
    """A file of the user's named like a category: no adapter of the whole batch ever got a card."""
    for number, name in enumerate(["Styles/a", "Styles/b", "Other/x", "Other/y"]):
        world.adapter(f"{name}.safetensors", number)
    in_the_way = world.note("LoraVault/LoRAs/Other", "my own file")
    if link:
        in_the_way.unlink()
        (world.home / "out").mkdir()
        in_the_way.symlink_to(world.home / "out")
    world.keeper.step(1.0)
    assert not world.keeper.step(1.0), "what waits for its folder is not busy"
    world.settle()
    assert list(world.cards()) == ["LoraVault/LoRAs/Styles/a.md", "LoraVault/LoRAs/Styles/b.md"]
    assert world.ctx.troubles["cards.folders"].startswith("2 LoRAs have no cards: ")
    assert "LoraVault/LoRAs/Other" in world.ctx.troubles["cards.folders"]
    assert "cards.write" not in world.ctx.troubles
    in_the_way.unlink()
    world.settle(4)
    assert sorted(Path(rel).stem for rel in world.cards()) == ["a", "b", "x", "y"], "with the names they should have"
    assert "cards.folders" not in world.ctx.troubles
