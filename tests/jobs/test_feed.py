"""The first look at a vault ends, whatever its notes do; and a vault that lost its notes is not believed at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from loravault.config import VaultConfig
from loravault.errors import UserError
from loravault.index import cards
from loravault.index.database import Index
from loravault.jobs.context import Context
from loravault.jobs.feed import BUDGET_S, RESTLESS_S, NoteFeed
from loravault.vault.ignore import IgnoreRules
from loravault.vault.ledger import Ledger
from loravault.vault.safewrite import VaultWriter


class Scene:
    """A vault whose clock the test moves."""

    def __init__(self, home: Path) -> None:
        self.vault = home / "vault"
        self.vault.mkdir()
        self.clock = 1000.0
        writer = VaultWriter(self.vault, Ledger(home / "ledger.jsonl"), home / "displaced")
        self.ctx = Context(
            config=VaultConfig(vault=self.vault),
            index=Index(home / "index.sqlite"),
            ledger=writer.ledger,
            writer=writer,
            rules=IgnoreRules(),
            now=lambda: 0.0,  # every note is from the future: it rests when it was watched for long enough
            steady=lambda: self.clock,
        )

    def note(self, rel: str, text: str = "words") -> None:
        path = self.vault / rel
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def remember(self, *rels: str) -> None:
        """An earlier run left these cards in the index."""
        with self.ctx.index.session() as session:
            cards.put(session, [cards.CardRead(rel, 1, 1, "", None, "{}", "") for rel in rels])


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


CARDS = [f"LoraVault/LoRAs/{name}.md" for name in "abcdef"]


def test_a_note_that_never_rests_does_not_hold_up_the_first_look(scene: Scene) -> None:
    """A plugin that rewrote a log all the time: no card was ever made."""
    scene.note("Quiet.md")
    feed = NoteFeed(scene.ctx)
    assert not feed.first_look_is_over, "nothing was looked at"
    scene.note("Log.md")
    feed.rescan()
    given: list[str] = []
    for beat in range(int(RESTLESS_S) + 5):
        scene.note("Log.md", "line\n" * (beat + 1))
        given += feed.ready()
        if beat == 5:
            assert not feed.first_look_is_over
        scene.clock += 1.0
    assert given == ["Quiet.md"]
    assert feed.first_look_is_over
    assert feed.restless == {"Log.md"}
    scene.clock += 5.0
    assert list(feed.ready()) == ["Log.md"], "it is read when it rests"
    assert not feed.restless


def test_what_changes_after_the_first_look_does_not_begin_it_again(scene: Scene) -> None:
    scene.note("Note.md")
    feed = NoteFeed(scene.ctx)
    feed.rescan()
    assert list(feed.ready()) == []
    scene.clock += 5.0
    assert list(feed.ready()) == ["Note.md"]
    assert feed.first_look_is_over
    feed.hint("New.md")
    feed.look_again("Note.md")
    assert feed.waiting
    assert feed.first_look_is_over
    assert set(feed.paths()) == {"New.md", "Note.md"}


def test_many_notes_are_handed_out_in_slices_each_once(scene: Scene) -> None:
    """The first look at twenty thousand notes took four seconds in which no command was obeyed."""
    for name in "abc":
        scene.note(f"{name}.md")
    feed = NoteFeed(scene.ctx)
    feed.rescan()
    list(feed.ready())
    scene.clock += 5.0
    turns: list[list[str]] = []
    while not turns or feed.more:
        turns.append([])
        for rel in feed.ready():
            turns[-1].append(rel)
            scene.clock += BUDGET_S * 0.6
    assert turns == [["a.md", "b.md"], ["c.md"]]
    assert feed.first_look_is_over
    assert not feed.waiting


def test_an_empty_vault_has_been_looked_at_at_once(scene: Scene) -> None:
    feed = NoteFeed(scene.ctx)
    feed.rescan()
    assert feed.first_look_is_over


def test_a_vault_that_lost_most_of_its_notes_is_not_believed_until_they_are_back(scene: Scene) -> None:
    scene.remember(*CARDS)
    scene.note(CARDS[0])
    feed = NoteFeed(scene.ctx)
    assert feed.rescan() == []
    assert "5 of 6 cards and requests are gone" in scene.ctx.troubles["vault"]
    assert not feed.first_look_is_over
    with pytest.raises(UserError, match="reindex"):
        feed.must_be_sound()
    for rel in CARDS[1:]:
        scene.note(rel)
    feed.rescan()
    assert "vault" not in scene.ctx.troubles
    feed.must_be_sound()


def test_the_user_may_say_that_the_loss_is_right(scene: Scene) -> None:
    scene.remember(*CARDS)
    feed = NoteFeed(scene.ctx)
    feed.rescan()
    assert feed.accept_losses() == CARDS
    feed.rescan()
    assert "vault" not in scene.ctx.troubles
    assert feed.accept_losses() == []


def test_notes_that_were_moved_or_are_few_are_not_lost(scene: Scene) -> None:
    scene.remember(*CARDS)
    for rel in CARDS:
        scene.note(rel.replace("LoraVault/LoRAs", "Art"))
    feed = NoteFeed(scene.ctx)
    feed.must_be_sound()
    assert "vault" not in scene.ctx.troubles


def test_three_notes_that_are_gone_prove_nothing(scene: Scene) -> None:
    scene.remember(*CARDS[:3])
    feed = NoteFeed(scene.ctx)
    feed.must_be_sound()
