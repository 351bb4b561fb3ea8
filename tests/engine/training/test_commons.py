"""The line between the processes of a training, and the memory they share."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest
import torch

from loravault.engine.training.commons import Commons, Line, Said, Step, bytes_of, flat, spread
from loravault.osdep import shared_memory

pytestmark = pytest.mark.engine


def pair() -> tuple[Line, Line]:
    one, other = socket.socketpair()
    return Line(one), Line(other)


def test_messages_arrive_whole_and_in_order_however_long_they_are() -> None:
    here, there = pair()
    said = [Said(kind="failed", text="x" * size) for size in (0, 1, 300_000, 5)]
    talker = threading.Thread(target=lambda: [here.say(one) for one in said])
    talker.start()
    assert [there.hear(Said) for _ in said] == said
    talker.join()
    order = Step(step=3, pieces=2, twice=True, scale=65536.0)
    there.say(order)
    assert here.hear(Step) == order
    here.close()
    there.close()


def test_who_is_silent_is_not_waited_for_and_who_is_gone_is_noticed() -> None:
    here, there = pair()
    began = time.monotonic()
    assert here.hear(Said, 0.05) is None
    assert time.monotonic() - began < 2
    there.say(Said(kind="done"))
    there.close()
    assert here.hear(Said, 1) == Said(kind="done"), "what was said before it left counts"
    with pytest.raises(EOFError):
        here.hear(Said, 1)
    with pytest.raises(OSError, match="Broken pipe"):
        here.say(Said(kind="done"))
    here.close()


def test_all_see_the_same_memory() -> None:
    memory = shared_memory(bytes_of(5, 3))
    one, other = Commons(memory, 5, 3), Commons(memory, 5, 3)
    os.close(memory)  # a mapping outlives its descriptor
    one.part(2).copy_(torch.arange(6.0))
    assert other.part(2).tolist() == [0, 1, 2, 3, 4, 5]
    assert other.part(1).tolist() == [0] * 6
    assert not bool(other.part(0).any())


def test_a_buffer_goes_back_to_where_it_came_from() -> None:
    tensors = [torch.randn(2, 3), torch.randn(()), torch.randn(4)]
    buffer = flat(tensors)
    assert buffer.shape == (11,)
    copies = [torch.zeros_like(one) for one in tensors]
    spread(buffer, copies)
    assert all(torch.equal(one, copy) for one, copy in zip(tensors, copies, strict=True))
