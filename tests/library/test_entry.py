"""Small things that an entry tells of its files."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from loravault.library.entry import Entry, Place, without_ending

_DAY_NS = 86400 * 10**9


def added(mtime_ns: int) -> str:
    place = Place("main", "ink.safetensors", "ok", 1, mtime_ns)
    return Entry("w1-0", "ink", (place,), "ok", "sdxl", None, None, None, None, None, ()).added


@given(st.integers(-100_000, 100_000), st.integers(-2_000_000, 2_000_000) | st.integers(0, _DAY_NS))
@example(20_000, -1)
@example(20_000, -300)
@example(20_000, 0)
def test_the_day_of_a_file_is_that_of_its_time_to_the_microsecond(day: int, beside: int) -> None:
    """Around midnight it counts how a time is rounded."""
    mtime_ns = day * _DAY_NS // 50 + beside
    assert added(mtime_ns) == datetime.fromtimestamp(mtime_ns / 1e9, UTC).date().isoformat()


@given(
    st.text("aF/.", max_size=4),
    st.sampled_from(["", ".safetensors", ".SafeTensors", ".safetensors.b"]),
)
def test_only_the_ending_goes(start: str, ending: str) -> None:
    assert without_ending(start + ending) == re.sub(r"(?i)\.safetensors\Z", "", start + ending)
