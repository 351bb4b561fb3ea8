"""The only place with calls that exist on one platform and not on another. Everything here has a portable answer.

Linux is promised and tested. macOS uses the same calls under other names; Windows gets the fallbacks.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

if sys.platform != "win32":
    import fcntl
    import resource

_MTIME_STEP_NS = 2_000_000  # Obsidian compares milliseconds
_AT_FDCWD_LINUX = -100
_RENAME_NOREPLACE_LINUX = 1
_RENAME_EXCHANGE_LINUX = 2
_RENAME_SWAP_MACOS = 2
_RENAME_EXCL_MACOS = 4
_PR_SET_PDEATHSIG = 1
_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}


@cache
def _rename_call() -> Callable[[bytes, bytes, int], int] | None:
    """A C call `rename with flags` of this platform, or None. Flags are the platform's own."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if sys.platform.startswith("linux"):
            renameat2 = libc.renameat2
            renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
            return lambda a, b, flags: int(renameat2(_AT_FDCWD_LINUX, a, _AT_FDCWD_LINUX, b, flags))
        if sys.platform == "darwin":
            renamex_np = libc.renamex_np
            renamex_np.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint]
            return lambda a, b, flags: int(renamex_np(a, b, flags))
    except (OSError, AttributeError, TypeError):
        return None
    return None


def _rename_flagged(a: Path | str, b: Path | str, linux_flag: int, macos_flag: int) -> bool:
    """True if it was done, False where the file system or the platform cannot; other failures raise OSError."""
    call = _rename_call()
    if call is None:
        return False
    if call(os.fsencode(a), os.fsencode(b), linux_flag if sys.platform.startswith("linux") else macos_flag) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(a), None, str(b))


def exchange(a: Path, b: Path) -> bool:
    """Swap two files atomically. False if this file system cannot (nothing has changed then)."""
    return _rename_flagged(a, b, _RENAME_EXCHANGE_LINUX, _RENAME_SWAP_MACOS)


def replace_no_overwrite(source: Path | str, target: Path | str) -> None:
    """Give `source` the name `target`; raises FileExistsError if that name is taken."""
    if _rename_flagged(source, target, _RENAME_NOREPLACE_LINUX, _RENAME_EXCL_MACOS):
        return
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        # No hard links either (exFAT, some network drives). Claim the name first, so that nobody's file is replaced.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        os.replace(source, target)
    else:
        os.unlink(source)


def fsync_dir(path: Path) -> None:
    """Make renames in this folder durable. Where folders cannot be opened or synced there is nothing to do."""
    if sys.platform == "win32":
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # network file systems
            raise
    finally:
        os.close(descriptor)


def fsync_file(path: Path | str) -> None:
    """Make a file's content durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


#: From this many files on, asking the file system once is cheaper than asking for each.
_MANY = 16


def sync_folders(paths: Sequence[Path]) -> None:
    """Make renames in folders of one file system durable: in many at once where the platform can."""
    if len(paths) > _MANY and sys.platform.startswith("linux") and _sync_file_system(paths[0]):
        return
    for path in paths:
        fsync_dir(path)


def sync_files(paths: Sequence[Path | str]) -> None:
    """Make the content of files on one file system durable: of many at once where the platform can."""
    if len(paths) > _MANY and sys.platform.startswith("linux") and _sync_file_system(paths[0]):
        return
    for path in paths:
        fsync_file(path)


def _sync_file_system(path: Path | str) -> bool:
    """Linux: everything that was written to the file system of `path`; False where that call is not to be had."""
    try:
        call = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return bool(call(descriptor) == 0)
    finally:
        os.close(descriptor)


def advance_mtime(path: Path, older: Path) -> None:
    """Obsidian sees an outside change only by mtime (in ms) or size; sync tools keep the newer of two files."""
    least = older.stat().st_mtime_ns + _MTIME_STEP_NS
    status = path.stat()
    if status.st_mtime_ns < least:
        os.utime(path, ns=(status.st_atime_ns, least))


def copy_metadata(source: Path, target: Path) -> None:
    """Give `target` the mode, owner and extended attributes of `source`, as far as this user may."""
    status = source.stat()
    with contextlib.suppress(OSError):
        target.chmod(status.st_mode & 0o7777)
    if hasattr(os, "chown") and (os.geteuid() == 0 or target.stat().st_gid != status.st_gid):
        with contextlib.suppress(OSError):
            os.chown(target, status.st_uid if os.geteuid() == 0 else -1, status.st_gid)
    if hasattr(os, "listxattr"):
        with contextlib.suppress(OSError):
            for name in os.listxattr(source):
                os.setxattr(target, name, os.getxattr(source, name))


class Lock:
    """A held lock on a file; released by `release`, at the end of a `with` block, or by the end of the process."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor: int | None = descriptor
        self.path = path

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would let two processes lock two files of one name."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def lock_file(path: Path) -> Lock | int | None:
    """Take the lock at `path` (made if need be, mode 0600) and write our pid into it.

    If someone else holds it: their pid, or None if they have not written it yet. The operating system frees the lock
    when its holder dies, however it dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _try_lock(descriptor):
            pid = _read_pid(descriptor)
            os.close(descriptor)
            return pid
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        raise
    return Lock(descriptor, path)


def lock_holder(path: Path) -> int | None:
    """The pid of the process that holds the lock at `path`; None if nobody does (or has not said so yet)."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        return None if _try_lock(descriptor) else _read_pid(descriptor)
    finally:
        os.close(descriptor)


def _read_pid(descriptor: int) -> int | None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    text = os.read(descriptor, 32).split(b"\n", 1)[0]
    return int(text) if text.isdigit() else None


def _try_lock(descriptor: int) -> bool:
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415 - exists on Windows only

        windows: Any = msvcrt
        try:
            os.lseek(descriptor, 1024, os.SEEK_SET)  # beyond the pid, so that others may read it
            windows.locking(descriptor, windows.LK_NBLCK, 1)
        except OSError:
            return False
        os.lseek(descriptor, 0, os.SEEK_SET)
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def parent_death_signal() -> None:
    """Ask for SIGKILL when the parent dies (Linux). Elsewhere the end of standard input has to do."""
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def shared_memory(size: int) -> int:
    """A descriptor of so many bytes of memory that a child may inherit. Raises `OSError`.

    Where the platform has no memory without a name (macOS), it is a file that nobody else can open.
    """
    if sys.platform.startswith("linux"):
        descriptor = os.memfd_create("loravault")
    else:
        descriptor, path = tempfile.mkstemp(prefix="loravault-")
        os.unlink(path)
    try:
        os.ftruncate(descriptor, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def rss_bytes(pid: int | None = None) -> int | None:
    """Resident memory of a process (this one by default); None where it cannot be told."""
    try:
        pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError, AttributeError):
        pass
    if pid is not None or sys.platform == "win32":
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # the best there is without /proc: the peak
    return peak if sys.platform == "darwin" else peak * 1024


_BACKGROUND_NICENESS = 10
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_IDLE = 3 << 13
#: `ioprio_set` has no name in any C library; its number, where it is not the one of all newer machines.
_IOPRIO_SET = {"x86_64": 251, "i686": 289, "armv7l": 314, "ppc64le": 273, "s390x": 282}
_IOPRIO_SET_ELSEWHERE = 30
_QOS_BACKGROUND_MACOS = 0x09
_BACKGROUND_BEGIN_WINDOWS = 0x00010000
_CACHE_PROBES = 16


def lower_thread_priority() -> None:
    """Put the calling thread (not its process) behind everything else: processor and disk. Cannot be taken back."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        if sys.platform.startswith("linux"):
            thread = threading.get_native_id()  # niceness belongs to the thread on Linux, whatever POSIX says
            now = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, min(19, now + _BACKGROUND_NICENESS))
            number = _IOPRIO_SET.get(os.uname().machine, _IOPRIO_SET_ELSEWHERE)
            ctypes.CDLL(None, use_errno=True).syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_IDLE)
        elif sys.platform == "darwin":
            ctypes.CDLL(None).pthread_set_qos_class_self_np(_QOS_BACKGROUND_MACOS, 0)
        elif sys.platform == "win32":
            kernel: Any = ctypes.windll.kernel32
            kernel.SetThreadPriority(kernel.GetCurrentThread(), _BACKGROUND_BEGIN_WINDOWS)


def advise_sequential(descriptor: int) -> None:
    """Tell the kernel that a file is going to be read once from its beginning to its end."""
    _advise(descriptor, 0, 0, "POSIX_FADV_SEQUENTIAL")


def drop_from_cache(descriptor: int, start: int, length: int) -> None:
    """Tell the kernel that these bytes are not needed again: a terabyte read once shall not evict what others use."""
    _advise(descriptor, start, length, "POSIX_FADV_DONTNEED")


def _advise(descriptor: int, start: int, length: int, advice: str) -> None:
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, start, length, getattr(os, advice))


def is_in_cache(descriptor: int, size: int) -> bool:
    """Whether most of a file is in memory already (somebody uses it), by sixteen looks. False where none can tell.

    Each look may fetch the page it looked at: ask once.
    """
    flag = getattr(os, "RWF_NOWAIT", None)
    if flag is None or size <= 0:
        return False
    there = 0
    _advise(descriptor, 0, 0, "POSIX_FADV_RANDOM")  # else a look fetches what the next one finds
    for probe in range(_CACHE_PROBES):
        with contextlib.suppress(OSError):
            there += os.preadv(descriptor, [bytearray(1)], size * probe // _CACHE_PROBES, flag) == 1
    _advise(descriptor, 0, 0, "POSIX_FADV_NORMAL")
    return 2 * there > _CACHE_PROBES


def limit_process(memory: int) -> None:
    """Let this process have at most so many bytes of address space, and write no file and no core. POSIX only."""
    if sys.platform == "win32":
        return
    for limit, value in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(OSError, ValueError):  # macOS refuses some, and a stricter limit may be in force
            resource.setrlimit(limit, (value, value))


def limit_cpu(seconds: int) -> None:
    """Let this process use so many more seconds of processor from now on, then the kernel ends it. POSIX only."""
    if sys.platform == "win32":
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        wanted = int(used.ru_utime + used.ru_stime) + 1 + seconds
        resource.setrlimit(resource.RLIMIT_CPU, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
