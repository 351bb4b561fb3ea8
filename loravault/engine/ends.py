"""How a generation ends without pictures. Imports nothing heavy: the worker needs these before torch is there."""

from __future__ import annotations

from loravault.errors import UserError
from loravault.formats.outcome import MadeImage


class Stopped(Exception):  # noqa: N818 - being asked to stop is not an error
    """Cancelled between two steps. `images` were durably finished before that."""

    def __init__(self, images: tuple[MadeImage, ...] = ()) -> None:
        super().__init__("stopped on request")
        self.images = images


class Paused(Exception):  # noqa: N818 - being asked to make way is not an error
    """A training has made way as it was asked to. Its state is on disk: the same lesson goes on from there."""


class OutOfMemory(UserError):  # noqa: N818 - as `BrokenFile`, named after the state
    """The device has too little memory for one image of this size; the worker should be replaced."""
