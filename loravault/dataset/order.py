"""Which pictures stand in the n-th batch: a pure function of the seed and n, so that nothing has to be remembered.

Every bucket is an endless row of its pictures: round after round, each in an order of its own, each picture as often in
a round as its `times` say. Batches are cut from these rows, and are all full: the last pictures of a round are followed
by the first of the next. A bucket's batches come in proportion to its pictures, spread over time by chance. So, at any
moment, no picture has been seen more than about one round and one batch more often than its share.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

from loravault.dataset.buckets import Item, Size
from loravault.formats.chance import share


class Order:
    """The batches of one kind of pictures. Pictures of one batch share a bucket."""

    def __init__(self, items: Sequence[Item], *, seed: int, together: int) -> None:
        """`together`: pictures of a batch, over all processes. Raises `ValueError` without any picture."""
        self._items = items
        self._seed = seed
        self._together = together
        rows: dict[Size, list[int]] = defaultdict(list)
        for number, item in enumerate(items):
            rows[item.placement.bucket].append(number)
        self._rows = dict(sorted(rows.items()))
        self._lengths = {size: sum(items[one].times for one in row) for size, row in self._rows.items()}
        if together < 1 or not any(self._lengths.values()):
            raise ValueError("no pictures to order")
        #: (bucket, number of its batch) in the order of time.
        self._schedule: list[tuple[Size, int]] = []
        # Several buckets, and several batches of each, are at work at the same time.
        self._round = lru_cache(maxsize=4 * len(self._rows) + 16)(self._shuffled)

    def batch(self, number: int) -> tuple[int, ...]:
        """Places in the list of items, `together` of them, of batch 0, 1, …"""
        if number >= len(self._schedule):
            self._schedule = self._first(max(64, 2 * (number + 1)))
        size, turn = self._schedule[number]
        length = self._lengths[size]
        start = turn * self._together
        return tuple(
            self._round(size, place // length)[place % length] for place in range(start, start + self._together)
        )

    def _first(self, count: int) -> list[tuple[Size, int]]:
        """At least so many batches. More of them begin with the same ones."""
        total = sum(self._lengths.values())
        end = (count + len(self._rows)) * self._together / total
        found: list[tuple[float, Size, int]] = []
        for size, length in self._lengths.items():
            each = self._together / length  # time between two batches; a round of everything takes 1
            turn = 0
            while turn * each < end:
                moment = (turn + share(self._seed, *size, turn, purpose="moment of a batch")) * each
                if moment < end:
                    found.append((moment, size, turn))
                turn += 1
        return [(size, turn) for _, size, turn in sorted(found)]

    def _shuffled(self, size: Size, turn: int) -> list[int]:
        """One round of a bucket. A picture that stands in it m times stands once in each m-th part of it."""
        keys = []
        for number in self._rows[size]:
            item = self._items[number]
            for copy in range(item.times):
                luck = share(self._seed, *size, turn, item.picture, item.resolution, copy, purpose="order of a round")
                keys.append(((copy + luck) / item.times, number, copy))
        return [number for _, number, _ in sorted(keys)]
