"""Values in portions that fit into one statement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

#: SQLite takes this many variables in one statement, whatever its build.
MOST = 900


def chunks(values: Iterable[T], most: int = MOST) -> Iterator[list[T]]:
    """The values in their order, at most `most` at a time."""
    rest = iter(values)
    while some := list(islice(rest, most)):
        yield some
