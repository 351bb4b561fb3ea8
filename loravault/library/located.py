"""What every record of an adapter file has, whoever made it."""

from __future__ import annotations

from typing import Protocol


class Located(Protocol):
    """An adapter file: where it is, and whether it can be used."""

    @property
    def root(self) -> str:
        """Name of its root."""

    @property
    def rel(self) -> str:
        """Path inside the root."""

    @property
    def state(self) -> str:
        """See `AdapterRow.state`."""
