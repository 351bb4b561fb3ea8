"""Which of several files with the same weights is used. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

from loravault.library.located import Located
from loravault.vault.inert import inert_value


class Placed(Located, Protocol):
    """What of a file decides whether it is used before its copies."""

    @property
    def mtime_ns(self) -> int:
        """When it was changed last."""

    @property
    def dev(self) -> int:
        """Device; 0 with an inode of 0 where the file system has none."""

    @property
    def ino(self) -> int:
        """Inode."""


def order_of_use(row: Placed, on_card: str | None = None) -> tuple[Any, ...]:
    """Which of several copies is used: one that can be, that which its card names, the oldest, then by place.

    A copy that somebody makes as a backup, wherever it is, takes nothing over. `on_card`: the card's `lora_file`.
    """
    named = on_card is not None and on_card in (place := f"{row.root}/{row.rel}", inert_value(place))
    usable = row.state in ("ok", "duplicate")
    return not usable, row.state == "missing", not named, row.mtime_ns, len(row.rel), row.root, row.rel


_P = TypeVar("_P", bound=Placed)


def in_order_of_use(rows: Iterable[_P], on_card: str | None = None) -> tuple[list[_P], list[tuple[_P, _P]]]:
    """The files of one adapter, that which is used first; and apart from them those that are one of these once more.

    Roots inside roots and links show one file at several places: only one of them counts. Each of the others comes with
    the place that does.
    """
    places: list[_P] = []
    again: list[tuple[_P, _P]] = []
    known: dict[tuple[int, int], _P] = {}
    for row in sorted(rows, key=lambda row: order_of_use(row, on_card)):
        inode = (row.dev, row.ino)
        if row.state in ("ok", "duplicate") and inode != (0, 0) and known.setdefault(inode, row) is not row:
            again.append((row, known[inode]))
        else:
            places.append(row)
    return places, again
