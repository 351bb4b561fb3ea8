"""Which other cards a training may use, as each kind of worker sees them."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from loravault.engine.devices import choose_device
from loravault.engine.training import cards
from loravault.engine.training.cards import CARDS, VISIBLE, other_cards
from loravault.jobs import workerenv

pytestmark = pytest.mark.engine

CPU = choose_device("cpu")


def others(place: str, **environment: str) -> list[str]:
    device = dataclasses.replace(CPU, place=torch.device(place))
    return [one.environment.get(VISIBLE, "") for one in other_cards(device, environment)]


def test_a_worker_that_sees_all_cards_leaves_its_own_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert others("cuda") == ["1", "2"]
    assert others("cuda:1") == ["0", "2"]
    assert others("cuda", **{VISIBLE: "4, 7"}) == ["7"]
    assert others("cuda:1", **{VISIBLE: "GPU-a,GPU-b"}) == ["GPU-a"]


def test_a_worker_that_sees_its_own_alone_is_told_of_the_others() -> None:
    assert others("cuda", **{VISIBLE: "7", CARDS: "4,7,9"}) == ["4", "9"]
    assert others("cuda", **{VISIBLE: "7"}) == []


def test_a_processor_is_one_card_unless_it_is_said_otherwise() -> None:
    assert others("cpu") == []
    assert others("cpu", **{CARDS: "0,1"}) == []
    assert others("cpu", **{CARDS: "cpu,cpu"}) == [""]
    assert others("mps", **{CARDS: "0,1"}) == []


def test_the_daemon_and_the_engine_mean_the_same() -> None:
    assert (workerenv.VISIBLE, workerenv.CARDS) == (cards.VISIBLE, cards.CARDS)
