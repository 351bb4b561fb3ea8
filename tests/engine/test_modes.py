"""Which way adapters are applied is decided from costs, and the costs are learned. Nothing is drawn here."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.engine.modes import Calls, Mode, Pace, Switch, choose, pays_together, seconds, usual

#: Slow to merge: three seconds for the weights of an SDXL; a step of a second and a half.
SLOW = Pace(forming=1.6e9, copying=4e9, megapixel=6.0)
#: Quick to merge, as a card with the weights in its own memory.
QUICK = Pace(forming=2e11, copying=1e10, megapixel=0.2)
SDXL = Switch(formed=5 * 10**9, copied=228 * 10**6, held=5 * 10**9)

positive = st.floats(1e-3, 1e3)
calls = st.builds(Calls, st.integers(1, 100), st.integers(4096, 2**21), st.integers(1, 8))
modes = st.sampled_from(list(Mode))


def turbo(pictures: int = 1) -> Calls:
    """Four steps each, as distilled models have them."""
    return Calls(steps=4 * pictures, pixels=512 * 512, pictures=1)


def test_a_new_combination_for_each_picture_goes_into_slots_where_merging_is_slow() -> None:
    assert choose(SLOW, SDXL, turbo()) is Mode.SLOTS
    assert choose(QUICK, SDXL, Calls(30, 1024 * 1024, 1)) is Mode.MERGE


def test_many_pictures_with_one_combination_are_merged_on_the_same_device() -> None:
    assert choose(SLOW, SDXL, turbo(pictures=30)) is Mode.MERGE


def test_what_is_merged_already_stays_merged() -> None:
    assert choose(SLOW, replace(SDXL, formed=0, held=0), turbo()) is Mode.MERGE


def test_one_combination_asked_for_picture_by_picture_is_merged_once_that_would_have_paid() -> None:
    """Each picture alone is too little to merge for; together they are not. No more than twice the best is spent."""
    switch, spent, turns = replace(SDXL, copied=0), 0.0, 0
    while choose(SLOW, replace(switch, lost=spent), turbo()) is Mode.SLOTS:
        spent += seconds(SLOW, Mode.SLOTS, switch, turbo())
        turns += 1
        assert turns < 100
    assert turns > 1
    assert spent <= seconds(SLOW, Mode.MERGE, switch, turbo())


def test_weights_that_would_not_fit_twice_are_not_merged() -> None:
    assert choose(QUICK, SDXL, Calls(30, 1024 * 1024, 1), room=10**9) is Mode.SLOTS
    assert choose(QUICK, SDXL, Calls(30, 1024 * 1024, 1), room=6 * 10**9) is Mode.MERGE
    assert choose(QUICK, replace(SDXL, held=0), Calls(30, 1024 * 1024, 1), room=0) is Mode.MERGE


def test_jobs_with_different_adapters_are_drawn_together_where_a_larger_call_is_hardly_slower() -> None:
    """As on a card that one small picture does not fill; not where twice the pictures take twice the time."""
    one, four = Calls(20, 256 * 256, 1), Calls(20, 256 * 256, 4)
    pace = QUICK.after_drawing(Mode.MERGE, one, 0.05)
    wide, narrow = (pace.after_drawing(Mode.MERGE, four, seconds) for seconds in (0.07, 0.2))
    assert pays_together(wide, [SDXL] * 4, [one] * 4, [four])
    assert not pays_together(narrow, [SDXL] * 4, [one] * 4, [four])
    assert not pays_together(replace(narrow, forming=1e9), [SDXL] * 4, [one] * 4, [four]), "each alone in slots"


def test_rates_are_learned_from_what_was_measured() -> None:
    """The same job is decided otherwise once the device has shown that it merges a hundred times faster."""
    assert choose(SLOW, SDXL, turbo()) is Mode.SLOTS
    pace = SLOW
    for _ in range(8):
        pace = pace.after_merging(5 * 10**9, 0.03)
    assert choose(pace, SDXL, turbo()) is Mode.MERGE
    for _ in range(8):
        pace = pace.after_copying(228 * 10**6, 60.0)
    assert pace.copying == pytest.approx(228e6 / 60, rel=0.2)


def test_the_penalty_is_learned_from_steps_of_the_same_kind_only() -> None:
    call = Calls(20, 512 * 512, 2)
    pace = SLOW.after_drawing(Mode.SLOTS, call, 9.0)
    assert pace.penalty == SLOW.penalty, "nothing to compare with"
    assert pace.step(Mode.MERGE, call) == pytest.approx(9.0 / SLOW.penalty[Mode.SLOTS])
    pace = pace.after_drawing(Mode.MERGE, replace(call, pixels=4096), 1.0)
    assert pace.penalty == SLOW.penalty, "of another size"
    pace = pace.after_drawing(Mode.MERGE, call, 6.0)
    for _ in range(12):
        pace = pace.after_drawing(Mode.SLOTS, call, 9.0)
    assert pace.penalty[Mode.SLOTS] == pytest.approx(1.5, rel=0.01)
    assert pace.penalty[Mode.MIXED] == SLOW.penalty[Mode.MIXED]
    assert pace.step(Mode.MERGE, call) == 6.0


@given(modes, calls, positive)
def test_what_was_measured_is_expected_again(mode: Mode, call: Calls, took: float) -> None:
    pace = usual("cpu").after_drawing(mode, call, took)
    assert pace.step(mode, call) == pytest.approx(took)
    assert pace.step(mode, replace(call, pictures=2 * call.pictures)) == pytest.approx(2 * took)


@given(st.lists(st.tuples(modes, calls, positive), max_size=12), calls)
def test_whatever_was_measured_penalties_and_times_stay_believable(
    seen: list[tuple[Mode, Calls, float]], asked: Calls
) -> None:
    pace = usual("cuda")
    for mode, call, took in seen:
        pace = pace.after_drawing(mode, call, took)
    assert pace.penalty[Mode.MERGE] == 1.0
    assert all(1.0 <= factor <= 4.0 for factor in pace.penalty.values())
    assert all(pace.step(mode, asked) > 0 for mode in Mode)


@given(calls, st.integers(0, 10**10), st.integers(0, 10**9), st.floats(0, 100))
def test_more_steps_never_speak_for_slots(call: Calls, formed: int, copied: int, lost: float) -> None:
    switch = Switch(formed, copied, lost=lost)
    if choose(SLOW, switch, call) is Mode.MERGE:
        assert choose(SLOW, switch, replace(call, steps=call.steps + 10)) is Mode.MERGE


def test_nothing_measured_changes_nothing() -> None:
    assert SLOW.after_merging(0, 1.0) is SLOW
    assert SLOW.after_copying(10, 0.0) is SLOW
    assert SLOW.after_drawing(Mode.MERGE, turbo(), 0.0) is SLOW
    assert usual("xpu") is usual("cpu")
