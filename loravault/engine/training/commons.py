"""What the processes of one training have in common: a piece of memory, and a line between each and the first.

Nothing listens anywhere: the memory is a file without a name and the lines are pairs of sockets without an address,
and both are inherited. Whose end of a line is gone is dead, or told so.
"""

from __future__ import annotations

import mmap
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import torch
from torch import Tensor

from loravault.formats.training import Prepared, TrainingSpec

#: Bytes of one message, at most: a spec of ten thousand pictures has some megabytes.
_MOST = 256 << 20
#: In which somebody has to take what is said.
SAY_LIMIT_S = 120.0

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Begin:
    """The first thing a process hears: everything but its own place."""

    spec: TrainingSpec
    prepared: Prepared
    rank: int
    #: `choose_device` takes these.
    device: str
    dtype: str
    #: Numbers that are learned.
    numbers: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """Compute the gradients of this step, from the numbers in the common memory."""

    step: int
    pieces: int
    twice: bool
    #: By which the loss is multiplied.
    scale: float


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a process answers: `moved` (it lives), `ready`, `done`, `memory` (ran out), `failed`."""

    kind: str
    text: str = ""


class Line:
    """One end of a line. Messages are JSON, each with its length before it."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._got = bytearray()

    def say(self, message: Any) -> None:
        """Raises `OSError` if nobody is there."""
        body = msgspec.json.encode(message)
        self._end.settimeout(SAY_LIMIT_S)
        self._end.sendall(len(body).to_bytes(8, "big") + body)

    def hear(self, kind: type[T], within_s: float | None = None) -> T | None:
        """The next message; None: there was none in time. Raises `EOFError` if nobody is there any more."""
        until = None if within_s is None else time.monotonic() + within_s
        while (message := self._whole()) is None:
            self._end.settimeout(None if until is None else max(0.001, until - time.monotonic()))
            try:
                data = self._end.recv(1 << 20)
            except TimeoutError:
                return None
            except ConnectionError as error:
                raise EOFError from error
            if not data:
                raise EOFError
            self._got += data
        return msgspec.json.decode(message, type=kind)

    def _whole(self) -> bytes | None:
        if len(self._got) < 8:
            return None
        length = int.from_bytes(self._got[:8], "big")
        if length > _MOST:
            raise EOFError
        if len(self._got) < 8 + length:
            return None
        message = bytes(self._got[8 : 8 + length])
        del self._got[: 8 + length]
        return message

    def close(self) -> None:
        """The other end hears that nobody is there."""
        self._end.close()


class Commons:
    """Memory that all of them see: what is learned, then the gradients of each process but the first, all fp32.

    In each part the last number is the loss.
    """

    def __init__(self, descriptor: int, numbers: int, world: int) -> None:
        self._map = mmap.mmap(descriptor, bytes_of(numbers, world))
        self._parts = torch.frombuffer(self._map, dtype=torch.float32).view(world, numbers + 1)

    def part(self, rank: int) -> Tensor:
        """[numbers + 1]; of rank 0: what is learned."""
        return self._parts[rank]


def bytes_of(numbers: int, world: int) -> int:
    """Of the common memory."""
    return 4 * (numbers + 1) * world


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """One after the other, in one buffer on their device."""
    return torch.cat([one.detach().reshape(-1) for one in tensors])


def spread(buffer: Tensor, tensors: Sequence[Tensor]) -> None:
    """Back from a buffer to where `flat` took it."""
    pieces = torch.split(buffer, [one.numel() for one in tensors])
    torch._foreach_copy_(list(tensors), [piece.view_as(one) for piece, one in zip(pieces, tensors, strict=True)])
