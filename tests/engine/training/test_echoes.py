"""What an adapter is held to: the base, wherever its trigger does not stand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from loravault.dataset.survey import survey
from loravault.engine.bases import Base, load_base
from loravault.engine.devices import choose_device
from loravault.engine.training import chance
from loravault.engine.training.batches import Batches
from loravault.engine.training.echoes import EVERYDAY, Echoes, words_of
from loravault.engine.training.learning import objective_for
from loravault.engine.training.loop import Loop
from loravault.engine.training.networks import Network
from loravault.engine.training.reading import read
from loravault.engine.training.store import Store
from loravault.formats.generation import BaseRef
from loravault.formats.training import TrainingSpec
from tests.engine.training.lessons import spec_of
from tests.engine.training.plans import plan
from tests.tiny_families import make_family

pytestmark = pytest.mark.engine
CPU = choose_device("cpu")


@pytest.fixture(scope="module")
def ref(tmp_path_factory: pytest.TempPathFactory) -> BaseRef:
    return make_family(tmp_path_factory.mktemp("echoes") / "sd15", "sd15")


class World:
    """A base, its pictures, and second looks at them."""

    def __init__(self, folder: Path, ref: BaseRef, *, spec: dict[str, Any] | None = None, **changes: Any) -> None:
        self.plan = plan(**{"batch": 4, "preserve": 0.5, "te_rate": 0.0, "resolutions": (64,), **changes})
        made = spec_of(folder, ref)
        renamed = [replace(one, caption=f"a big sks {one.name[0]}, on a beach") for one in made.pictures]
        self.spec: TrainingSpec = replace(made, **{"pictures": tuple(renamed), **(spec or {})})
        self.base: Base = load_base(ref, CPU)
        store = Store(folder / "cache")
        self.batches = Batches(self.spec, self.plan, survey(self.spec.pictures), self.base, store)
        self.echoes = Echoes(self.spec, self.plan, self.base, store, self.batches)
        self.echoes.prepare(lambda: False)
        self.batches.prepare()

    def captions(self) -> set[str]:
        return {self.echoes.caption(picture, variant) for picture in range(5) for variant in range(16)}


def test_the_trigger_gives_way_to_nothing_the_class_or_a_thing(tmp_path: Path, ref: BaseRef) -> None:
    """Never does it stay; every other caption has a thing of every day in its place."""
    world = World(tmp_path, ref, spec={"class_word": "robot"})
    captions = world.captions()
    assert all("sks" not in caption for caption in captions)
    assert "a big robot 0, on a beach" in captions
    things = {caption.split()[2] for caption in captions} - {"robot"}
    assert things
    assert things <= set(EVERYDAY)


def test_of_a_style_nothing_takes_the_place(tmp_path: Path, ref: BaseRef) -> None:
    captions = World(tmp_path, ref, spec={"subject": "style"}).captions()
    assert captions == {f"a big {number}, on a beach" for number in range(5)}


def test_the_demo_base_is_asked_about_what_it_knows(tmp_path: Path) -> None:
    (tmp_path / "vocabulary.json").write_text(json.dumps({"subjects": ["snail"]}))
    assert words_of(tmp_path) == ("snail",)
    for broken in ("", "[]", '{"subjects": []}', '{"subjects": 3}'):
        (tmp_path / "vocabulary.json").write_text(broken)
        assert words_of(tmp_path) == EVERYDAY


@pytest.mark.parametrize(("share", "te_rate"), [(0.5, 0.0), (0.3, 1e-3)])
def test_a_share_of_every_batch_is_looked_at_again(tmp_path: Path, ref: BaseRef, share: float, te_rate: float) -> None:
    """On average; the same pictures whoever asks, with texts or tokens as the batch has them."""
    world = World(tmp_path, ref, preserve=share, te_rate=te_rate)
    counts = []
    for step in range(40):
        batch = world.batches.at(step)
        echo, again = world.echoes.at(step, 0, batch), world.echoes.at(step, 0, batch)
        counts.append(0 if echo is None else len(echo))
        if echo is None or again is None:
            continue
        assert torch.equal(echo.latents, batch.latents[: len(echo)])
        assert echo.texts.keys() == batch.texts.keys()
        assert echo.tokens.keys() == batch.tokens.keys()
        for name in echo.tokens:
            assert torch.equal(echo.tokens[name], again.tokens[name])
        for name in echo.texts:
            assert torch.equal(echo.texts[name], again.texts[name])
            assert not torch.equal(echo.texts[name], batch.texts[name][: len(echo)])
    assert sum(counts) / 40 == pytest.approx(4 * share, rel=0.25)


def test_without_a_trigger_or_a_share_nothing_is_held(tmp_path: Path, ref: BaseRef) -> None:
    assert not World(tmp_path / "a", ref, spec={"trigger": " "}).echoes.wanted
    off = World(tmp_path / "b", ref, preserve=0.0)
    assert off.echoes.at(0, 0, off.batches.at(0)) is None


def test_pictures_of_the_class_are_not_looked_at_again(tmp_path: Path, ref: BaseRef) -> None:
    world = World(tmp_path, ref)
    batch = replace(world.batches.at(0), is_regularisation=torch.ones(4, dtype=torch.bool))
    assert world.echoes.at(0, 0, batch) is None


def test_what_is_held_stays_nearer_to_the_base(tmp_path: Path, ref: BaseRef) -> None:
    """The same steps with and without: how far the answer to a caption without the trigger has moved."""
    moved = {}
    for share in (0.0, 1.0):
        world = World(tmp_path / str(share), ref, preserve=share, te_rate=1e-3, learning_rate=1e-2, rank=8, alpha=8.0)
        base, echoes = world.base, world.echoes
        network = Network(base, world.plan, generator=chance.generator(1, purpose="network"))
        objective = objective_for(base, world.plan)
        loop = Loop(
            base=base, network=network, objective=objective, source=world.batches, plan=world.plan, device=CPU,
            echoes=echoes if echoes.wanted else None,
        )  # fmt: skip
        for _ in range(15):
            loop.advance()
        always = Echoes(world.spec, replace(world.plan, preserve=1.0), base, Store(tmp_path), world.batches)
        echo = always.at(99, 0, world.batches.at(99))
        assert echo is not None
        draw = objective.draw(echo.latents, chance.generator(5, purpose="test"))
        with torch.no_grad():
            said = objective.said(echo, read(base, echo, 1), draw)
            with network.without():
                moved[share] = float((objective.said(echo, read(base, echo, 1), draw) - said).square().mean())
    assert moved[1.0] < 0.75 * moved[0.0]
