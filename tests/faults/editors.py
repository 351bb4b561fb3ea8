"""Editors as they save, in a process of their own; and what must hold of a vault after any crash."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

STYLES = ("in place", "rename", "vim", "slow", "append")


def save(path: Path, text: bytes, style: str) -> None:
    """Save `text` over the file as one kind of editor does; `append` adds it to what is there."""
    if style == "in place":  # Obsidian: truncate, write
        with path.open("wb") as file:
            file.write(text)
    elif style == "rename":
        temp = path.with_name(f".{path.name}.editor")
        temp.write_bytes(text)
        os.replace(temp, path)
    elif style == "vim":
        backup = path.with_name(path.name + "~")
        os.rename(path, backup)
        path.write_bytes(text)
        backup.unlink()
    elif style == "slow":
        with path.open("r+b", buffering=0) as file:
            file.truncate(0)
            for start in range(0, len(text), max(1, len(text) // 5)):
                file.write(text[start : start + max(1, len(text) // 5)])
                time.sleep(0.004)
    else:
        with path.open("ab") as file:
            time.sleep(0.0005)
            file.write(text)


class EditorProcess:
    """Another process that saves when it is told to, after a delay in seconds."""

    def __init__(self) -> None:
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.editors"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=root,
            text=True,
        )

    def start_save(self, path: Path, text: str, style: str, delay: float) -> None:
        """Tell the editor to save; `finish` waits until it has."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{delay}\t{style}\t{path}\t{text}\n")
        self._process.stdin.flush()

    def finish(self) -> str:
        """The editor's word after its save: `done` or what went wrong."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def serve() -> None:
    """The editor process: one save per line of standard input."""
    for line in sys.stdin:
        delay, style, path, text = line.rstrip("\n").split("\t")
        until = time.perf_counter() + float(delay)
        while time.perf_counter() < until:
            pass
        try:
            save(Path(path), text.encode(), style)
            print("done", flush=True)
        except OSError as error:
            print(f"failed {error}", flush=True)


def in_child(action: Callable[[], None], kill_after: float | None = None) -> int:
    """Run something in a forked child, perhaps killed after so many seconds; returns its wait status (0: it ended)."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def sealed(number: int, size: int = 60_000) -> bytes:
    """A text of about `size` bytes that proves by itself that it is whole."""
    body = (f"version {number}\n" + "words and more words\n" * (size // 21)).encode()
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def is_whole(data: bytes) -> bool:
    """Whether this is a `sealed` text, untorn."""
    seal, _, body = data.partition(b"\n")
    return seal == hashlib.sha256(body).hexdigest().encode()


def leftovers(root: Path) -> list[str]:
    """Temporary files and conflict copies in a vault."""
    return [p.name for p in root.rglob("*") if p.name.startswith(".lv-") or "loravault conflict" in p.name]


if __name__ == "__main__":
    serve()
