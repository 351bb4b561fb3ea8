"""A new card goes to the galleries by hand: what they get is what the index would have told them."""

from __future__ import annotations

from pathlib import Path

import pytest

from loravault.index.library import entries
from loravault.pages.collection import Shown, shown_of
from tests.keeping.cardworld import CardWorld, weight_id

FACTS = {
    "captions": [["sks woman", 9], ["smile, a: b", 7], ["a <lora:x:1> in the [[rain]] at night", 3]],
    "sample_prompts": ["Steps: 20, Sampler: Euler", "a lighthouse <% evil %>"],
    "weight": 0.75,
    "rating": 4,
    "topics": ["ink", "[[x]]"],
    "training": {"steps": 5},
}


@pytest.fixture
def world(tmp_path: Path) -> CardWorld:
    world = CardWorld(tmp_path)
    words = ["[[sks]] style", "red dress: sks woman, red dress", "sks style"]
    world.adapter("Styles/ink.safetensors", 1, facts=FACTS, trigger_words=words, title="Ink <% x %>", variant="pony")
    world.adapter("Other/ink.safetensors", 2, trigger_words=["plain"])
    world.adapter("a=b.safetensors", 3, facts=FACTS)
    world.adapter("copies/ink.safetensors", 1, facts=FACTS, trigger_words=words, state="duplicate")
    world.covers[weight_id(2)] = "LoraVault/Images/Covers/lv-cover-0000000000000002-aaaabbbb.webp"
    return world


def from_index(world: CardWorld, number: int) -> Shown:
    with world.ctx.index.session() as session:
        (entry,) = entries(session, [weight_id(number)])
    return shown_of(entry, world.covers.get(weight_id(number)), world.config.folder)


def test_what_is_handed_over_is_what_the_index_tells(world: CardWorld) -> None:
    world.settle()
    for number in (1, 2, 3):
        shown = world.keeper.take_made(weight_id(number))
        assert shown == from_index(world, number)
        assert shown.claim is not None
        assert world.keeper.take_made(weight_id(number)) is None, "told once"


def test_what_has_changed_since_is_asked_of_the_index(world: CardWorld) -> None:
    world.settle()
    world.change(1, title="Another")
    assert world.keeper.take_made(weight_id(1)) is None
    text = (world.vault / "LoraVault/LoRAs/a=b.md").read_text()
    world.note("LoraVault/LoRAs/a=b.md", text.replace("favourite: false", "favourite: true"))
    world.scan()
    assert world.keeper.take_made(weight_id(3)) is None
    world.keeper.library_changed(None)
    assert world.keeper.take_made(weight_id(2)) is None


def test_a_second_start_hands_nothing_over(world: CardWorld) -> None:
    world.settle()
    world.open()
    world.settle()
    assert len(world.cards()) == 3
    assert [world.keeper.take_made(weight_id(number)) for number in (1, 2, 3)] == [None] * 3
