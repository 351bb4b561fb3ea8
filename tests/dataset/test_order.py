"""Batches in an order that only the seed decides, in which every picture counts as its share says."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loravault.dataset.buckets import Item, Placement
from loravault.dataset.order import Order

SETS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=14)


def items(kinds: list[tuple[int, int]]) -> list[Item]:
    """(bucket, times) of each picture."""
    return [
        Item(number, 512, Placement((64 * bucket, 64), (64 * bucket, 64), (0, 0)), times)
        for number, (bucket, times) in enumerate(kinds)
    ]


@given(SETS, st.integers(1, 5), st.integers(0, 2**40))
@settings(max_examples=60)
def test_every_picture_is_seen_as_often_as_its_share_says(
    kinds: list[tuple[int, int]], together: int, seed: int
) -> None:
    """At every moment: the count of a picture is its share of all pictures seen, give or take a round and a batch."""
    order = Order(items(kinds), seed=seed, together=together)
    total = sum(times for _, times in kinds)
    lengths = Counter[int]()
    for bucket, times in kinds:
        lengths[bucket] += times
    seen = Counter[int]()
    for number in range(3 * total):
        seen.update(order.batch(number))
        for one, (bucket, times) in enumerate(kinds):
            due = (number + 1) * together * times / total
            slack = 2 * times + 2 * together * times / lengths[bucket] * len(lengths) + 1
            assert abs(seen[one] - due) <= slack


@given(SETS, st.integers(1, 5), st.integers(0, 2**40))
@settings(max_examples=40)
def test_a_batch_is_full_and_of_one_bucket(kinds: list[tuple[int, int]], together: int, seed: int) -> None:
    order = Order(items(kinds), seed=seed, together=together)
    for number in range(20):
        batch = order.batch(number)
        assert len(batch) == together
        assert len({kinds[one][0] for one in batch}) == 1


@given(SETS, st.integers(1, 3), st.integers(0, 2**40), st.permutations(list(range(0, 200, 7))))
@settings(max_examples=30)
def test_a_batch_does_not_depend_on_what_was_asked_before(
    kinds: list[tuple[int, int]], together: int, seed: int, asked: list[int]
) -> None:
    """A run that goes on at step n, and one that began at 0, see the same pictures."""
    straight = Order(items(kinds), seed=seed, together=together)
    jumping = Order(items(kinds), seed=seed, together=together)
    expected = [straight.batch(number) for number in range(200)]
    assert all(jumping.batch(number) == expected[number] for number in asked)


@given(SETS, st.integers(0, 2**40))
@settings(max_examples=30)
def test_two_processes_share_one_batch(kinds: list[tuple[int, int]], seed: int) -> None:
    """Halves of a batch of four are what two processes with two each learn from."""
    order = Order(items(kinds), seed=seed, together=4)
    halves = [order.batch(number)[rank * 2 : rank * 2 + 2] for number in range(10) for rank in (0, 1)]
    assert [one for half in halves for one in half] == [one for number in range(10) for one in order.batch(number)]


def test_one_bucket_alone_goes_round_after_round() -> None:
    order = Order(items([(1, 1)] * 10), seed=3, together=1)
    rounds = [[order.batch(10 * turn + place)[0] for place in range(10)] for turn in range(5)]
    assert all(sorted(one) == list(range(10)) for one in rounds)
    assert len({tuple(one) for one in rounds}) == 5


def test_another_seed_is_another_order() -> None:
    kinds = [(1, 1)] * 8 + [(2, 1)] * 8
    orders = [[Order(items(kinds), seed=seed, together=2).batch(number) for number in range(8)] for seed in range(5)]
    assert len({str(one) for one in orders}) == 5


def test_buckets_do_not_come_in_turn() -> None:
    """Which one is next is chance, too: else a bucket would always follow the same one."""
    kinds = [(1, 1)] * 8 + [(2, 1)] * 8
    rows = [
        tuple(kinds[Order(items(kinds), seed=seed, together=2).batch(number)[0]][0] for number in range(12))
        for seed in range(6)
    ]
    assert len(set(rows)) > 4


@given(SETS, st.integers(1, 9), st.integers(0, 300))
@settings(max_examples=60)
def test_there_is_a_batch_for_every_number(kinds: list[tuple[int, int]], together: int, count: int) -> None:
    order = Order(items(kinds), seed=1, together=together)
    assert len(order._first(count)) >= count


def test_repeats_are_spread_over_the_round() -> None:
    """Of twelve places, a picture that comes three times stands once in each four, or nearly."""
    order = Order(items([(1, 3)] * 4), seed=1, together=1)
    for turn in range(6):
        row = [order.batch(12 * turn + place)[0] for place in range(12)]
        assert Counter(row) == {0: 3, 1: 3, 2: 3, 3: 3}
        assert all(len(set(row[part : part + 4])) >= 3 for part in (0, 4, 8))


def test_without_pictures_there_is_no_order() -> None:
    with pytest.raises(ValueError, match="no pictures"):
        Order([], seed=0, together=1)
    with pytest.raises(ValueError, match="no pictures"):
        Order(items([(1, 1)]), seed=0, together=0)
