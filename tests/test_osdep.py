"""The calls that differ between platforms do what their names say."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from loravault import osdep


def test_exchange_swaps_two_files_or_says_that_it_cannot(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"A")
    b.write_bytes(b"B")
    swapped = osdep.exchange(a, b)
    assert (a.read_bytes(), b.read_bytes()) == ((b"B", b"A") if swapped else (b"A", b"B"))
    if sys.platform.startswith("linux"):
        assert swapped
        with pytest.raises(FileNotFoundError):
            osdep.exchange(a, tmp_path / "missing")


@pytest.mark.parametrize("how", ["flag", "link", "claim"])
def test_a_file_is_never_renamed_over_another(tmp_path, monkeypatch, how):
    if how != "flag":
        monkeypatch.setattr(osdep, "_rename_call", lambda: None)
    if how == "claim":
        monkeypatch.setattr(os, "link", lambda *a: (_ for _ in ()).throw(PermissionError()))
    source, target = tmp_path / "s", tmp_path / "t"
    source.write_bytes(b"S")
    osdep.replace_no_overwrite(source, target)
    assert (target.read_bytes(), source.exists()) == (b"S", False)
    source.write_bytes(b"again")
    with pytest.raises(FileExistsError):
        osdep.replace_no_overwrite(source, target)
    assert (target.read_bytes(), source.read_bytes()) == (b"S", b"again")


def test_a_lock_has_one_holder_whose_pid_the_others_learn(tmp_path):
    path = tmp_path / "state" / "lock"
    lock = osdep.lock_file(path)
    assert isinstance(lock, osdep.Lock)
    code = "import sys; from pathlib import Path; from loravault.osdep import *; print(lock_file(Path(sys.argv[1])))"
    other = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(os.getpid())
    assert osdep.lock_holder(path) == os.getpid()
    with lock:
        pass
    assert osdep.lock_holder(path) is None
    again = osdep.lock_file(path)
    assert isinstance(again, osdep.Lock)
    again.release()
    again.release()


def test_a_lock_is_free_as_soon_as_its_holder_was_killed(tmp_path):
    path = tmp_path / "lock"
    code = (
        "import os, sys, signal; from pathlib import Path; from loravault.osdep import lock_file\n"
        "lock = lock_file(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    lock = osdep.lock_file(path)
    assert isinstance(lock, osdep.Lock)
    lock.release()


def test_memory_is_told_for_this_process_and_for_none_that_is_gone():
    assert osdep.rss_bytes() > 1_000_000
    assert osdep.rss_bytes(2**22 + 1) is None


def test_syncing_a_folder_that_is_gone_is_no_error(tmp_path):
    osdep.fsync_dir(tmp_path)
    osdep.fsync_dir(tmp_path / "missing")


def test_a_thread_lowers_itself_and_not_its_process():
    """On Linux niceness belongs to a thread; the daemon's own loop must stay as quick as it was."""
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    inside = []

    def lower():
        osdep.lower_thread_priority()
        inside.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    thread = threading.Thread(target=lower)
    thread.start()
    thread.join()
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
    if sys.platform.startswith("linux"):
        assert inside == [min(19, before + 10)]


def test_hints_about_reading_change_no_byte_and_fail_for_nobody(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"weights" * 100_000)
    with open(path, "rb") as file:
        osdep.advise_sequential(file.fileno())
        osdep.drop_from_cache(file.fileno(), 0, 4096)
        assert file.read() == b"weights" * 100_000
        number = file.fileno()
    osdep.advise_sequential(number)  # closed by now
    osdep.drop_from_cache(number, 0, 0)
    assert not osdep.is_in_cache(number, 1000)
    assert not osdep.is_in_cache(-1, 0)


def test_what_was_just_written_is_in_memory_where_that_can_be_told(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(1 << 20))
    with open(path, "rb") as file:
        try:
            os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
        except (OSError, AttributeError):
            pytest.skip("this file system cannot tell")
        assert osdep.is_in_cache(file.fileno(), 1 << 20)


def test_what_was_dropped_is_soon_not_in_memory(tmp_path):
    """A hint, no order: the kernel keeps what is in use at that moment."""
    path = tmp_path / "x"
    path.write_bytes(bytes(1 << 21))
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        for _ in range(100):
            osdep.drop_from_cache(file.fileno(), 0, 0)
            if not osdep.is_in_cache(file.fileno(), 1 << 21):
                return
            time.sleep(0.01)
    pytest.skip("this file system keeps everything")
