"""What people make of cards: notes of their own adopted, words flowing back, and what cannot be read left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlmodel import select

from loravault.errors import UserError
from loravault.index import adapters
from loravault.index import cards as rows
from loravault.index.library import entries
from loravault.index.tables import AdapterRow
from tests.keeping.cardworld import INK, CardWorld, weight_id


@pytest.fixture
def world(tmp_path: Path) -> CardWorld:
    return CardWorld(tmp_path)


def test_a_note_of_the_users_own_is_adopted_and_gets_our_keys_only(world):
    world.note("Zettel/Ink style.md", "---\nloravault: card\nlora_file: Styles/ink\nrating: 5\n---\n# Mine\n\ntext\n")
    world.adapter("Styles/ink.safetensors", 1, trigger_words=["sks"], facts={"weight": 0.7})
    world.settle()
    assert world.cards() == {"Zettel/Ink style.md": weight_id(1)}
    text = (world.vault / "Zettel/Ink style.md").read_text()
    assert text.endswith("---\n# Mine\n\ntext\n")
    assert text.startswith("---\nloravault: card\nlora_file: loras/Styles/ink.safetensors\nrating: 5\nfamily: sdxl\n")
    assert "trigger_words" not in text
    with world.ctx.index.session() as session:
        entry = entries(session)[0]
    assert (entry.card, entry.rating, entry.trigger_words, entry.weight) == ("Zettel/Ink style.md", 5, ("sks",), 0.7)


SAMURAI = "---\nloravault: card\nlora_file: ink\nrank: samurai-captain\nfamily: Tokugawa\n---\nmine\n"


def told(world: CardWorld) -> dict[str, str]:
    with world.ctx.index.session() as session:
        return dict(rows.problems(session))


def samurai(world: CardWorld) -> None:
    world.note("My samurai.md", SAMURAI)
    world.adapter("Styles/ink.safetensors", 1, rank=4)
    world.settle()


def ranks(world: CardWorld, rel: str = "My samurai.md") -> tuple[object, object]:
    found = world.properties(rel)
    return found.get("rank"), found.get("family")


@pytest.mark.parametrize("forget_index", [False, True])
def test_what_held_a_value_when_a_note_was_adopted_stays_the_users_for_ever(world, forget_index):
    """A note about a samurai had a `rank`; adopted, it said `rank: 4` without a word. So it is told, and it stays
    after a restart, without the index, under another name and while its file is away."""
    samurai(world)
    mine = ("samurai-captain", "Tokugawa")
    assert ranks(world) == mine
    words = "`rank` holds something of yours (samurai-captain), so it is not kept current; rename it if you want ours"
    assert words in told(world)["My samurai.md"]
    assert "`family` holds something of yours (Tokugawa)" in told(world)["My samurai.md"]
    (world.vault / "My samurai.md").rename(world.vault / "Captain.md")
    world.settle(4)
    world.open(forget_index=forget_index)
    world.adapter("Styles/ink.safetensors", 1, rank=8, network="LoRA")
    world.keeper.library_changed(None)
    world.settle()
    assert ranks(world, "Captain.md") == mine
    assert world.properties("Captain.md")["network"] == "LoRA", "the others are kept current"
    assert words in told(world)["Captain.md"]
    assert json.loads(world.row("Captain.md").said).keys().isdisjoint({"rank", "family"}), "no fact about the file"
    with world.ctx.index.session() as session:
        session.delete(session.exec(select(AdapterRow)).one())
    world.keeper.library_changed(None)
    world.settle()
    world.adapter("Styles/ink.safetensors", 1, rank=9)
    world.keeper.library_changed(None)
    world.settle()
    assert ranks(world, "Captain.md") == mine


def test_a_key_is_ours_from_when_its_owner_gives_it_up(world):
    """Emptied, removed, or set to what we would say: from then on it is kept current, after a restart too."""
    samurai(world)
    path = world.vault / "My samurai.md"
    path.write_text(path.read_text().replace("rank: samurai-captain", "rank: 4").replace("family: Tokugawa\n", ""))
    world.settle(8)
    assert ranks(world) == (4, "sdxl")
    assert "My samurai.md" not in told(world)
    world.open(forget_index=True)
    world.adapter("Styles/ink.safetensors", 1, rank=8, family="flux")
    world.settle()
    assert ranks(world) == (8, "flux")


def test_a_crash_between_the_note_and_the_next_record_forgets_nothing(world):
    """What was the user's is remembered before the note names its LoRA: afterwards it cannot be seen any more."""
    world.note("My samurai.md", SAMURAI)
    world.adapter("Styles/ink.safetensors", 1, rank=4)
    written = world.ctx.writer.replace

    def crash(*args: object) -> None:
        written(*args)
        raise KeyboardInterrupt

    world.ctx.writer.replace = crash
    with pytest.raises(KeyboardInterrupt):
        world.settle()
    assert world.properties("My samurai.md")["lora"] == weight_id(1)
    world.open(forget_index=True)
    world.adapter("Styles/ink.safetensors", 1, rank=8)
    world.settle()
    assert ranks(world) == ("samurai-captain", "Tokugawa")


def test_a_rank_that_is_typed_anew_while_ours_is_written_stays(world):
    """Its owner empties `rank` and, while ours is being put there, writes another word after all."""
    samurai(world)
    path = world.vault / "My samurai.md"
    text = path.read_text()
    path.write_text(text.replace("rank: samurai-captain", "rank:"))
    written = world.ctx.writer.replace

    def late(rel: str, base: bytes, new: bytes, rebase: object) -> None:
        world.ctx.writer.replace = written
        path.write_text(text.replace("samurai-captain", "general"))
        written(rel, base, new, rebase)

    world.ctx.writer.replace = late
    world.settle(8)
    assert world.ctx.writer.replace == written, "it was about to be written"
    assert ranks(world) == ("general", "Tokugawa")


def test_a_second_card_takes_nothing_from_the_first(world):
    """A card of ours beside the adopted one says what we would say; the other's rank is its owner's all the same."""
    samurai(world)
    path = world.vault / "My samurai.md"
    other = world.note("A copy.md", path.read_text().replace("samurai-captain", "4"))
    world.settle(8)
    other.unlink()
    world.settle(8)
    world.change(1, rank=8)
    world.settle(8)
    assert ranks(world) == ("samurai-captain", "Tokugawa")


def test_an_adoption_that_names_nothing_known_is_told_and_taken_up_when_the_file_appears(world):
    world.note("A.md", "---\nloravault: card\nlora_file: later\n---\n")
    world.note("B.md", "---\nloravault: card\n---\n")
    world.settle()
    assert "names no LoRA" in world.row("A.md").problem
    assert "add `lora_file:`" in world.row("B.md").problem
    before = (world.vault / "B.md").read_bytes()
    world.adapter("x/later.safetensors", 7)
    world.keeper.library_changed(None)
    world.settle()
    assert world.cards()["A.md"] == weight_id(7)
    assert (world.vault / "B.md").read_bytes() == before
    assert len(world.cards()) == 2, "no card of our own beside the adopted one"


def test_of_two_cards_the_first_by_path_counts_and_the_other_is_told(world):
    world.adapter("Styles/ink.safetensors", 1)
    world.settle()
    data = (world.vault / INK).read_bytes()
    world.note("Copy of ink.md", data.replace(b"rating:\n", b"rating: 2\n"))
    world.settle()
    assert world.row("Copy of ink.md").problem is None
    assert "its card is Copy of ink.md" in world.row(INK).problem
    with world.ctx.index.session() as session:
        assert entries(session)[0].rating == 2
        assert [path for path, _ in rows.problems(session)] == [INK]
    world.open()
    world.change(1, rank=3)
    world.settle()
    assert (world.vault / INK).read_bytes() == data, "the second is never touched"
    assert world.properties("Copy of ink.md")["rank"] == 3
    (world.vault / "Copy of ink.md").unlink()
    world.settle(4)
    assert world.row(INK).problem is None
    assert world.properties(INK)["rank"] == 3
    assert '"op":"card-deleted"' not in world.ctx.ledger.path.read_text()


def test_a_copy_beside_a_card_does_not_take_its_place(world):
    """`ink 1`, as Obsidian calls a copy, came before `ink.md`: what was written into the original had no effect."""
    world.adapter("Styles/ink.safetensors", 1)
    world.settle()
    data = (world.vault / INK).read_bytes()
    world.note(INK.replace("ink.md", "ink 1.md"), data)
    world.settle()
    world.note(INK, data.replace(b"rating:\n", b"rating: 5\n"))
    world.settle()
    assert f"its card is {INK}" in world.row(INK.replace("ink.md", "ink 1.md")).problem
    with world.ctx.index.session() as session:
        assert [entry.rating for entry in entries(session)] == [5]
        assert [json.loads(row.fields or "{}")["rating"] for row in adapters.named_adapters(session)] == [5]


def test_a_card_that_was_moved_is_never_told_to_be_a_second_one(world):
    """For half a minute after a rename the dashboard said: delete one of the two. There was one."""
    world.adapter("Styles/ink.safetensors", 1)
    world.settle()
    (world.vault / INK).rename(world.vault / "LoraVault/LoRAs/Wet ink.md")
    world.settle(1)
    assert world.row("LoraVault/LoRAs/Wet ink.md").problem is None
    with world.ctx.index.session() as session:
        assert rows.problems(session) == []
        assert [entry.card for entry in entries(session)] == ["LoraVault/LoRAs/Wet ink.md"]
    world.settle(3)
    assert world.cards() == {"LoraVault/LoRAs/Wet ink.md": weight_id(1)}
    assert '"op":"card-deleted"' not in world.ctx.ledger.path.read_text()


def test_what_cannot_be_read_or_kept_is_told_and_never_touched(world):
    world.adapter("Styles/ink.safetensors", 1)
    world.adapter("json.safetensors", 2)
    world.settle()
    broken = (world.vault / INK).read_bytes().replace(b"rating:\n", b"rating: [oops\n")
    world.note(INK, broken)
    flow = f'---\n{{"loravault": "card", "lora": "{weight_id(2)}", "rating": 3, "state": "missing"}}\n---\n'
    world.note("LoraVault/LoRAs/json.md", flow)
    stranger = f"---\nloravault: card\nlora: {weight_id(99)}\n---\n"
    world.note("Stranger.md", stranger)
    world.note("LoraVault/Templates/Card.md", f"---\nloravault: card\nlora: {weight_id(1)}\n---\n")
    conflict = "Ink (Conflicted copy laptop 202611201200).md"
    world.settle()
    world.change(1, rank=9)
    world.change(2, rank=9)
    world.settle()
    assert "cannot be read" in world.row(INK).problem
    assert (world.vault / INK).read_bytes() == broken
    assert (world.vault / "LoraVault/LoRAs/json.md").read_text() == flow
    assert (world.vault / "Stranger.md").read_text() == stranger
    assert conflict not in world.cards()
    with world.ctx.index.session() as session:
        told = dict(rows.problems(session))
        rated = {entry.weight_id: entry.rating for entry in entries(session)}
    assert "JSON" in told["LoraVault/LoRAs/json.md"]
    assert "no file in the loras folders" in told["Stranger.md"]
    assert rated == {weight_id(1): None, weight_id(2): 3}
    assert len(world.cards()) == 3, "no new card beside one that cannot be read"
    with pytest.raises(UserError, match=rf"has a card, {INK}, but it cannot be used: .*cannot be read.*delete it"):
        world.keeper.recreate("ink")  # said that it follows as soon as all notes are read, and it never did


def test_a_broken_card_is_not_doubled_after_the_index_is_lost_even_without_a_ledger(world):
    world.adapter("Styles/ink.safetensors", 1)
    world.settle()
    world.note(INK, (world.vault / INK).read_bytes().replace(b"rating:\n", b"rating: [oops\n"))
    world.ctx.ledger.path.unlink()
    world.open(forget_index=True)
    world.adapter("Styles/ink.safetensors", 1)
    world.settle()
    assert [path.name for path in world.vault.rglob("*.md")] == ["ink.md"]


def test_what_a_person_says_on_a_card_flows_back_and_what_we_left_empty_does_not(world):
    """An empty key that we wrote says nothing; a key that the user emptied says that there is nothing."""
    world.adapter("Styles/ink.safetensors", 1, trigger_words=["sks"])
    world.settle()
    world.change(1, facts=json.dumps({"weight": 0.6, "negative": "blurry"}))
    world.settle()
    with world.ctx.index.session() as session:
        entry = entries(session)[0]
    assert (entry.weight, entry.negative, entry.trigger_words) == (0.6, "blurry", ("sks",))
    path = world.vault / INK
    path.write_text(
        path.read_text().replace("trigger_words:\n  - sks\n", "trigger_words:\n").replace("weight:", "weight: 1.1")
    )
    world.settle()
    world.open(forget_index=True)
    world.adapter("Styles/ink.safetensors", 1, trigger_words=["sks"], facts={"negative": "blurry"})
    world.settle()
    with world.ctx.index.session() as session:
        entry = entries(session)[0]
    assert (entry.weight, entry.negative, entry.trigger_words) == (1.1, "blurry", ())
    assert entry.sources["weight"] == "card"
    assert "## Notes" in entry.card_body
    assert "lv-cover" not in entry.card_body


@pytest.mark.parametrize("eol", ["\r\n", "\n"])
def test_a_card_with_other_line_ends_and_a_bom_keeps_them(world, eol):
    world.adapter("Styles/ink.safetensors", 1)
    world.settle()
    data = b"\xef\xbb\xbf" + (world.vault / INK).read_bytes().replace(b"\n", eol.encode())
    world.note(INK, data)
    world.settle()
    world.change(1, rank=12)
    world.settle()
    assert (world.vault / INK).read_bytes() == data.replace(b"rank:" + eol.encode(), b"rank: 12" + eol.encode())


def test_a_card_with_an_unresolved_merge_stays_the_card_that_it_was(world):
    world.adapter("Styles/ink.safetensors", 1)
    world.settle()
    data = (world.vault / INK).read_bytes()
    world.note(INK, b"<<<<<<< ours\n" + data + b"=======\n" + data + b">>>>>>> theirs\n")
    world.settle()
    assert "merge conflict" in world.row(INK).problem
    assert world.row(INK).weight_id == weight_id(1)
    world.open()
    world.settle(4)
    assert [path.name for path in world.vault.rglob("*.md")] == ["ink.md"]
    world.note(INK, data)
    world.settle()
    assert world.row(INK).problem is None
