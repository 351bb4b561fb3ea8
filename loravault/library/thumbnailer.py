"""Has pictures of strangers made small by a process of their own (`library/decode.py`), and never waits for it.

One thread starts the process when there is an order, hands it one picture at a time, and ends it when nothing came for
a while. What a picture does to the process (a crash, a hang, all its memory) becomes that picture's problem, in words.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loravault.library.decode import Order, Pipe, Small, frame, read_frame

COMMAND = (sys.executable, "-m", "loravault.library.decode")
#: A picture takes some milliseconds; a starved machine is waited for this long (seconds).
DEADLINE_S = 60.0
#: The process leaves after so long without an order (seconds).
IDLE_S = 3.0
#: A process that died may have been killed for somebody else's hunger: its picture is tried once more.
TRIES = 2

TOO_LONG = "decoding it took longer than {seconds:g} s and was stopped"
DIED = "the process that decoded it died"


@dataclass(frozen=True)
class _Wanted:
    order: Order
    body: bytes


class Thumbnailer:
    """Orders go in, answers come out; both at once return."""

    def __init__(
        self,
        *,
        wake: Callable[[], None] = lambda: None,
        command: Sequence[str] = COMMAND,
        deadline_s: float = DEADLINE_S,
        idle_s: float = IDLE_S,
    ) -> None:
        self._wake = wake
        self._command = command
        self._deadline_s = deadline_s
        self._idle_s = idle_s
        self._orders: queue.Queue[_Wanted | None] = queue.Queue()
        self._answers: queue.SimpleQueue[Small] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._number = 0

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        process = self._process
        return None if process is None else process.pid

    def order(self, source: str | bytes, *, blur: bool = False, chunk: str = "", png: bool = False) -> int:
        """Have a file (absolute path) or the bytes of one made small. Returns the number that its answer will have."""
        path, body = (source, b"") if isinstance(source, str) else (None, source)
        with self._lock:
            if self._closed:
                raise RuntimeError("this thumbnailer is closed")
            self._number += 1
            self._orders.put(_Wanted(Order(self._number, path, blur, chunk, png), body))
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="thumbnails", daemon=True)
                self._thread.start()
            return self._number

    def answers(self) -> list[Small]:
        """What came since the last call."""
        found: list[Small] = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._answers.get_nowait())
        return found

    def close(self) -> None:
        """End the process at once; orders without an answer have none."""
        with self._lock:
            self._closed = True
            thread, process = self._thread, self._process
        self._orders.put(None)
        if process is not None:
            process.kill()
        if thread is not None:
            thread.join(5.0)

    # ---- the thread

    def _serve(self) -> None:
        while (wanted := self._next()) is not None:
            answer = self._made_small(wanted)
            if not self._closed:
                self._answers.put(answer)
                self._wake()

    def _next(self) -> _Wanted | None:
        """The next order; None when it is time to leave. Then the process is gone."""
        try:
            wanted = self._orders.get(timeout=self._idle_s)
        except queue.Empty:
            with self._lock:  # an order that comes now finds either us or no thread, never one that is leaving
                if self._orders.empty():
                    self._thread = None
                    process, self._process = self._process, None
                    wanted = None
                else:
                    process, wanted = None, self._orders.get()
            _end(process)
        if self._closed:
            self._bury()
        return None if self._closed else wanted

    def _made_small(self, wanted: _Wanted) -> Small:
        problem = DIED
        for _ in range(TRIES):
            late = threading.Event()
            timer = threading.Timer(self._deadline_s, self._too_late, (late,))
            timer.daemon = True
            try:
                answer = self._asked(wanted, timer)
            except (OSError, ValueError, TypeError) as error:
                problem = self._buried(error)
            else:
                if answer is not None and answer.id == wanted.order.id:
                    return answer
                problem = self._buried(None)
            finally:
                timer.cancel()
            if late.is_set():
                return Small(wanted.order.id, problem=TOO_LONG.format(seconds=self._deadline_s))
            if self._closed:
                break
        return Small(wanted.order.id, problem=problem)

    def _asked(self, wanted: _Wanted, timer: threading.Timer) -> Small | None:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        timer.start()
        process.stdin.write(frame(vars(wanted.order), wanted.body))
        process.stdin.flush()
        stream: Pipe = process.stdout
        message = read_frame(stream)
        return None if message is None else Small(**message[0], data=message[1])

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            # A session of its own: Ctrl-C in the terminal is for the daemon. A neutral folder, and no look into it for
            # modules: the current one may be a stranger's vault.
            process = subprocess.Popen(
                list(self._command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=sys.prefix,
                env={**os.environ, "PYTHONSAFEPATH": "1"},
                start_new_session=True,
            )
            with self._lock:
                self._process = process
                if self._closed:
                    process.kill()
        return self._process

    def _too_late(self, late: threading.Event) -> None:
        process = self._process
        late.set()
        if process is not None:
            process.kill()

    def _buried(self, error: Exception | None) -> str:
        """End what is left of the process. Returns why it has no answer."""
        if not self._bury() and isinstance(error, OSError):
            return f"the process that decodes pictures could not be started ({error.strerror or error})"
        return DIED

    def _bury(self) -> bool:
        """Whether there was a process."""
        with self._lock:
            process, self._process = self._process, None
        _end(process)
        return process is not None


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is None:
        return
    for stream in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if stream is not None:
                stream.close()
    try:
        process.wait(1.0)  # the end of its stdin tells it to leave
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
