"""How long a worker may say nothing, and whether one that says nothing hangs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Activity:
    """What a process has used so far."""

    #: Seconds of processor.
    cpu: float
    #: Bytes read from and written to disks.
    io: int
    #: It is running, or would if it were given a processor, or waits for a disk.
    runnable: bool

    def since(self, before: Activity) -> bool:
        """Whether it moved at all; a starved process that waits for its turn is not a hung one."""
        return self.runnable or self.cpu > before.cpu or self.io != before.io


def activity(pid: int) -> Activity | None:
    """What the process has used so far; None if that cannot be known (it is gone, or not ours)."""
    # Needed only when something hangs, and it is heavy.
    import psutil  # noqa: PLC0415

    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        runnable = process.status() in (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP)
        moved = 0
        with contextlib.suppress(AttributeError, psutil.AccessDenied):  # macOS does not count bytes
            counters = process.io_counters()
            moved = counters.read_bytes + counters.write_bytes
        return Activity(times.user + times.system, moved, runnable)
    except psutil.Error:
        return None


class Silence:
    """Of one worker. Past its deadline it is looked at, and hangs if it has not moved between two looks."""

    def __init__(self, until: float, stall_s: float) -> None:
        """`until`: when it has to speak at the latest. `stall_s`: seconds between two looks."""
        self._stall_s = stall_s
        self.expect(until)

    def expect(self, until: float) -> None:
        """It may say nothing until then."""
        self.deadline = until
        #: First look after the deadline passed: (when, what was used until then).
        self._look: tuple[float, Activity | None] | None = None

    @property
    def due(self) -> float:
        """When to look next."""
        return self._look[0] + self._stall_s if self._look else self.deadline

    def is_hung(self, now: float, pid: int) -> bool:
        """Looks at its clocks, if it is time to."""
        if now < self.deadline:
            return False
        if self._look is None:
            self._look = (now, activity(pid))
            return False
        since, before = self._look
        if now < since + self._stall_s:
            return False
        used = activity(pid)
        if before is not None and used is not None and used.since(before):
            self._look = (now, used)
            return False
        return True
