"""Counted chance: the same on every machine, different for everything that differs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loravault.formats.chance import chance, number, permutation, share, shuffled


def test_numbers_are_the_same_forever() -> None:
    """A training that is resumed by a later version must draw what it would have drawn."""
    assert number(42, 7, purpose="noise") == 0xBADC424447EB95FA
    assert permutation(8, 1, 2, purpose="order") == [4, 6, 7, 5, 3, 2, 1, 0]
    assert [round(share(3, n, purpose="flip"), 6) for n in range(3)] == [0.592961, 0.483665, 0.55251]
    assert shuffled("abcdef", chance(5, purpose="tags")) == ["e", "a", "f", "d", "c", "b"]


def test_what_differs_draws_differently() -> None:
    keys = [(1, 23), (12, 3), (1, "23"), (1, 2, 3), ("1, 23",), (123,), ()]
    found = {number(0, *key, purpose=purpose) for key in keys for purpose in ("a", "b")}
    assert len(found) == 2 * len(keys)


@given(st.integers(0, 60), st.integers(0, 2**53), st.integers(0, 1000))
def test_a_permutation_holds_every_number_once(length: int, seed: int, epoch: int) -> None:
    assert sorted(permutation(length, seed, epoch, purpose="order")) == list(range(length))


@given(st.lists(st.text(), max_size=20), st.integers(0, 2**53))
def test_shuffling_loses_nothing(parts: list[str], seed: int) -> None:
    before = list(parts)
    assert sorted(shuffled(parts, chance(seed, purpose="tags"))) == sorted(before)
    assert parts == before


def test_every_place_is_reached_equally_often() -> None:
    """Each of 5 values comes to the front in about a fifth of 4000 shuffles, by either way."""
    for fronts in (
        [permutation(5, 0, n, purpose="order")[0] for n in range(4000)],
        [shuffled(range(5), chance(0, n, purpose="order"))[0] for n in range(4000)],
    ):
        assert all(abs(fronts.count(value) - 800) < 120 for value in range(5))


def test_shares_fill_their_range_evenly() -> None:
    shares = [share(9, n, purpose="flip") for n in range(4000)]
    assert all(0 <= one < 1 for one in shares)
    assert all(abs(sum(low <= one < low + 0.25 for one in shares) - 1000) < 120 for low in (0, 0.25, 0.5, 0.75))
