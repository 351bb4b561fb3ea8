"""The workers of a vault: one for each device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from loravault.jobs.context import log
from loravault.jobs.lanes import Held, Lane
from loravault.jobs.supervisor import Supervisor
from loravault.jobs.workerenv import for_device, with_cards


class Crew:
    """Knows how many workers there may be. None is started before there is work for it.

    With `auto` the first worker says how many cards it sees; then each card has one. The daemon never asks torch.
    """

    def __init__(  # noqa: PLR0917
        self,
        command: Sequence[str] | None,
        env: Mapping[str, str],
        device: str | tuple[str, ...],
        log_path: Path,
        wake: Callable[[], None],
        idle_exit_s: float,
    ) -> None:
        """`env`: ours, and what every worker is told; the log of the second worker is `<log_path>-2`, and so on."""
        self._command = command
        self._env = dict(env)
        self._log_path = log_path
        self._wake = wake
        self._idle_exit_s = idle_exit_s
        devices = (device,) if isinstance(device, str) else device
        self._grows = devices == ("auto",)
        self.lanes: list[Lane] = []
        if len(devices) > 1:
            self._env = with_cards(devices, self._env)
        for one in devices:
            self._add(one, several=len(devices) > 1)

    def grow(self) -> None:
        """If the first worker sees more cards than its own, each of the others gets a worker too."""
        cards = self.lanes[0].supervisor.cards
        if not self._grows or cards is None:
            return
        self._grows = False
        if cards < 2:
            return
        log.info("there are %d cards: a worker for each", cards)
        self._env = with_cards([f"cuda:{number}" for number in range(cards)], self._env)
        first = self.lanes[0]
        first.name = "cuda:0"
        # It sees all of them now and uses the first; the next one in its place sees that one alone.
        first.supervisor.set_environment(for_device(first.name, self._env, several=True))
        for number in range(1, cards):
            self._add(f"cuda:{number}", several=True)

    @property
    def devices(self) -> str:
        """The devices in words, as far as workers have chosen them."""
        return ", ".join(lane.device for lane in self.lanes if lane.device)

    @property
    def training(self) -> Held | None:
        """The training that everybody waits for: every worker is at one, and none was asked to make way."""
        found = [held for lane in self.lanes for held in lane.begun if held.training and not held.paused]
        if len(found) < len(self.lanes):
            return None
        return min(found, key=lambda held: held.seconds_left or float("inf"))

    def due_in(self) -> float | None:
        """Seconds until one of them has to be looked at; None = no need."""
        times = [due for lane in self.lanes if (due := lane.supervisor.due_in()) is not None]
        return min(times, default=None)

    def close(self) -> None:
        """Ends every worker."""
        for lane in self.lanes:
            lane.supervisor.close()

    def _add(self, device: str, *, several: bool) -> None:
        number = len(self.lanes) + 1
        path = self._log_path if number == 1 else self._log_path.with_stem(f"{self._log_path.stem}-{number}")
        supervisor = Supervisor(
            self._command,
            for_device(device, self._env, several=several),
            idle_exit_s=self._idle_exit_s,
            log_path=path,
            wake=self._wake,
        )
        self.lanes.append(Lane(supervisor, device if several else ""))
