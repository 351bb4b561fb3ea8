"""A card that moved is found again, one that was deleted stays deleted, and one that is asked for comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from loravault.errors import UserError
from tests.keeping.cardworld import INK, CardWorld, weight_id


@pytest.fixture
def world(tmp_path: Path) -> CardWorld:
    return CardWorld(tmp_path)


def test_a_moved_and_renamed_card_is_found_again_and_not_made_anew(world):
    world.adapter("Styles/ink.safetensors", 1)
    world.settle()
    (world.vault / "Art").mkdir()
    (world.vault / INK).rename(world.vault / "Art/My ink.md")
    world.settle()
    assert world.cards() == {"Art/My ink.md": weight_id(1)}
    assert '"op":"card-deleted"' not in world.ctx.ledger.path.read_text()
    world.change(1, rank=4)
    world.settle()
    assert world.properties("Art/My ink.md")["rank"] == 4


@pytest.mark.parametrize("lose", ["nothing", "index", "seen while away"])
def test_a_deleted_card_stays_deleted_until_it_is_asked_for(world, lose):
    world.adapter("Styles/ink.safetensors", 1)
    world.adapter("other.safetensors", 2)
    world.settle()
    if lose == "nothing":
        (world.vault / INK).unlink()
        world.settle(4)
        assert '{"v":1,"op":"card-deleted","lora":"w1-0000000000000001"}' in world.ctx.ledger.path.read_text()
    else:
        (world.vault / INK).unlink()
    world.open(forget_index=lose == "index")
    if lose == "index":
        world.adapter("Styles/ink.safetensors", 1)
        world.adapter("other.safetensors", 2)
    world.keeper.library_changed(None)
    world.settle(4)
    assert list(world.cards()) == ["LoraVault/LoRAs/other.md"]

    reply = world.keeper.recreate("Ink")
    assert reply["cards"] == [INK]
    world.settle()
    assert sorted(world.cards()) == [INK, "LoraVault/LoRAs/other.md"]
    world.open(forget_index=True)
    world.adapter("Styles/ink.safetensors", 1)
    world.adapter("other.safetensors", 2)
    world.settle(4)
    assert sorted(world.cards()) == [INK, "LoraVault/LoRAs/other.md"]


@pytest.mark.parametrize("name", ["ink", None])
def test_who_asks_for_a_card_that_was_just_deleted_gets_it(world, name):
    """Without a running daemon nobody had looked twice: `recreate` said that the card was there, naming no file."""
    world.adapter("Styles/ink.safetensors", 1)
    world.adapter("other.safetensors", 2)
    world.settle()
    (world.vault / INK).unlink()
    assert world.keeper.recreate(name, everything=name is None)["cards"] == [INK]
    world.settle(4)
    assert sorted(world.cards()) == [INK, "LoraVault/LoRAs/other.md"]
    ops = [line for line in world.ctx.ledger.path.read_text().splitlines() if "card-" in line]
    assert "card-deleted" not in ops[-1], ops


def test_asking_for_a_card_makes_no_second_one_where_it_was_moved_or_the_vault_is_away(world):
    world.adapter("Styles/ink.safetensors", 1)
    world.settle()
    (world.vault / INK).rename(world.vault / "My ink.md")
    world.settle()
    with pytest.raises(UserError, match=r"ink has its card: My ink\.md"):
        world.keeper.recreate("ink")
    world.ctx.troubles["vault"] = "The vault is suddenly empty."
    (world.vault / "My ink.md").rename(world.home / "away.md")
    with pytest.raises(UserError, match=r"ink has its card: My ink\.md"):
        world.keeper.recreate("ink")


def test_recreate_says_what_it_cannot_do(world):
    world.adapter("Styles/ink.safetensors", 1)
    world.adapter("a/twin.safetensors", 2)
    world.adapter("b/twin.safetensors", 3)
    world.settle()
    with pytest.raises(UserError, match=r"has its card: LoraVault/LoRAs/Styles/ink\.md"):
        world.keeper.recreate("ink")
    with pytest.raises(UserError, match="a/twin, b/twin"):
        world.keeper.recreate("twin")
    with pytest.raises(UserError, match="closest names are ink"):
        world.keeper.recreate("inc")
    assert "no card was deleted" in world.keeper.recreate(None, everything=True)["message"]
    for rel in list(world.cards()):
        (world.vault / rel).unlink()
    world.settle(4)
    assert world.cards() == {}
    assert len(world.keeper.recreate(None, everything=True)["cards"]) == 3
    assert len(world.cards()) == 3


def test_a_deleted_card_that_comes_back_by_sync_is_a_card_again(world):
    world.adapter("Styles/ink.safetensors", 1)
    world.settle()
    data = (world.vault / INK).read_bytes()
    (world.vault / INK).unlink()
    world.settle(4)
    world.note("Back/ink.md", data)
    world.settle()
    assert world.cards() == {"Back/ink.md": weight_id(1)}
    world.open()
    assert not world.keeper._memory.is_deleted(weight_id(1))


def test_many_cards_deleted_at_once_are_told(world):
    for number in range(12):
        world.adapter(f"{number}.safetensors", number)
    world.settle()
    for rel in world.cards():
        (world.vault / rel).unlink()
    world.settle(4)
    assert "12 cards were deleted" in world.ctx.troubles["cards.deleted"]
    assert "recreate --all" in world.ctx.troubles["cards.deleted"]


def test_an_offline_root_and_a_lost_file_keep_their_card(world):
    world.adapter("Styles/ink.safetensors", 1)
    world.settle()
    before = world.snapshot()
    world.change(1, state="missing")
    world.settle()
    assert world.properties(INK)["state"] == "missing"
    assert world.properties(INK)["lora_file"] == "loras/Styles/ink.safetensors"
    world.clock += 200
    world.change(1, state="ok")
    world.settle()
    assert world.snapshot()[INK][0] == before[INK][0]


def test_an_emptied_note_is_not_a_deletion_and_an_unmarked_one_is(world):
    world.adapter("Styles/ink.safetensors", 1)
    world.settle()
    data = (world.vault / INK).read_bytes()
    world.note(INK, b"")
    world.settle()
    assert world.row(INK) is not None
    world.note(INK, data.replace(b"loravault: card\n", b""))
    world.settle()
    assert world.row(INK) is None
    assert world.keeper._memory.is_deleted(weight_id(1))
    assert (world.vault / INK).read_bytes() == data.replace(b"loravault: card\n", b"")


def test_a_card_made_anew_gets_its_name_back_although_the_page_of_its_pictures_is_still_there(world):
    world.adapter("Styles/ink.safetensors", 1)
    world.settle()
    page = "LoraVault/Gallery/Adapters/ink pictures.md"
    world.note(page, "pictures")
    (world.vault / INK).unlink()
    world.settle(4)
    assert world.keeper.recreate("ink")["cards"] == [INK]
    (world.vault / INK).rename(world.vault / "My ink.md")
    world.settle()
    world.adapter("Other/ink.safetensors", 2)
    world.keeper.library_changed(None)
    world.settle()
    assert list(world.cards()) == ["LoraVault/LoRAs/Other/ink (LoRA).md", "My ink.md"], "that page is My ink's"
