"""Chance that is counted, not rolled: the same seed, counters and purpose give the same numbers on every machine and in
every version, and nothing has to be remembered to go on with it.

Everything comes from a BLAKE2b of the tuple, never from a library's own generator, whose numbers may change with it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

#: What counts: a step, a place in a batch, the name or hash of a picture.
Counter = int | str
T = TypeVar("T")


def number(seed: int, *counters: Counter, purpose: str) -> int:
    """0 … 2**64 - 1. Integers and texts of the same look are different counters."""
    # `repr` quotes texts and separates by commas, so that no two tuples are written alike.
    return int.from_bytes(blake2b(repr((seed, purpose, *counters)).encode(), digest_size=8).digest(), "big")


def share(seed: int, *counters: Counter, purpose: str) -> float:
    """0 ≤ share < 1, with 53 random bits."""
    return (number(seed, *counters, purpose=purpose) >> 11) / float(1 << 53)


def permutation(length: int, seed: int, *counters: Counter, purpose: str) -> list[int]:
    """The numbers 0 … length - 1 in an order that only the arguments decide."""
    return sorted(range(length), key=lambda one: (number(seed, *counters, one, purpose=purpose), one))


def chance(seed: int, *counters: Counter, purpose: str) -> random.Random:
    """A generator of Python's own. Only its `random()` is promised never to change: use `shuffled` for orders."""
    return random.Random(number(seed, *counters, purpose=purpose))


def shuffled(values: Sequence[T], by: random.Random) -> list[T]:
    """In another order. `random.shuffle` may draw differently in another version of Python; this does not."""
    found = list(values)
    for last in range(len(found) - 1, 0, -1):
        other = int(by.random() * (last + 1))
        found[last], found[other] = found[other], found[last]
    return found
