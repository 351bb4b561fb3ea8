"""A loop from where it stands to its end: states, checkpoints, reports, and leaving when somebody asks for it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from loravault.engine.ends import Paused, Stopped
from loravault.engine.training.checkpoints import State, StateFolder
from loravault.engine.training.loop import LOOK, Diverged, Loop
from loravault.engine.training.mates import MateLost
from loravault.formats.training import Prepared, TrainingStep

#: Seconds between two states, at the least; and how often the time of writing one has to pass before the next.
SAVE_EVERY_S, SAVE_SHARE = 60.0, 30.0
#: Seconds between two reports.
REPORT_EVERY_S = 0.3
#: Steps that are not timed: the first ones allocate and choose their kernels.
UNTIMED = 5
#: How long the first steps, and the writing of a checkpoint, may be silent.
DEADLINE_S = 300.0


@dataclass(frozen=True, kw_only=True)
class Ears:
    """Who is told what, and who may stop it."""

    on_phase: Callable[[str, float], None]
    on_prepared: Callable[[Prepared], None]
    on_step: Callable[[TrainingStep], None]
    cancelled: Callable[[], bool]
    paused: Callable[[], bool]

    def leaving(self) -> bool:
        """Whether somebody asked for it."""
        return self.cancelled() or self.paused()

    def check(self) -> None:
        """Raises `Stopped` or `Paused` if somebody asked for it."""
        if self.cancelled():
            raise Stopped
        if self.paused():
            raise Paused


@dataclass
class Steps:
    """The steps of one training in one process."""

    loop: Loop
    prepared: Prepared
    states: StateFolder
    ears: Ears
    #: Writes the adapter as it is now to a path; returns what has to be said about it.
    write: Callable[[Path, int], tuple[str, ...]]
    #: Seconds of the steps of this process that went into encoding pictures, and that will in so many more steps: what
    #: a step takes is told without them.
    encoding: Callable[[int], tuple[float, float]] = lambda _steps: (0.0, 0.0)
    #: Seconds that come after the last step, for the forecast.
    after_s: float = 0.0
    #: Step → name of the file in the folder of states.
    files: dict[int, str] = field(default_factory=dict)
    #: When the first step of this training was made, by the clock on the wall.
    began: float = field(default_factory=time.time)
    _kept_at: float = field(default_factory=time.monotonic)
    _keeping_took: float = 0.0
    _told_at: float = 0.0
    _timed: tuple[int, float] | None = None
    _first: int = 0

    def go_on_from(self, state: State) -> None:
        """Everything as it was then."""
        self.loop.load_state(state)
        self.files = {int(step): name for step, name in state.about["files"].items()}
        self.began = float(state.about["began"])

    def all(self) -> dict[str, Any]:
        """Makes the steps that are not made, and leaves a state that says so. Returns what `made` says of it.

        Raises `Stopped` and `Paused` with the state on disk, and `UserError` if nothing was learned that can be kept.
        """
        loop, ends = self.loop, self.checkpoints()
        self._first = loop.step
        self.ears.on_phase("train", DEADLINE_S)
        try:
            if loop.step == 0:
                loop.measure()
            while loop.step < self.prepared.plan.steps:
                self._leave_if_asked()
                loop.advance()
                self._note()
                if loop.step in ends:
                    self._checkpoint()
                elif self._due():
                    self._keep()
        except MateLost:
            self._keep()
            raise
        except Diverged as error:
            if not self.files:
                self._forget()
                raise
            loop.history.warn(f"{error.message} What was kept is the LoRA as it was after step {max(self.files):,}.")
        return self._finish()

    def checkpoints(self) -> frozenset[int]:
        """After which steps the adapter is written: evenly spread, the last step among them."""
        plan = self.prepared.plan
        return frozenset(math.ceil(plan.steps * part / plan.checkpoints) for part in range(1, plan.checkpoints + 1))

    def seconds_per_step(self) -> float | None:
        """In this process, without the first steps; None: too few were made."""
        if self._timed is None or self.loop.step <= self._timed[0]:
            return None
        return (self._learning_s() - self._timed[1]) / (self.loop.step - self._timed[0])

    def _learning_s(self) -> float:
        return self.loop.history.seconds - self.encoding(0)[0]

    # ---- between two steps

    def _leave_if_asked(self) -> None:
        if self.ears.leaving():
            self._keep()
            self.ears.check()

    def _note(self) -> None:
        """Reports now and then; begins to take the time."""
        loop, now = self.loop, time.monotonic()
        if loop.step == self._first + UNTIMED:
            self._timed = (loop.step, self._learning_s())
        last = loop.step == self.prepared.plan.steps
        if now - self._told_at < REPORT_EVERY_S and not last:
            return
        smoothed = loop.history.smoothed()
        if not math.isfinite(smoothed):  # nothing was looked at yet
            return
        self._told_at = now
        steps = self.prepared.plan.steps
        left = steps - loop.step
        each = self.seconds_per_step() or self._learning_s() / max(1, loop.step)
        self.ears.on_step(
            TrainingStep(
                step=loop.step,
                steps=steps,
                loss=smoothed,
                learning_rate=loop.learning_rate,
                seconds_left=left * each + self.encoding(left)[1] + self.after_s,
                deadline_s=DEADLINE_S + 10 * LOOK * each,
            )
        )

    def _due(self) -> bool:
        return time.monotonic() - self._kept_at > max(SAVE_EVERY_S, SAVE_SHARE * self._keeping_took)

    def _keep(self) -> None:
        """Writes the state: after a crash it goes on from here."""
        began = time.monotonic()
        state = self.loop.state()
        self.states.write(replace(state, about={**state.about, "files": self.files, "began": self.began}))
        self._kept_at = time.monotonic()
        self._keeping_took = self._kept_at - began

    def _checkpoint(self) -> None:
        """The file first, then the state that names it: in between, it is written again, and comes out the same."""
        loop = self.loop
        loop.look()
        self.ears.on_phase("checkpoint", DEADLINE_S)
        loop.measure()
        path = self.states.place(loop.step, "adapter")
        with loop.published():
            for sentence in self.write(path, loop.step):
                loop.history.warn(sentence)
        self.files[loop.step] = path.name
        self._keep()
        self.ears.on_phase("train", DEADLINE_S)

    # ---- the end

    def _finish(self) -> dict[str, Any]:
        """A state without the weights of optimiser and network: what is left is in the files."""
        history = self.loop.history
        made = {
            "files": {str(step): name for step, name in self.files.items()},
            "losses": [(n + 1, loss) for n, loss in enumerate(history.losses) if math.isfinite(loss)],
            "validation": history.validation,
            "seconds": history.seconds,
            "peak_bytes": history.peak_bytes,
            "warnings": [*history.warnings, *_risen(history.losses)],
        }
        self.states.write(State(self.loop.step, {}, {"made": made}))
        return made

    def _forget(self) -> None:
        """What diverged would diverge again."""
        for path in self.states.mine():
            path.unlink(missing_ok=True)


def _risen(losses: list[float]) -> list[str]:
    """What a loss that rises means."""
    good = [loss for loss in losses if math.isfinite(loss)]
    tenth = len(good) // 10
    if tenth < 10:
        return []
    first, last = sum(good[:tenth]) / tenth, sum(good[-tenth:]) / tenth
    if last < 2 * first:
        return []
    return [
        f"The loss rose from {first:.3f} to {last:.3f}: the learning rate is too high. Try a third of it, or take an "
        "earlier checkpoint."
    ]


def restored(made: Mapping[str, Any]) -> dict[str, Any]:
    """What `Steps.all` returned, as JSON gives it back."""
    pairs = {name: [(int(step), float(value)) for step, value in made[name]] for name in ("losses", "validation")}
    return {**made, **pairs}
