"""What a card says counts in the next picture, also if card and note were saved in the same moment.

The story: a weight was changed on a card, and a note that names the LoRA was ticked in the same second. The note was
looked at first and drawn at the old weight. After a lost index, and in a command without a daemon, no card was read
at all before the first picture.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from loravault.control import Control
from loravault.daemon import Daemon
from loravault.jobs import cardsfirst
from tests.world import FAKE_ENGINE, World, quiet

PROMPT = "a cat <lora:ink>"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world that looks at its files once an hour, with one LoRA that has its card."""
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    world = World(tmp_path, cards=True, rescan_s=3600.0)
    world.adapter("ink.safetensors")
    daemon = world.daemon()
    world.work(daemon, lambda: card(world).is_file() and not daemon.keep() and not daemon.feed.waiting)
    daemon.close()
    return world


def card(world: World) -> Path:
    return world.vault / "LoraVault" / "LoRAs" / "ink.md"


def set_weight(world: World, weight: float) -> None:
    text = card(world).read_text()
    card(world).write_text(re.sub(r"(?m)^weight:.*$", f"weight: {weight}", text))
    assert f"\nweight: {weight}\n" in card(world).read_text()


def drawn_at(world: World, rel: str) -> str:
    found = re.search(r"\|ink\]\] ([\d.]+)", world.read(rel))
    assert found is not None, world.read(rel)
    return found[1]


def at_rest(world: World) -> Daemon:
    """A daemon that has looked at everything."""
    daemon = world.daemon()
    world.work(daemon, lambda: daemon.feed.first_look_is_over and daemon.ctx.looks.finished > 0 and not daemon.keep())
    return daemon


@pytest.mark.parametrize("rel", ["Aa.md", "Zz.md"])
@pytest.mark.parametrize("card_first", [True, False], ids=["card first", "note first"])
def test_a_card_that_was_saved_with_the_note_counts(world: World, rel: str, card_first: bool) -> None:
    daemon = at_rest(world)
    if card_first:
        set_weight(world, 0.3)
    world.request(rel, PROMPT)
    if not card_first:
        set_weight(world, 0.3)
    for changed in (rel, "LoraVault/LoRAs/ink.md"):
        daemon.feed.hint(changed)
    world.finish(daemon, rel)
    daemon.close()
    assert drawn_at(world, rel) == "0.3"


@pytest.mark.parametrize("rel", ["Aa.md", "Zz.md"])
def test_after_a_lost_index_the_cards_are_read_first(world: World, rel: str) -> None:
    set_weight(world, 0.3)
    for part in world.config.state_dir.glob("index.sqlite*"):
        part.unlink()
    world.request(rel, PROMPT)
    daemon = world.daemon()
    world.finish(daemon, rel)
    daemon.close()
    assert drawn_at(world, rel) == "0.3"


def test_a_command_without_a_daemon_reads_the_cards(world: World) -> None:
    set_weight(world, 0.3)
    world.request("Note.md", PROMPT, run=False)
    Control(world.config, FAKE_ENGINE).run_note("Note.md", quiet)
    assert drawn_at(world, "Note.md") == "0.3"


def test_a_run_that_is_found_again_by_reindex_is_drawn_as_the_card_says(world: World) -> None:
    set_weight(world, 0.3)
    for part in world.config.state_dir.glob("index.sqlite*"):
        part.unlink()
    world.note(
        "Note.md",
        "---\nloravault: generate\nrun: false\nlv_job: abcd1234@atelier\nlv_status: queued\n---\n"
        f"```prompt\n{PROMPT}\n```\n",
    )
    Control(world.config, FAKE_ENGINE).reindex(quiet)
    daemon = world.daemon()
    world.finish(daemon, "Note.md")
    daemon.close()
    assert drawn_at(world, "Note.md") == "0.3"


def test_a_card_that_never_comes_to_rest_is_not_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cardsfirst, "RESTLESS_S", 0.5)
    daemon = at_rest(world)
    world.request("Note.md", PROMPT)
    daemon.feed.hint("Note.md")
    texts = [card(world).read_text() + "\n" * n for n in range(2)]
    give_up = time.monotonic() + 20
    while not world.is_answered("Note.md"):
        assert time.monotonic() < give_up, world.story()
        texts.reverse()
        card(world).write_text(texts[0])
        daemon.feed.hint("LoraVault/LoRAs/ink.md")
        daemon.tick()
        time.sleep(0.01)
    daemon.close()
    assert drawn_at(world, "Note.md") == "1"


def test_a_cancel_waits_for_no_card(world: World) -> None:
    world.request("Note.md", PROMPT, cancel=True)
    daemon = world.daemon()
    daemon.ctx.cards_unread = lambda: True
    world.work(daemon, lambda: world.properties("Note.md")["cancel"] is False)
    daemon.close()
    assert world.properties("Note.md")["run"] is False
