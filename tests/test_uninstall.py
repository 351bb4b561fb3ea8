"""Leaving a vault: what is ours and unchanged goes into the trash, whatever somebody wrote stays, byte for byte."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from loravault import resources
from loravault.config import load, save_vault
from loravault.errors import AlreadyRunning
from loravault.index.library import entries
from loravault.jobs import pending
from loravault.keeping.cardmemory import CardMemory
from loravault.keeping.cardnames import CallNames
from loravault.pages import bases, own
from loravault.pages.cards import CardNames, card_update, render_card
from loravault.uninstall import UninstallPlan, carry_out, plan_uninstall
from loravault.untouched import is_untouched, without_ours
from loravault.vault.answers import WRITTEN_KEYS, Answer
from loravault.vault.ledger import Ledger
from loravault.vault.note import parse_note
from tests.answering import apply_answers
from tests.world import World

F = "LoraVault"
COVER = f"{F}/Images/Covers/lv-cover-{'a' * 16}-{'1' * 8}.webp"


class Left:
    """A vault that loravault has served: a request with an answer, pages, a template, a card, a cover."""

    def __init__(self, home: Path) -> None:
        self.world = world = World(home)
        self.env = {"LORAVAULT_CONFIG_DIR": str(home / "config"), "LORAVAULT_STATE_DIR": str(home / "state")}
        save_vault(world.config, self.env)
        world.adapter("Styles/ink.safetensors", ss_output_name="ink")
        world.request("Cat.md", "a red cat", seed=42)
        world.note("mine.md", "my own words\n")
        daemon = world.daemon(only={"Cat.md"})  # this test places cards and pages itself
        try:
            daemon.refresh()
            world.finish(daemon, "Cat.md")
            self.card(daemon)
        finally:
            daemon.close()
        (template,) = sorted((resources.templates() / "notes").glob("*.md"))[:1]
        world.note(f"{F}/Templates/{template.name}", template.read_bytes())
        world.note(f"{F}/Gallery/All.md", own.seal("---\nlv: x\n---\npictures\n"))
        world.note(f"{F}/LoRAs.base", bases.seal("views: []\n"))
        world.note(COVER, b"cover")

    def card(self, daemon: object) -> None:
        with daemon.ctx.index.session() as session:  # type: ignore[attr-defined]
            (self.entry,) = entries(session)
        names = CardNames(F, self.world.vault.name, f"{F}/LoRAs/Styles/ink.md", CallNames(()).of(self.entry), None)
        self.names = names
        self.world.note(names.card, render_card(self.entry, names, resources.templates()).data)

    def plan(self, **options: bool) -> UninstallPlan:
        return plan_uninstall(load(self.world.vault, self.env), self.env, **options)

    def tree(self) -> dict[str, bytes]:
        """Every file, state and configuration included."""
        return {
            path.relative_to(self.world.home).as_posix(): path.read_bytes()
            for path in sorted(self.world.home.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Left:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    return Left(tmp_path)


def kinds(plan: UninstallPlan) -> list[str]:
    return sorted(one.kind for one in plan.go)


def test_a_plan_changes_nothing(left: Left) -> None:
    before = {rel: data for rel, data in left.tree().items() if "sqlite" not in rel}
    plan = left.plan(results=True, images=True)
    assert kinds(plan) == ["base", "card", "cover", "page", "picture", "template"]
    assert {rel: data for rel, data in left.tree().items() if "sqlite" not in rel} == before


def test_what_is_ours_goes_into_the_trash_and_what_is_theirs_stays(left: Left) -> None:
    world = left.world
    picture = next(world.vault.rglob("lv-2*.webp"))
    note = world.read("Cat.md")
    mine = world.note(f"{F}/Gallery/Mine.md", "my page\n")
    world.note(f"{F}/LoraVault status.md", own.seal("---\nlv: x\n---\nx\n").decode())  # stands in for the dashboard
    edited = world.note(f"{F}/Gallery/Edited.md", own.seal("---\nlv: x\n---\nx\n") + b"my words\n")
    done = carry_out(left.plan(), left.env)
    assert done.finished
    assert done.moved == 6
    assert world.read("Cat.md") == note, "results are the user's record"
    assert picture.exists()
    assert mine.exists()
    assert edited.exists()
    kept = {path.relative_to(world.vault / F).as_posix() for path in (world.vault / F).rglob("*") if path.is_file()}
    assert kept == {"Gallery/Mine.md", "Gallery/Edited.md", picture.relative_to(world.vault / F).as_posix()}
    trash = world.vault / done.trash
    assert (trash / F / "LoRAs.base").exists()
    assert (trash / left.names.card).exists()
    assert not (world.home / "config" / "config.toml").exists()
    assert not list((world.home / "state").glob("*"))
    assert (world.loras / "Styles/ink.safetensors").exists()


def test_results_and_pictures_go_if_asked_and_a_copy_of_each_note_is_kept(left: Left) -> None:
    world = left.world
    before = (world.vault / "Cat.md").read_bytes()
    done = carry_out(left.plan(results=True, images=True), left.env)
    assert done.finished
    assert done.notes == 1
    after = (world.vault / "Cat.md").read_bytes()
    assert parse_note(after).regions == ()
    assert b"lv_" not in after
    assert b"a red cat" in after
    assert after == without_ours(before)
    assert (world.vault / done.trash / "Cat.md").read_bytes() == before
    assert not (world.vault / F).exists()


def test_an_edited_result_stays_and_keeps_its_picture(left: Left) -> None:
    world = left.world
    text = world.read("Cat.md").replace("|256]]", "|512]]")
    world.note("Cat.md", text)
    plan = left.plan(results=True, images=True)
    assert "picture" not in kinds(plan)
    assert any(why == "a note that stays shows it" for _, why in plan.stay)
    carry_out(plan, left.env)
    assert "|512]]" in world.read("Cat.md")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\nmy own words\n",
        lambda text: text.replace("favourite: false", "favourite: true"),
        lambda text: text.replace("---\n", "---\nmine: 1\n", 1),
        lambda text: text.replace("rating:", "rating: 5", 1),
    ],
)
def test_a_card_that_somebody_wrote_into_stays(left: Left, change: object) -> None:
    path = left.world.vault / left.names.card
    new = change(path.read_text())  # type: ignore[operator]
    assert new != path.read_text()
    path.write_text(new)
    plan = left.plan()
    assert "card" not in kinds(plan)
    assert (left.names.card, "you wrote in it, or it is not as we made it") in plan.stay


@pytest.mark.parametrize("eol", [b"\n", b"\r\n"])
def test_what_we_added_to_an_adopted_note_leaves_it_and_nothing_else_does(left: Left, eol: bytes) -> None:
    """Fourteen properties of ours stayed in such a note. What stood there before, or was changed, is its owner's."""
    mine = b"---\nloravault: card\nlora_file: ink\nrank: captain\nnetwork:\nsize_mb: 0 # mine\n# words\n---\nmine\n"
    given = card_update(mine.replace(b"\n", eol), left.entry, COVER)
    assert given.data is not None
    assert given.cover_filled
    assert len(parse_note(given.data).frontmatter.properties) > 10
    memory = CardMemory(Ledger(left.world.config.state_dir / "ledger.jsonl"))
    memory.adopted(left.entry.weight_id, given.adopted, given.theirs)
    memory.filled_covers([left.entry.weight_id])
    given_data = given.data.replace(b"state: ok", b"state: loved")
    left.world.note("Mine.md", given_data)
    assert "Mine.md" not in left.plan().notes
    _, after = left.plan(results=True).notes["Mine.md"]
    network = f" {left.entry.network}" if left.entry.network else ""
    expected = mine.replace(b"lora_file: ink", b"lora_file: loras/Styles/ink.safetensors")
    expected = expected.replace(b"network:", f"network:{network}".encode())
    cover = b"" if left.entry.weight_id == f"w1-{'a' * 16}" else f'cover: "[[{COVER}]]"\n'.encode()
    assert after == expected.replace(b"---\nmine", b"state: loved\n" + cover + b"---\nmine").replace(b"\n", eol)
    assert carry_out(left.plan(results=True), left.env).finished
    assert (left.world.vault / "Mine.md").read_bytes() == after


def test_a_card_that_was_not_adopted_keeps_every_property(left: Left) -> None:
    """Somebody wrote into a card that we made: it stays as it is, the facts about its file as well."""
    path = left.world.vault / left.names.card
    path.write_text(path.read_text() + "\nmy words\n")
    assert left.names.card not in left.plan(results=True).notes


def test_a_cover_that_a_card_shows_stays_with_it(left: Left) -> None:
    path = left.world.vault / left.names.card
    path.write_text(path.read_text() + f"\nmy words ![[{COVER}]]\n")
    assert "cover" not in kinds(left.plan())


def test_our_own_keys_do_not_make_a_card_theirs(left: Left) -> None:
    path = left.world.vault / left.names.card
    text = path.read_text().replace("state: ok", "state: missing").replace("sha256:", "sha256: abc", 1)
    assert text != path.read_text()
    path.write_text(text)
    assert "card" in kinds(left.plan())


def test_without_an_index_it_is_not_known_who_wrote_a_card(left: Left) -> None:
    for path in (left.world.home / "state").rglob("index.sqlite*"):
        path.unlink()
    plan = left.plan()
    assert "card" not in kinds(plan)
    assert any("reindex" in why for _, why in plan.stay)


def test_a_blank_field_may_have_become_known(left: Left) -> None:
    names = left.names
    fresh = render_card(left.entry, names, resources.templates())
    more = fresh.data.replace(b"negative:\n", b'negative: "blurry"\n')
    assert more != fresh.data
    assert not is_untouched(fresh.data, more, left.entry, ())
    assert is_untouched(fresh.data, more, left.entry, ("negative",))


def test_beside_a_daemon_nothing_is_removed(left: Left) -> None:
    plan = left.plan()
    daemon = left.world.daemon()
    try:
        with pytest.raises(AlreadyRunning, match="stop it first"):
            carry_out(plan, left.env)
    finally:
        daemon.close()
    assert (left.world.vault / left.names.card).exists()


def test_what_somebody_writes_after_the_list_was_shown_stays(left: Left) -> None:
    """Words that were written into a card between the list and `--yes` went into the trash with it."""
    world = left.world
    plan = left.plan(images=True)
    card = world.vault / left.names.card
    card.write_bytes(card.read_bytes() + b"\nMY PRECIOUS WORDS\n")
    world.note(COVER, b"my own picture")
    note = world.note("New.md", f"I like it ![[{COVER}]]\n")
    done = carry_out(plan, left.env)
    assert not done.finished
    assert {name: why.partition(":")[0] for name, why in done.stayed} == {
        left.names.card: "changed since it was listed",
        COVER: "changed since it was listed",
    }
    assert b"MY PRECIOUS WORDS" in card.read_bytes()
    assert (world.vault / COVER).read_bytes() == b"my own picture"
    assert note.exists()
    assert (world.home / "config" / "config.toml").exists(), "the ledger stays as well, so `undo` takes back the rest"
    assert carry_out(left.plan(), left.env).finished
    assert b"MY PRECIOUS WORDS" in card.read_bytes()


def test_a_picture_that_a_new_note_shows_stays(left: Left) -> None:
    """It was unused when the list was made; the file itself has not changed."""
    world = left.world
    plan = left.plan(results=True, images=True)
    picture = next(world.vault.rglob("lv-2*.webp"))
    world.note("New.md", f"I like it ![[{picture.name}]]\n")
    done = carry_out(plan, left.env)
    assert [why for _, why in done.stayed] == ["changed since it was listed: a note that stays shows it"]
    assert picture.exists()


def test_what_cannot_be_ours_is_not_read(left: Left) -> None:
    """With the folder of LoRAs inside ours, every one of them was read whole: 1.5 GB of memory for one."""
    home = left.world.vault / F / "LoRAs"
    for name in ("big.safetensors", "big.md", "big.base"):
        with (home / name).open("wb") as file:
            file.truncate(1_500_000_000)
    if hasattr(os, "mkfifo"):
        os.mkfifo(home / "pipe.md")  # reading it would wait for ever
    tracemalloc.start()
    try:
        plan = left.plan(results=True)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
    why = {rel.rpartition("/")[2]: reason for rel, reason in plan.stay}
    assert why["big.safetensors"] == "it is no file that we make"
    assert why["big.md"] == why["big.base"] == "it cannot be read (it is larger than a note can be)"
    assert "pipe.md" not in why


def test_what_could_not_go_keeps_the_settings(left: Left) -> None:
    plan = left.plan()
    (left.world.vault / left.names.card).unlink()
    done = carry_out(plan, left.env)
    assert not done.finished
    assert [name for name, _ in done.stayed] == [left.names.card]
    assert (left.world.home / "config" / "config.toml").exists()
    assert carry_out(left.plan(), left.env).finished


def test_other_vaults_keep_their_settings(left: Left, tmp_path: Path) -> None:
    other = World(tmp_path / "other")
    save_vault(other.config, left.env)
    carry_out(left.plan(), left.env)
    assert load(other.vault, left.env).vault == other.vault
    assert str(left.world.vault) + '"' not in (tmp_path / "config" / "config.toml").read_text()


@pytest.mark.parametrize("eol", ["\n", "\r\n"])
def test_taking_results_out_is_the_inverse_of_putting_them_in(eol: str) -> None:
    text = eol.join(
        [
            "---",
            "loravault: generate",
            "run: false",
            "mine: 1",
            "---",
            "# x",
            "",
            "```prompt",
            "a cat",
            "```",
            "after",
            "",
        ]
    )
    note = parse_note(text.encode())
    fence = note.prompts[0]
    answer = Answer("3fa81c20", fence.block_hash, 0, "result", ("[!lora-result]+ 1 image", "![[x.webp]]"))
    given = apply_answers(text.encode(), [answer], {"lv_status": "done", "lv_job": "3fa81c20@here"})
    assert given != text.encode()
    assert without_ours(given) == text.encode()


def test_properties_that_only_look_like_ours_stay() -> None:
    """`lv_mood: good` of a note that had never been a request was taken out."""
    never = b"---\nlv_mood: good\nLV_level: 3\nlv_status: mine\ntitle: x\n---\nI never used a LoRA here\n"
    assert without_ours(never) == never
    request = b"---\nloravault: generate\nlv_mood: good\nLV_Status: done\nlv_job: 1@here\nlv_cover: x\n---\ntext\n"
    assert without_ours(request) == b"---\nloravault: generate\nlv_mood: good\n---\ntext\n"


def test_what_goes_is_what_answers_write() -> None:
    """A property that answers learn to write must be one that leaves again."""
    written = {name for name in pending.properties.__code__.co_consts if str(name).startswith("lv_")}
    assert written == WRITTEN_KEYS


def test_json_properties_are_left_alone() -> None:
    data = b'---\n{"loravault": "generate", "lv_status": "done", "x": 1}\n---\ntext\n'
    assert without_ours(data) is None
    assert without_ours(b"no properties") == b"no properties"
