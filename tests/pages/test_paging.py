"""Where galleries are cut: sizes in bounds, nothing lost, and one entry more or less moves little."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from loravault.pages.paging import LEAST, LEAST_PIECE, MOST, cuts, mark, stream_cuts

counts = st.integers(0, 700)


def idents(count: int, seed: int = 0) -> list[str]:
    return [f"w1-{seed}-{number}" for number in range(count)]


@given(counts, st.integers(0, 50))
def test_pages_are_the_whole_in_order_and_in_bounds(count: int, seed: int) -> None:
    for pages, least in ((cuts(idents(count, seed)), LEAST), (stream_cuts(idents(count, seed)), LEAST_PIECE)):
        assert [at for page in pages for at in range(page.start, page.stop)] == list(range(count))
        sizes = [page.stop - page.start for page in pages]
        assert all(1 <= size <= MOST for size in sizes)
        assert all(size >= least for size in sizes[:-1])


@given(st.integers(100, 700), st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_an_insert_leaves_most_pages_as_they_are(count: int, seed: int, chance: random.Random) -> None:
    """Told as contents: a page is the set of what stands on it."""
    before = idents(count, seed)
    after = before.copy()
    after.insert(chance.randrange(count + 1), f"new-{seed}")
    old, new = ({tuple(some[page]) for page in cuts(some)} for some in (before, after))
    assert len(new - old) <= 6


def test_inserts_change_two_pages_on_average() -> None:
    """The bound above is for the worst luck; what users pay is this. Cutting by counting would change 13 of 25."""
    chance = random.Random(7)
    changed = []
    for seed in range(150):
        before = idents(1000, seed)
        after = before.copy()
        after.insert(chance.randrange(1001), "new")
        old, new = ({tuple(some[page]) for page in cuts(some)} for some in (before, after))
        changed.append(len(new - old))
    assert sum(changed) / len(changed) < 2.0


@given(st.integers(1, 400), st.integers(0, 50))
def test_a_growing_stream_changes_at_its_end_only(count: int, seed: int) -> None:
    """All but the last three pages stay byte for byte while pictures are made."""
    whole = idents(count + 1, seed)
    old, new = (stream_cuts(some) for some in (whole[:-1], whole))
    assert new[:-3] == old[: max(0, len(new) - 3)]


@given(st.integers(0, 400), st.integers(0, 50))
def test_the_newest_page_of_a_stream_shows_more_than_a_few(count: int, seed: int) -> None:
    pages = stream_cuts(idents(count, seed))
    if pages:
        assert pages[-1].stop - pages[-1].start >= min(count, 24)


def test_marks_are_stable_over_versions() -> None:
    """Names of pages are made of them."""
    assert (mark("w1-0011223344556677"), mark("ä")) == ("9ed7cb30", "e1beef6f")
