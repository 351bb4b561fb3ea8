"""A process that computes gradients for another one: `python -m loravault.engine.training.mate`, with two descriptors.

It writes nothing and decides nothing, and leaves when the other end of its line is gone.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

import torch

from loravault.engine.devices import choose_device, free_cache, is_out_of_memory
from loravault.engine.training.commons import Begin, Commons, Line, Said, Step, flat, spread
from loravault.engine.training.learner import Learner
from loravault.engine.training.parts import attached, attention_for, filled, frozen_base
from loravault.engine.training.store import Store
from loravault.errors import UserError
from loravault.osdep import parent_death_signal


class Mate(Learner):
    """One part of every batch."""

    def compute(self, order: Step, commons: Commons) -> Said:
        """Leaves the gradients of a step in the common memory."""
        spread(commons.part(0)[:-1].to(self._device.place), [one.data for one in self._parameters])
        self._pieces = order.pieces
        if order.twice and not self._checkpointing:
            self._compute_twice()
        try:
            loss = self._learn(order.step, lambda one: one * order.scale)
            gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in self._parameters]
            commons.part(self._rank).copy_(torch.cat([flat(gradients), loss.reshape(1)]))
            answer = Said(kind="done")
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            answer = Said(kind="memory")
        for one in self._parameters:
            one.grad = None
        if answer.kind == "memory":
            free_cache(self._device)  # not in the handler: there the error keeps what could be freed
        return answer


def serve(line: Line, memory: int) -> None:
    """From the first word to the last. Raises `EOFError` when the other end is gone."""
    begin = line.hear(Begin)
    assert begin is not None
    spec, prepared, plan = begin.spec, begin.prepared, begin.prepared.plan
    device = choose_device(begin.device, begin.dtype)

    def moved(_done: int = 0, _all: int = 0) -> None:
        line.say(Said(kind="moved"))

    base = frozen_base(spec, plan, device, lambda _sentence: None)
    moved()
    store = Store(Path(spec.cache_dir))
    source, echoes = filled(
        spec, prepared, base, store, encoded=moved, leaving=lambda: False, rank=begin.rank
    )  # fmt: skip
    free_cache(device)
    objective, network = attached(spec, plan, base, device)
    mate = Mate(
        base=base, network=network, objective=objective, source=source, plan=plan, device=device,
        echoes=echoes if echoes.wanted else None, rank=begin.rank, world=plan.gpus,
    )  # fmt: skip
    if mate.numbers != begin.numbers:
        raise UserError("What is learned on this card differs from the first one's: the base was changed meanwhile.")
    commons = Commons(memory, begin.numbers, plan.gpus)
    line.say(Said(kind="ready"))
    with attention_for(base, plan, device):
        while (order := line.hear(Step)) is not None:
            line.say(mate.compute(order, commons))


def main() -> None:
    """Serves, and ends the process."""
    parent_death_signal()
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon
    line = Line(socket.socket(fileno=int(sys.argv[1])))
    try:
        serve(line, int(sys.argv[2]))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # it is over
        os._exit(0)
    except Exception as error:
        _tell(line, error)
    sys.stderr.flush()
    os._exit(1)  # not sys.exit: tearing down torch takes a second and may crash


def _tell(line: Line, error: Exception) -> None:
    """The reason, in words if there are any."""
    if is_out_of_memory(error):
        said = Said(kind="memory")
    elif isinstance(error, UserError):
        said = Said(kind="failed", text=error.message)
    else:
        traceback.print_exception(error)
        text = " ".join(str(error).split())[:300] or "no reason given"
        said = Said(kind="failed", text=f"a bug in loravault or its libraries: {type(error).__name__}: {text}.")
    try:
        line.say(said)
    except OSError:
        traceback.print_exception(error)


if __name__ == "__main__":
    main()
