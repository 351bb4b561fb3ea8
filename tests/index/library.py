"""Two roots of adapters and their index, for the tests of what follows the files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from loravault.config import Root
from loravault.index import adapters, refresh
from loravault.index.database import Index
from loravault.index.refresh import Refreshed, refresh_adapters
from loravault.index.tables import AdapterRow
from tests.formats import headers

#: Long after any file of a test was written.
LATER = time.time() + 3600


class Library:
    """Roots `main` and `more`, an index, and a count of the files that were opened."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.index = Index(home / "state" / "index.sqlite")
        self.roots = [Root(name, home / name) for name in ("main", "more")]
        for root in self.roots:
            root.path.mkdir()
        self.main = self.roots[0].path
        self.read: list[str] = []
        self.fills: dict[str, int] = {}
        real = refresh.read_adapter

        def reading(path: Path, root: str, rel: str, beside: tuple[str, ...]) -> object:
            self.read.append(rel)
            return real(path, root, rel, beside)

        monkeypatch.setattr(refresh, "read_adapter", reading)

    def put(self, *names: str, fill: int | None = None) -> None:
        """Adapters of different weights, or all of the same with `fill`."""
        for name in names:
            path = self.main.parent / name if "/" in name else self.main / name
            own = self.fills.setdefault(name, len(self.fills) + 1)
            headers.write(path, headers.adapter(headers.lora(), fill=own if fill is None else fill))

    def look(self, now: float = LATER, budget_s: float | None = None) -> Refreshed:
        self.read.clear()
        return refresh_adapters(self.index, self.roots, now=lambda: now, budget_s=budget_s)

    def states(self) -> dict[str, str]:
        return {f"{row.root}/{row.rel}": row.state for row in self.rows()}

    def rows(self) -> list[AdapterRow]:
        with self.index.session() as session:
            return list(adapters.adapters(session))


def refusing(monkeypatch: pytest.MonkeyPatch, call: str, ending: str) -> None:
    real = getattr(os, call)

    def refuse(path: str | Path, *more: object, **options: object) -> object:
        if str(path).endswith(ending):
            raise PermissionError(13, "Permission denied")
        return real(path, *more, **options)

    monkeypatch.setattr(os, call, refuse)
