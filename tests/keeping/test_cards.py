"""A card is made once, found wherever it went, kept current in our keys, and gone when its owner says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loravault.errors import UserError
from loravault.index import cards as rows
from loravault.index.library import entries
from loravault.keeping.cards import CardKeeper
from tests.keeping.cardworld import CardWorld, weight_id


@pytest.fixture
def world(tmp_path: Path) -> CardWorld:
    return CardWorld(tmp_path)


INK = "LoraVault/LoRAs/Styles/ink.md"


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
    monkeypatch.setattr("loravault.keeping.cardmaking.walk_notes", lambda *_: pytest.fail("walked"))
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


def test_a_broken_card_is_not_doubled_after_the_index_is_lost_even_without_a_ledger(world):
    world.adapter("Styles/ink.safetensors", 1)
    world.settle()
    world.note(INK, (world.vault / INK).read_bytes().replace(b"rating:\n", b"rating: [oops\n"))
    world.ctx.ledger.path.unlink()
    world.open(forget_index=True)
    world.adapter("Styles/ink.safetensors", 1)
    world.settle()
    assert [path.name for path in world.vault.rglob("*.md")] == ["ink.md"]


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
    assert world.ctx.troubles["cards.folders"].startswith("2 adapters have no cards: ")
    assert "LoraVault/LoRAs/Other" in world.ctx.troubles["cards.folders"]
    assert "cards.write" not in world.ctx.troubles
    in_the_way.unlink()
    world.settle(4)
    assert sorted(Path(rel).stem for rel in world.cards()) == ["a", "b", "x", "y"], "with the names they should have"
    assert "cards.folders" not in world.ctx.troubles


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
