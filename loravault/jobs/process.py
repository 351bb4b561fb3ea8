"""A child process with a line protocol on its pipes: threads that read and write, so that its owner never waits."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from loravault.errors import UserError
from loravault.jobs.protocol import MAX_ANSWER_LINE, LineSplitter, ProtocolError
from loravault.jobs.silence import Silence

#: Lines that wait for `received`; when they are that many the reader stops and the child's writes block.
BACKLOG = 4096
#: The log is turned over at this size; one older file is kept.
MAX_LOG = 4 << 20
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Garbage:
    """Something that cannot be cut into lines."""

    reason: str


@dataclass(frozen=True)
class End:
    """The process is gone. `returncode` is negative for a signal, None if it closed its stdout and lives on."""

    returncode: int | None
    #: The last line it wrote to stderr.
    last_words: str = ""


class WorkerProcess:
    """The process, its pipes and its log. The stderr of the child goes into the log, line by line, bounded."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], log_path: Path | None, wake: Callable[[], None]
    ) -> None:
        self._wake = wake
        self._log = _Log(log_path)
        self._incoming: queue.Queue[bytes | Garbage] = queue.Queue(BACKLOG)
        self._end: End | None = None
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._deaf = threading.Event()
        self._last_words: deque[str] = deque(maxlen=20)
        try:
            # A session of its own: Ctrl-C in the terminal is for the daemon, which then says good-bye in order.
            # A neutral folder: `python -m` would look for modules in the current one, which may be a stranger's vault.
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=sys.prefix,
                env=dict(env),
                start_new_session=True,
            )
        except OSError as error:
            raise UserError(f"The worker could not be started: {error.strerror or error}.") from error
        self.log(f"worker {self.pid} started")
        stderr = threading.Thread(target=self._read_stderr, name="worker-stderr", daemon=True)
        self._threads = (
            stderr,
            threading.Thread(target=self._read_stdout, args=(stderr,), name="worker-stdout", daemon=True),
            threading.Thread(target=self._write_stdin, name="worker-stdin", daemon=True),
        )
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def received(self) -> list[bytes | Garbage | End]:
        """What came since the last call; an `End` is always the last item there will ever be."""
        end, self._end = self._end, None  # before the queue is read: nothing is put behind an end
        items: list[bytes | Garbage | End] = []
        with contextlib.suppress(queue.Empty):
            while True:
                items.append(self._incoming.get_nowait())
        return [*items, end] if end else items

    def send(self, line: bytes) -> None:
        """Queues a line for the child; a child that does not read costs nothing but memory."""
        self._outgoing.put(line)

    def log(self, text: str) -> None:
        """A line in the worker's log."""
        self._log.write(text)

    def dismiss(self) -> None:
        """Closes the child's stdin behind what was sent: it leaves when it has read that. Only its end is told."""
        self._deaf.set()
        self._outgoing.put(None)

    def terminate(self) -> None:
        """SIGTERM, and closes its stdin."""
        self.dismiss()
        self._process.terminate()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def end(self, give_up: float) -> None:
        """Waits for a dismissed child until `give_up` (`time.monotonic`), then SIGTERM, then SIGKILL."""
        for step in (self._process.terminate, self._process.kill, None):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.05, give_up - time.monotonic()))
                break
            if step is not None:
                step()
            give_up = time.monotonic() + 0.5
        for thread in self._threads:
            thread.join(1.0)
        self._log.close()

    # ---- the three threads

    def _read_stdout(self, stderr: threading.Thread) -> None:
        stream = self._process.stdout
        assert stream is not None
        lines = LineSplitter(MAX_ANSWER_LINE)
        while data := _read(stream):
            if self._deaf.is_set():
                continue
            try:
                for line in lines.feed(data):
                    self._put(line)
            except ProtocolError as error:
                self._put(Garbage(str(error)))
                self._deaf.set()
        stream.close()
        returncode = self._reap()
        stderr.join(1.0)
        if lines.pending and not self._deaf.is_set():
            self._put(Garbage("half a line"))
        self.log(f"worker {self.pid} ended: {returncode}")
        self._outgoing.put(None)
        self._end = End(returncode, self._last_words[-1] if self._last_words else "")
        self._wake()

    def _reap(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(2.0)
        self._process.kill()  # it closed its stdout, so no answer can ever come
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(2.0)
        return None

    def _put(self, item: bytes | Garbage) -> None:
        while not self._deaf.is_set():
            try:
                self._incoming.put(item, timeout=0.2)
            except queue.Full:
                self._wake()
                continue
            self._wake()
            return

    def _read_stderr(self) -> None:
        stream = self._process.stderr
        assert stream is not None
        rest = b""
        while data := _read(stream):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > _CHUNK:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._hear(line)
        if rest:
            self._hear(rest)
        stream.close()

    def _hear(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()[:2000]
        if text:
            self._last_words.append(text)
            self.log(text)

    def _write_stdin(self) -> None:
        stream = self._process.stdin
        assert stream is not None
        with contextlib.suppress(OSError, ValueError):
            while (line := self._outgoing.get()) is not None:
                view = memoryview(line)
                while view:
                    view = view[os.write(stream.fileno(), view) :]
        with contextlib.suppress(OSError):
            stream.close()


class _Log:
    """An append-only text file that is turned over once it is large; without a path it goes nowhere."""

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.Lock()
        self._path = path
        self._file: BinaryIO | None = None
        self._size = 0

    def write(self, text: str) -> None:
        if self._path is None:
            return
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n".encode("utf-8", "replace")
        with self._lock, contextlib.suppress(OSError):  # a full disk must not end a job that could be finished
            self._open(self._path)
            if self._file is not None:
                self._file.write(line)
                self._size += len(line)

    def _open(self, path: Path) -> None:
        if self._file is not None and self._size > MAX_LOG:
            self._file.close()
            self._file = None
            os.replace(path, path.with_name(path.name + ".1"))
        if self._file is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "ab", buffering=0, opener=_private)  # noqa: SIM115 - lives as long as the worker
            self._size = os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _read(stream: object) -> bytes:
    try:
        return os.read(stream.fileno(), _CHUNK)  # type: ignore[attr-defined]
    except (OSError, ValueError):
        return b""


_SIGNALS = {
    "SIGKILL": "The worker was killed, most likely because memory ran out",
    "SIGSEGV": "The worker crashed (segmentation fault)",
    "SIGBUS": "The worker crashed while reading a file that was cut short or replaced at that moment",
    "SIGABRT": "The worker aborted",
    "SIGILL": "The worker crashed: its libraries use instructions that this processor lacks",
}


def death_in_words(end: End, phase: str) -> str:
    """One sentence about how a process ended."""
    code = end.returncode
    if code is None or code == 0:
        return f"The worker left in the phase “{phase}” without an answer."
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"{_SIGNALS.get(name, f'The worker was ended by {name}')} in the phase “{phase}”."
    said = f": {end.last_words[:300]}" if end.last_words else ""
    return f"The worker stopped in the phase “{phase}” with exit code {code}{said}."


@dataclass
class Spawned:
    """A worker process with what is known of it."""

    process: WorkerProcess
    silence: Silence
    greeted: bool = False
    noise: int = 0
    phase: str = "start"
    #: Set once we decided that it has to go: the moment of SIGTERM.
    term_at: float | None = None
    #: Why we ended it, in words; empty when it was asked to leave.
    fault: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    device: str = ""
