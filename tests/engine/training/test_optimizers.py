"""Rates of each part, and what takes the place of an optimiser that is not there."""

from __future__ import annotations

import importlib.util
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from loravault.engine.training.optimizers import available, groups_of, make_optimizer, set_rates
from loravault.engine.training.prodigy import Prodigy
from loravault.engine.training.schedules import factor
from loravault.errors import UserError
from tests.engine.training.plans import plan

pytestmark = pytest.mark.engine
CPU, CARD = torch.device("cpu"), torch.device("cuda")


def parameters() -> dict[str, list[nn.Parameter]]:
    return {
        "unet": [nn.Parameter(torch.ones(2, 2))],
        "text_encoder": [nn.Parameter(torch.ones(3))],
        "text_encoder_2": [nn.Parameter(torch.ones(4))],
    }


def test_every_component_has_its_own_rate() -> None:
    groups = groups_of(plan(learning_rate=1e-3, te_rate=2e-4), parameters())
    assert {group["component"]: group["peak"] for group in groups} == {
        "unet": 1e-3, "text_encoder": 2e-4, "text_encoder_2": 2e-4,
    }  # fmt: skip
    assert [group["component"] for group in groups_of(plan(te_rate=0.0), parameters())] == ["unet"]


def test_vectors_of_the_trigger_are_learned_even_if_the_text_encoder_is_left_alone() -> None:
    words = {"words": [nn.Parameter(torch.ones(2))], **parameters()}
    for te_rate, expected in ((2e-4, 2e-4), (0.0, 1e-3)):
        groups = groups_of(plan(learning_rate=1e-3, te_rate=te_rate), words)
        assert {group["component"]: group["peak"] for group in groups}["words"] == expected


def test_two_rates_of_zero_are_refused() -> None:
    with pytest.raises(UserError, match="nothing would be learned"):
        groups_of(plan(learning_rate=0.0, te_rate=0.0), parameters())
    with pytest.raises(UserError, match="not possible"):
        groups_of(plan(learning_rate=-1.0), parameters())


def test_a_share_is_taken_of_each_rate() -> None:
    optimizer, said = make_optimizer(plan(learning_rate=1e-3, te_rate=2e-4), parameters(), CPU)
    set_rates(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([2.5e-4, 5e-5, 5e-5])
    set_rates(optimizer, 1.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)
    assert said is None


def test_8_bit_adamw_gives_way_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never silently, never with a traceback."""
    kind, said = available("adamw8bit", CPU)
    assert kind == "adamw"
    assert said is not None
    assert "NVIDIA" in said
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    kind, said = available("adamw8bit", CARD)
    assert kind == "adamw"
    assert said is not None
    assert "bitsandbytes" in said
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert available("adamw8bit", CARD) == ("adamw8bit", None)


@pytest.mark.parametrize(("kind", "rate"), [("adamw", 0.1), ("adafactor", 0.1), ("prodigy", 1.0)])
def test_every_optimiser_comes_down_a_hill(kind: str, rate: float) -> None:
    """A stretched bowl whose bottom is at 3."""
    some = {"unet": [nn.Parameter(torch.zeros(2, 3))]}
    optimizer, _ = make_optimizer(plan(optimizer=kind, learning_rate=rate, te_rate=0.0), some, CPU)
    stretch = torch.tensor([1.0, 10.0, 0.1])
    (one,) = some["unet"]
    for step in range(300):
        set_rates(optimizer, factor(step, 300, "cosine", 0))
        loss = (stretch * (one - 3).square()).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(loss.detach()) < 0.1 * 2 * 9 * 11.1


class _Scalar:
    """Prodigy for one number, written down from algorithm 4 of the paper without a tensor."""

    def __init__(self, start: float, d0: float) -> None:
        self.x = self.x0 = start
        self.d = self.d0 = d0
        self.m = self.v = self.r = self.s = 0.0
        self.k = 0

    def step(self, g: float, factor: float) -> None:
        b1, b2 = 0.9, 0.999
        b3 = math.sqrt(b2)
        self.k += 1
        rate = self.d * factor * math.sqrt(1 - b2**self.k) / (1 - b1**self.k)
        self.r = b3 * self.r + self.d / self.d0 * rate * g * (self.x0 - self.x)
        self.s = b3 * self.s + self.d / self.d0 * rate * g
        self.m = b1 * self.m + (1 - b1) * self.d * g
        self.v = b2 * self.v + (1 - b2) * (self.d * g) ** 2
        before = self.d
        if self.s:
            self.d = max(self.d, self.r / abs(self.s))
        self.x -= rate * self.m / (math.sqrt(self.v) + before * 1e-8)


def test_prodigy_is_that_of_its_paper() -> None:
    one = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer, oracle = Prodigy([one], d0=1e-6), _Scalar(1.0, 1e-6)
    for step in range(60):
        share = factor(step, 60, "cosine", 5)
        optimizer.param_groups[0]["lr"] = share
        gradient = 2 * (float(one.detach()) - 4.0)
        one.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        oracle.step(2 * (oracle.x - 4.0), share)
        assert float(one.detach()) == pytest.approx(oracle.x, rel=1e-4)
    assert oracle.d > 1e-3


def test_prodigy_finds_the_size_of_its_steps_by_itself() -> None:
    """A hill a thousand times as far away is come down as well, with the same factor."""
    for away in (0.01, 10.0):
        one = nn.Parameter(torch.zeros(4))
        optimizer = Prodigy([one])
        for step in range(400):
            optimizer.param_groups[0]["lr"] = factor(step, 400, "cosine", 0)
            (one - away).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        assert float((one.detach() - away).abs().max()) < 0.2 * away


@given(
    steps=st.integers(1, 5000), warmup=st.integers(0, 500), schedule=st.sampled_from(["constant", "cosine"]),
    data=st.data(),
)  # fmt: skip
def test_schedules_rise_to_one_and_never_leave_0_to_1(
    steps: int, warmup: int, schedule: str, data: st.DataObject
) -> None:
    warmup = min(warmup, steps)
    step = data.draw(st.integers(0, steps - 1))
    here = factor(step, steps, schedule, warmup)  # type: ignore[arg-type]
    following = factor(step + 1, steps, schedule, warmup)  # type: ignore[arg-type]
    assert 0 <= here <= 1
    if step < warmup:
        assert here <= following
    elif schedule == "cosine":
        assert following <= here
        assert factor(steps, steps, "cosine", warmup) == pytest.approx(0.0 if steps > warmup else 1.0, abs=1e-9)
    else:
        assert here == 1


def test_cosine_is_that_of_torch() -> None:
    """Without a warm-up: CosineAnnealingLR down to 0."""
    one = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([one], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    for step in range(20):
        assert factor(step, 20, "cosine", 0) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-6)
        optimizer.step()
        theirs.step()
