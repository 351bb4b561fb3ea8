"""When a note is quiet enough to be read or written: pure bookkeeping of what was seen when."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True)
class _Sight:
    key: Hashable
    since: float


class SettleTracker:
    """Knows for each path since when its key (size, mtime, inode) has not changed. Takes the clock as an argument."""

    def __init__(self) -> None:
        self._sights: dict[str, _Sight] = {}

    def observe(self, path: str, key: tuple[object, ...] | None, now: float) -> None:
        """Say what the file looks like now; None if it is not there. Any change starts its quiet time again."""
        if key is None:
            self._sights.pop(path, None)
            return
        known = self._sights.get(path)
        if known is None or known.key != key or known.since > now:  # a clock set back must not freeze the gate
            self._sights[path] = _Sight(key, now)

    def quiet_for(self, path: str, now: float) -> float:
        """Seconds since the last observed change; 0.0 for a path that was never seen or has gone."""
        known = self._sights.get(path)
        return max(0.0, now - known.since) if known else 0.0

    def forget(self, path: str) -> None:
        """Stop following a path."""
        self._sights.pop(path, None)

    def __len__(self) -> int:
        return len(self._sights)
