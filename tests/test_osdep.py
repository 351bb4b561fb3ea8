"""The calls that differ between platforms do what their names say."""

from __future__ import annotations

import os
import subprocess
import sys

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
