"""The other processes of a training on several cards, as the first one has them work.

Only the first decides: it measures, steps, writes states and files, is cancelled and paused. The others compute
gradients of their part of each batch from the numbers they are given, and remember nothing. So nobody can disagree,
a state does not know how many there were, and whichever of them dies, the first one says so.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType

import torch
from torch import Tensor, nn

from loravault.engine.devices import DTYPES, Device
from loravault.engine.training.cards import Card, other_cards
from loravault.engine.training.commons import Begin, Commons, Line, Said, Step, bytes_of, flat, spread
from loravault.errors import UserError
from loravault.formats.training import Prepared, TrainingSpec
from loravault.osdep import shared_memory

#: Seconds in which one of them has to be heard of while it loads, and with its gradients after the first has its own.
LOAD_LIMIT_S, STEP_LIMIT_S = 280.0, 280.0
#: How often somebody who waits looks whether it is to leave.
_LOOK_S = 0.2
#: How long they may finish a step when it is over.
_LAST_S = 2.0


class MateLost(UserError):  # noqa: N818 - a state, like `Stopped`
    """One of them is gone or says that it cannot go on. What was learned is whole."""


@dataclass
class _Mate:
    process: subprocess.Popen[bytes]
    line: Line
    name: str
    #: It was given a step and has not answered.
    busy: bool = False


class Mates:
    """`loop.Company`. Use it as a context: at the end of it there are none."""

    def __init__(self, spec: TrainingSpec, prepared: Prepared, device: Device) -> None:
        """None is started yet."""
        self._spec, self._prepared, self._device = replace(spec, samples=()), prepared, device
        self._mates: list[_Mate] = []
        self._commons: Commons | None = None
        self._asked_at = 0.0

    @property
    def world(self) -> int:
        """Processes, ours included."""
        return self._prepared.plan.gpus

    def __enter__(self) -> Mates:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- begin and end

    def start(self, numbers: int, *, on_phase: Callable[[str, float], None], check: Callable[[], None]) -> None:
        """Has all of them load what they need. `check` raises if somebody wants to leave. Raises `UserError`."""
        on_phase("load", LOAD_LIMIT_S)
        try:
            memory = shared_memory(bytes_of(numbers, self.world))
        except OSError as error:
            raise UserError(f"The cards cannot share memory: {error.strerror or error}. Set `gpus: 1`.") from error
        try:
            self._commons = Commons(memory, numbers, self.world)
            for rank, card in enumerate(other_cards(self._device)[: self.world - 1], 1):
                self._add(rank, card, memory, numbers)
        finally:
            os.close(memory)
        for mate in self._mates:
            said = None
            while said is None or said.kind != "ready":
                said = self._heard(mate, LOAD_LIMIT_S, check)
                if said.kind == "memory":
                    raise MateLost(f"{mate.name} has too little memory to load the base: close what else uses it.")
                on_phase("load", LOAD_LIMIT_S)

    def _add(self, rank: int, card: Card, memory: int, numbers: int) -> None:
        """Starts one and tells it what it is to do."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = subprocess.Popen(
                    [sys.executable, "-m", "loravault.engine.training.mate", str(theirs.fileno()), str(memory)],
                    stdin=subprocess.DEVNULL,
                    stdout=2,  # what is printed belongs into the log
                    pass_fds=(theirs.fileno(), memory),
                    env={**os.environ, **card.environment},
                )
            except (OSError, ValueError) as error:  # Windows hands nothing on
                ours.close()
                raise UserError(f"No process can be started for {card.name}: {error}. Set `gpus: 1`.") from error
        mate = _Mate(process, Line(ours), card.name)
        self._mates.append(mate)  # from now on `close` ends it
        kind = self._device.place.type
        dtype = next(name for name, one in DTYPES.items() if one == self._device.dtype)
        begin = Begin(
            spec=self._spec, prepared=self._prepared, rank=rank, device=kind, dtype=dtype, numbers=numbers
        )  # fmt: skip
        self._say(mate, begin)

    def close(self) -> None:
        """None of them is left on return, and no card holds anything of theirs."""
        for mate in self._mates:
            mate.line.close()
        until = time.monotonic() + _LAST_S
        for mate in self._mates:
            try:
                mate.process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                mate.process.kill()
                mate.process.wait()
        self._mates = []

    # ---- a step

    def begin(self, step: int, parameters: list[nn.Parameter], *, pieces: int, twice: bool, scale: float) -> None:
        """Has them compute the gradients of a step. Returns at once; raises `MateLost`."""
        for mate in self._mates:
            if mate.busy:  # with a step that our own memory did not suffice for
                self._answered(mate)
        self._part(0)[:-1].copy_(flat(parameters))
        for mate in self._mates:
            self._say(mate, Step(step=step, pieces=pieces, twice=twice, scale=scale))
            mate.busy = True
        self._asked_at = time.monotonic()

    def gather(self, parameters: list[nn.Parameter], loss: Tensor) -> Tensor:
        """Gradients become the mean of everybody's, summed in the order of the ranks; returns the mean loss.

        Raises `MateLost`, and `MemoryError` if the memory of any of them ran out.
        """
        full = [mate.name for mate in self._mates if self._answered(mate).kind == "memory"]
        if full:
            raise MemoryError(f"{', '.join(full)}: out of memory")
        empty = [one for one in parameters if one.grad is None]
        for one in empty:
            one.grad = torch.zeros_like(one)
        gradients = [one.grad for one in parameters if one.grad is not None]
        total = torch.cat([flat(gradients), loss.reshape(1)])
        for rank in range(1, self.world):
            total += self._part(rank).to(total.device)
        total /= self.world
        spread(total[:-1], gradients)
        for one in empty:  # what nobody had a gradient for stays without: an optimiser leaves it alone
            if one.grad is not None and not bool(one.grad.any()):
                one.grad = None
        return total[-1].clone()

    def _part(self, rank: int) -> Tensor:
        assert self._commons is not None, "nobody was started"
        return self._commons.part(rank)

    def _answered(self, mate: _Mate) -> Said:
        """To a step. One that takes much longer than we did hangs."""
        took = time.monotonic() - self._asked_at
        said = self._heard(mate, max(STEP_LIMIT_S, 3 * took), lambda: None)
        mate.busy = False
        return said

    # ---- hear and say

    def _say(self, mate: _Mate, message: Begin | Step) -> None:
        try:
            mate.line.say(message)
        except OSError as error:
            raise MateLost(self._gone(mate)) from error

    def _heard(self, mate: _Mate, limit_s: float, check: Callable[[], None]) -> Said:
        """What it says next. Raises `MateLost` if it is gone, hangs or cannot go on, and what `check` raises."""
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            check()
            try:
                said = mate.line.hear(Said, min(_LOOK_S, limit_s))
            except EOFError as error:
                raise MateLost(self._gone(mate)) from error
            if said is not None and said.kind == "failed":
                raise MateLost(f"{mate.name}: {said.text} {_KEPT}")
            if said is not None:
                return said
        mate.process.kill()
        raise MateLost(f"The training's process on {mate.name} was not heard of for {limit_s:.0f} seconds. {_KEPT}")

    def _gone(self, mate: _Mate) -> str:
        """In words."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            mate.process.wait(_LAST_S)
        code = mate.process.returncode
        if code == -signal.SIGKILL:
            how = "was killed, most likely because the machine's memory ran out"
        elif code is not None and code < 0:
            how = f"crashed (signal {-code}); the worker's log has the details"
        else:
            how = "ended without an answer; the worker's log has the details"
        return f"The training's process on {mate.name} {how}. {_KEPT}"


_KEPT = "What was learned is kept: tick `run` and it goes on, or set `gpus: 1` to begin anew on one card."
