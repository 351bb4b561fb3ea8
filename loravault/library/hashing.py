"""Hashes of adapter files, read in the background: behind everything else, one file at a time, never lost, never wrong.

    daemon ── want(files whose hashes the index lacks) ─▶ plan ─▶ thread ─▶ take_results() ── daemon ─▶ index

Nothing is kept here between two starts: what the index has is not wished for again. Within a file nothing is kept
either, because the states of these hashes cannot be stored; the largest adapters take seconds.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable
from io import BufferedReader

from loravault.formats.hashes import FileHashes, hashes_of
from loravault.formats.tensor_table import BrokenFile
from loravault.library.hash_plan import HashPlan, HashProgress, HashResult, HashWish, Pace, Priority
from loravault.osdep import advise_sequential, drop_from_cache, is_in_cache, lower_thread_priority
from loravault.vault.walk import StatKey, key_of

__all__ = ["BackgroundHasher", "HashProgress", "HashResult", "HashWish", "Priority"]

#: Bytes after which the kernel is told that it may forget what was read.
_FORGET_EVERY = 32 * 1024 * 1024
#: A file is held open this long while it is paused (seconds), so that a drive can be taken out in a long pause.
HOLD_S = 10.0
#: Results are announced at most this often (seconds): small files come by the thousand in a second.
ANNOUNCE_S = 0.5
#: How long `stop` waits for the thread (seconds): a read that hangs on a dead network drive is left behind.
STOP_S = 0.3


class _Abandoned(Exception):  # noqa: N818 - no error: somebody wants the thread to put the file down
    """Raised inside a file to leave it."""


class BackgroundHasher:
    """A thread that hashes what is wished for. All methods are for one other thread, and none of them waits.

    `on_result` is called from the thread when a result can be taken. `duty` is the share of the time that is worked,
    `rate_limit` the most bytes per second.
    """

    def __init__(
        self,
        on_result: Callable[[], None] = lambda: None,
        *,
        duty: float = 0.5,
        rate_limit: float | None = None,
        clock: Callable[[], float] = time.time,
        hold_s: float = HOLD_S,
    ) -> None:
        self._on_result = on_result
        self._pace = Pace(duty, rate_limit)
        self._clock = clock
        self._hold_s = hold_s
        self._plan = HashPlan()
        self._results: list[HashResult] = []
        self._changed = threading.Condition()  # guards everything above, and is notified of every change
        self._paused = self._stopped = False
        self._thread: threading.Thread | None = None
        #: Of the thread alone: there are results that were not announced yet, and when others last were.
        self._unannounced, self._announced_at = False, float("-inf")

    # ---- for the daemon

    def want(self, wishes: Iterable[HashWish]) -> None:
        """Hash these files and no others. Starts the thread when there is something to do for the first time."""
        with self._changed:
            self._plan.replace(wishes, self._clock())
            self._changed.notify()
            if self._thread is None and not self._stopped and self._plan.progress().busy:
                # A daemon thread: whatever it does, the process may end.
                self._thread = threading.Thread(target=self._run, name="loravault-hashes", daemon=True)
                self._thread.start()

    def take_results(self) -> list[HashResult]:
        """What is ready. Store it before the next `want`: a file whose result was taken may be wished for again."""
        if not self._results:  # a list of another thread may be looked at
            return []
        with self._changed:
            taken, self._results = self._results, []
            self._plan.taken((one.root, one.rel) for one in taken)
        return taken

    def progress(self) -> HashProgress:
        """How far it is."""
        with self._changed:
            return self._plan.progress(paused=self._paused)

    def pause(self) -> None:
        """Leave the disk to somebody else until `resume`."""
        self._set_paused(True)

    def resume(self) -> None:
        """Go on."""
        self._set_paused(False)

    def stop(self) -> bool:
        """Leave for good, also from inside a file. Results can still be taken. False if the thread hangs in a read."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread is None:
            return True
        self._thread.join(STOP_S)
        return not self._thread.is_alive()

    def _set_paused(self, paused: bool) -> None:
        if self._paused != paused:
            with self._changed:
                self._paused = paused
                self._changed.notify()

    # ---- the thread

    def _run(self) -> None:
        lower_thread_priority()
        while (wish := self._next()) is not None:
            self._work(wish)

    def _next(self) -> HashWish | None:
        """The next file, as soon as there is one; None when the thread is to end."""
        while True:
            with self._changed:
                if self._stopped:
                    return None
                found = None if self._paused else self._plan.take(self._clock())
                if isinstance(found, HashWish):
                    return found
                if not self._unannounced:
                    self._changed.wait(found)
            self._announce(at_once=True)

    def _announce(self, *, at_once: bool = False) -> None:
        """Say that results can be taken, unless that was said just now. Never with the lock held."""
        now = time.monotonic()
        if self._unannounced and (at_once or now - self._announced_at >= ANNOUNCE_S):
            self._unannounced, self._announced_at = False, now
            self._on_result()

    def _work(self, wish: HashWish) -> None:
        """Hash one file and put it down, whatever happens."""
        hashes: FileHashes | None = None
        problem: str | None = None
        try:
            hashes = self._hashes(wish)
        except _Abandoned:
            with self._changed:
                if self._plan.in_hand is wish:
                    self._plan.put_back()
            return
        except BrokenFile as error:
            problem = error.message
        except OSError as error:
            problem = f"it cannot be read ({error.strerror or error})"
        except Exception as error:  # a bug costs this file, not the thread
            problem = f"a bug in loravault ({type(error).__name__}: {error})"
        gone = hashes is None and problem is None
        self._put_down(
            wish, None if gone else HashResult(wish.root, wish.rel, wish.size, wish.mtime_ns, hashes, problem)
        )

    def _put_down(self, wish: HashWish, result: HashResult | None) -> None:
        with self._changed:
            if self._plan.in_hand is not wish:
                return  # nobody wants to know any more
            if result is None:
                self._plan.drop()
                return
            self._plan.answer(self._clock(), failed=result.hashes is None)
            self._results.append(result)
        self._unannounced = True
        self._announce()

    def _hashes(self, wish: HashWish) -> FileHashes | None:
        """None if there is no such file, or not in the version that was wished for. Raises OSError, `BrokenFile`."""
        try:
            if not stat.S_ISREG(os.stat(wish.path).st_mode):  # opening a named pipe would wait for ever
                return None
            with open(wish.path, "rb") as file:
                before = key_of(os.fstat(file.fileno()))
                if before[:2] != wish.version:
                    return None
                try:
                    hashes = self._read(file, wish)
                except BrokenFile:
                    if _is_unchanged(wish, file, before):
                        raise
                    return None
                return hashes if _is_unchanged(wish, file, before) else None
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _read(self, file: BufferedReader, wish: HashWish) -> FileHashes:
        number = file.fileno()
        advise_sequential(number)
        forget = not is_in_cache(number, wish.size)
        began, position, forgotten = time.monotonic(), 0, 0

        def on_read(length: int) -> None:
            nonlocal began, position, forgotten
            position += length
            if forget and position - forgotten >= _FORGET_EVERY:
                drop_from_cache(number, forgotten, position - forgotten)
                forgotten = position
            self._breathe(wish, length, time.monotonic() - began)
            began = time.monotonic()

        try:
            return hashes_of(file, on_read)
        finally:
            if forget:
                drop_from_cache(number, 0, 0)

    def _breathe(self, wish: HashWish, length: int, worked_s: float) -> None:
        """Between two reads: count, give way, wait. Raises `_Abandoned` when the file is to be left."""
        self._announce()
        with self._changed:
            if self._plan.in_hand is wish:
                self._plan.read(length)
            pause = self._pace.owe(length, worked_s)
            began = time.monotonic()
            if pause:
                self._changed.wait_for(lambda: self._is_abandoned(wish) or self._paused, pause)
                self._pace.paid(time.monotonic() - began)
            if self._paused:
                self._changed.wait_for(lambda: self._is_abandoned(wish) or not self._paused, self._hold_s)
            if self._paused or self._is_abandoned(wish):
                raise _Abandoned

    def _is_abandoned(self, wish: HashWish) -> bool:
        return self._stopped or self._plan.in_hand is not wish


def _is_unchanged(wish: HashWish, file: BufferedReader, before: StatKey) -> bool:
    """Whether the open file, and the one that has its name, are still the one that was opened."""
    with contextlib.suppress(OSError):
        return before == key_of(os.fstat(file.fileno())) == key_of(os.stat(wish.path))
    return False
