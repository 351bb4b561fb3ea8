"""Portions: nothing is lost, doubled or out of order, and none is too large for a statement."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loravault.index.chunks import MOST, chunks


@given(st.integers(0, 4 * MOST))
def test_every_value_comes_once_in_its_order_and_no_portion_is_too_large(count: int) -> None:
    portions = list(chunks(iter(range(count))))
    assert [value for some in portions for value in some] == list(range(count))
    assert all(0 < len(some) <= MOST for some in portions)
    assert len(portions) == -(-count // MOST)
