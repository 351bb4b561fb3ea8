"""The thread that hashes: what it reports is true of the file that was wished for, and it never holds anybody up."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loravault.formats import hashes as formats
from loravault.formats.hashes import file_hashes
from loravault.library import hashing
from loravault.library.hashing import BackgroundHasher, HashResult, HashWish
from tests.formats import headers

OLD = 1_600_000_000


def adapter(path: Path, fill: int = 1, rows: int = 8) -> Path:
    headers.write(path, headers.adapter({"x": (rows, 64)}, fill=fill))
    os.utime(path, (OLD, OLD))
    return path


def wish(path: Path, **changes: Any) -> HashWish:
    status = path.stat()
    return HashWish(
        "loras", path.name, path, changes.get("size", status.st_size), changes.get("ns", status.st_mtime_ns)
    )


class Hasher(BackgroundHasher):
    """Full speed; stops at the end of a test; `wait` gives what came, in its order."""

    def __init__(self, **options: Any) -> None:
        self.ready = threading.Event()
        super().__init__(self.ready.set, **{"duty": 1.0, **options})

    def __enter__(self) -> Hasher:
        return self

    def __exit__(self, *_error: object) -> None:
        assert self.stop()

    def wait(self, count: int) -> list[HashResult]:
        found: list[HashResult] = []
        give_up = time.monotonic() + 10
        while len(found) < count and time.monotonic() < give_up:
            self.ready.wait(0.05)
            self.ready.clear()
            found += self.take_results()
        return found

    def idle(self) -> None:
        until(lambda: not self.progress().busy)


def until(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.002)


class Gate:
    """Stops the reading of files between two chunks, until it is opened."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.inside, self.go = threading.Event(), threading.Event()
        real = formats.hashes_of

        def hashes_of(file: Any, on_read: Any = None) -> Any:
            def gated(length: int) -> None:
                self.inside.set()
                self.go.wait(10)
                on_read(length)

            return real(file, gated)

        patch.setattr(formats, "CHUNK", 64)
        patch.setattr(hashing, "hashes_of", hashes_of)


def test_files_get_their_hashes_and_the_daemon_is_woken(tmp_path: Path) -> None:
    paths = [adapter(tmp_path / f"{n}.safetensors", fill=n) for n in range(4)]
    with Hasher() as hasher:
        assert hasher.take_results() == []
        hasher.want(map(wish, paths))
        found = {one.rel: one for one in hasher.wait(4)}
        assert [found[path.name].hashes for path in paths] == [file_hashes(path) for path in paths]
        assert all(one.problem is None and one.root == "loras" for one in found.values())
        assert found["1.safetensors"].size == paths[1].stat().st_size
        progress = hasher.progress()
        assert (progress.done, progress.total, progress.name) == (4, 4, None)
        assert progress.bytes_done == progress.bytes_total == sum(path.stat().st_size for path in paths)


def test_many_small_files_do_not_wake_the_daemon_for_each_and_the_last_is_announced(tmp_path: Path) -> None:
    """Each wake is a round of the daemon's loop with a commit: a thousand a second would be all it does."""
    woken: list[float] = []
    hasher = BackgroundHasher(lambda: woken.append(time.monotonic()), duty=1.0)
    hasher.want([wish(adapter(tmp_path / f"{n}.safetensors")) for n in range(200)])
    until(lambda: not hasher.progress().busy)
    until(lambda: len(woken) >= 2)
    found = hasher.take_results()
    assert hasher.stop()
    assert len(found) == 200
    assert len(woken) <= 2 + (woken[-1] - woken[0]) / hashing.ANNOUNCE_S


def test_no_thread_is_started_while_there_is_nothing_to_do() -> None:
    before = threading.active_count()
    with Hasher() as hasher:
        hasher.want([])
        hasher.pause()
        hasher.resume()
        assert threading.active_count() == before


def test_a_file_that_grows_while_it_is_hashed_is_not_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = adapter(tmp_path / "a.safetensors"), adapter(tmp_path / "b.safetensors")
    gate = Gate(monkeypatch)
    with Hasher() as hasher:
        hasher.want([wish(path)])
        assert gate.inside.wait(10)
        with open(path, "ab") as file:
            file.write(b"more")
        gate.go.set()
        hasher.idle()
        hasher.want([wish(other)])
        assert [one.rel for one in hasher.wait(1)] == ["b.safetensors"]


def test_a_file_that_is_replaced_by_one_of_equal_size_and_time_is_not_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = adapter(tmp_path / "a.safetensors"), adapter(tmp_path / "b.safetensors", fill=2)
    gate = Gate(monkeypatch)
    with Hasher() as hasher:
        hasher.want([wish(path)])
        assert gate.inside.wait(10)
        other.replace(path)
        gate.go.set()
        hasher.idle()
        assert hasher.take_results() == []
        hasher.want([wish(path)])
        assert hasher.wait(1)[0].hashes == file_hashes(path)


def test_a_file_that_vanishes_before_or_while_it_is_hashed_is_not_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = adapter(tmp_path / "a.safetensors"), adapter(tmp_path / "b.safetensors")
    wishes = [wish(first), wish(second)]
    first.unlink()
    gate = Gate(monkeypatch)
    with Hasher() as hasher:
        hasher.want(wishes)
        assert gate.inside.wait(10)
        second.unlink()
        gate.go.set()
        hasher.idle()
        assert hasher.take_results() == []
        assert hasher.progress().done == 2


def test_another_version_than_the_one_wished_for_is_not_reported(tmp_path: Path) -> None:
    path = adapter(tmp_path / "a.safetensors")
    with Hasher() as hasher:
        hasher.want([wish(path, size=5)])
        hasher.idle()
        hasher.want([wish(path, ns=OLD)])
        hasher.idle()
        assert hasher.take_results() == []


def test_what_is_wrong_is_told_in_words_and_costs_only_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = adapter(tmp_path / "good.safetensors")
    broken = headers.write(tmp_path / "broken.safetensors", b"<html>not found</html>")
    bug = adapter(tmp_path / "bug.safetensors")
    worse = adapter(tmp_path / "worse.safetensors")
    for path in (broken, bug, worse):
        os.utime(path, (OLD + 5, OLD + 5))
    real = formats.hashes_of

    def hashes_of(file: Any, on_read: Any = None) -> Any:
        if "bug" in file.name:
            raise KeyError("x")
        if "worse" in file.name:
            raise OSError(5, "Input/output error")
        return real(file, on_read)

    monkeypatch.setattr(hashing, "hashes_of", hashes_of)
    with Hasher() as hasher:
        hasher.want(map(wish, (good, broken, bug, worse)))
        found = {one.rel: one for one in hasher.wait(4)}
    assert found["good.safetensors"].hashes == file_hashes(good)
    assert "web page" in (found["broken.safetensors"].problem or "")
    assert found["bug.safetensors"].problem == "a bug in loravault (KeyError: 'x')"
    assert found["worse.safetensors"].problem == "it cannot be read (Input/output error)"
    assert all(found[name].hashes is None for name in found if name != "good.safetensors")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_in_the_place_of_a_file_does_not_hang_the_thread(tmp_path: Path) -> None:
    path = tmp_path / "pipe.safetensors"
    os.mkfifo(path)
    os.utime(path, (OLD, OLD))
    with Hasher() as hasher:
        hasher.want([wish(path)])
        hasher.idle()


def test_stopping_in_the_middle_of_a_file_is_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At this rate the file would take an hour."""
    monkeypatch.setattr(formats, "CHUNK", 1024)
    path = adapter(tmp_path / "a.safetensors", rows=4096)
    hasher = Hasher(rate_limit=path.stat().st_size / 3600)
    hasher.want([wish(path)])
    until(lambda: hasher.progress().bytes_done > 0)
    began = time.monotonic()
    assert hasher.stop()
    assert time.monotonic() - began <= 0.3
    assert hasher.take_results() == []
    hasher.want([wish(path)])
    assert hasher.stop(), "stopped is stopped"


def test_a_read_that_hangs_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    hasher = Hasher()
    hasher.want([wish(adapter(tmp_path / "a.safetensors"))])
    assert gate.inside.wait(10)
    began = time.monotonic()
    assert not hasher.stop()
    assert time.monotonic() - began < 1
    gate.go.set()
    until(hasher.stop)


def test_the_thread_does_not_keep_the_process_from_ending(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from loravault.library.hashing import *\n"
        "path = Path(sys.argv[1]); status = path.stat(); hasher = BackgroundHasher(rate_limit=1.0)\n"
        "hasher.want([HashWish('r', path.name, path, status.st_size, status.st_mtime_ns)])\n"
        "while not hasher.progress().bytes_done: pass\n"
        "print('left')"
    )
    path = adapter(tmp_path / "a.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=30, check=True
    )
    assert (done.stdout, done.stderr) == ("left\n", "")


def test_a_pause_holds_the_file_and_goes_on_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    path = adapter(tmp_path / "a.safetensors")
    with Hasher() as hasher:
        hasher.want([wish(path)])
        assert gate.inside.wait(10)
        hasher.pause()
        gate.go.set()
        until(lambda: hasher.progress().bytes_done == 64)
        time.sleep(0.02)
        assert hasher.progress().bytes_done == 64
        assert hasher.progress().paused
        hasher.resume()
        assert hasher.wait(1)[0].hashes == file_hashes(path)


def test_a_long_pause_gives_the_file_back_and_begins_it_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drive could not be taken out while a paused hasher kept a file of it open."""
    gate = Gate(monkeypatch)
    path = adapter(tmp_path / "a.safetensors")
    with Hasher(hold_s=0.01) as hasher:
        hasher.want([wish(path)])
        assert gate.inside.wait(10)
        hasher.pause()
        gate.go.set()
        until(lambda: hasher.progress().name is None)
        assert hasher.progress().done == 0
        hasher.resume()
        assert hasher.wait(1)[0].hashes == file_hashes(path)


def test_a_file_that_is_no_longer_wanted_is_left_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    first, second = adapter(tmp_path / "a.safetensors"), adapter(tmp_path / "b.safetensors")
    with Hasher() as hasher:
        hasher.want([wish(first)])
        assert gate.inside.wait(10)
        hasher.want([wish(second)])
        gate.go.set()
        assert [one.rel for one in hasher.wait(1)] == ["b.safetensors"]
        assert hasher.progress().total == 1


def test_a_file_that_just_changed_is_hashed_when_it_has_settled(tmp_path: Path) -> None:
    path = adapter(tmp_path / "a.safetensors")
    clock = [OLD + 1.9]
    with Hasher(clock=lambda: clock[0]) as hasher:
        hasher.want([wish(path)])
        time.sleep(0.02)
        assert hasher.take_results() == []
        clock[0] = OLD + 2.0
        assert hasher.wait(1)[0].rel == path.name


@pytest.mark.parametrize("used", [True, False])
def test_what_is_read_is_not_left_in_memory_unless_it_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: bool
) -> None:
    """Hashing a terabyte would push out everything else; but what somebody uses at the moment is to stay."""
    path = adapter(tmp_path / "a.safetensors", rows=100)
    dropped: list[tuple[int, int]] = []
    monkeypatch.setattr(formats, "CHUNK", 1000)
    monkeypatch.setattr(hashing, "_FORGET_EVERY", 5000)
    monkeypatch.setattr(hashing, "is_in_cache", lambda _number, _size: used)
    monkeypatch.setattr(hashing, "drop_from_cache", lambda _number, start, length: dropped.append((start, length)))
    with Hasher() as hasher:
        hasher.want([wish(path)])
        assert hasher.wait(1)[0].hashes == file_hashes(path)
    assert dropped == ([] if used else [(0, 5000), (5000, 5000), (0, 0)])


def test_a_file_of_many_reads_has_the_sum_of_its_bytes(tmp_path: Path) -> None:
    path = adapter(tmp_path / "a.safetensors", rows=20_000)
    with Hasher() as hasher:
        hasher.want([wish(path)])
        found = hasher.wait(1)[0].hashes
    assert found is not None
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
