"""What the background hashing costs over a bare loop that feeds the same states from the same files, in turns.

Both sides run in a thread of their own in this process, behind everything else; ours brings the queue, the header, the
check that no file changed, progress, and the way out between two reads. A row with `duty 0.5` tells what is left to
others with the daemon's own setting. The single hashes are one state each over one file, processor time.

    python -m benchmarks.hashing [--megabytes 512] [--files 8] [--pairs 7] [--write]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from blake3 import blake3

from benchmarks import pairs
from loravault.formats.hashes import CHUNK
from loravault.library.hashing import BackgroundHasher, HashResult, HashWish
from loravault.osdep import lower_thread_priority

#: Older than anything that would be waited for as not yet settled.
_OLD = 1_600_000_000


def files_in(folder: Path, count: int, length: int) -> list[Path]:
    """`count` adapters with `length` bytes of weights each, all different, read into memory once."""
    block = os.urandom(1 << 20)
    table = b'{"x":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (length, length)
    found = []
    for number in range(count):
        path = folder / f"{number}.safetensors"
        with open(path, "wb") as file:
            file.write(len(table).to_bytes(8, "little") + table)
            for start in range(0, length, len(block)):
                mixed = (number * 1000 + start).to_bytes(8, "little") + block
                file.write(mixed[: min(len(block), length - start)])
            os.fsync(file.fileno())
        os.utime(path, (_OLD, _OLD))
        path.read_bytes()  # both sides find it in memory: the disk is not what is compared
        found.append(path)
    return found


def bare(paths: Sequence[Path]) -> None:
    """One read, all states: SHA256 twice (file and weights), BLAKE3, CRC32; the window of AutoV1 is 64 KiB."""
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    for path in paths:
        whole, weights, tree, checksum = hashlib.sha256(), hashlib.sha256(), blake3(), 0
        with open(path, "rb") as file:
            while length := file.readinto(buffer):
                chunk = view[:length]
                whole.update(chunk)
                weights.update(chunk)
                tree.update(chunk)
                checksum = zlib.crc32(chunk, checksum)


def ours(paths: Sequence[Path], duty: float = 1.0) -> None:
    """The daemon's way: wish, wait, take."""
    ready = threading.Event()
    hasher = BackgroundHasher(ready.set, duty=duty)
    stats = [(path, path.stat()) for path in paths]
    hasher.want(HashWish("b", path.name, path, status.st_size, status.st_mtime_ns) for path, status in stats)
    results: list[HashResult] = []
    while len(results) < len(paths):
        ready.wait(1)
        ready.clear()
        results += hasher.take_results()
    hasher.stop()
    assert all(result.hashes for result in results)


def in_background(work: Callable[[], None]) -> None:
    """Run it where ours runs: in a thread behind everything else."""

    def run() -> None:
        lower_thread_priority()
        work()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def single(path: Path, rounds: int) -> list[tuple[str, float]]:
    """(what, GB per second of processor) for each hash alone, the best of the rounds."""
    feeds: list[tuple[str, Callable[[], Callable[[memoryview], object]]]] = [
        ("SHA256, AutoV2, AutoV3: each", lambda: hashlib.sha256().update),
        ("BLAKE3", lambda: blake3().update),
        ("CRC32", lambda: zlib.crc32),
        ("reading alone", lambda: len),
    ]
    return [(what, max(_speed(path, feed()) for _ in range(rounds))) for what, feed in feeds]


def _speed(path: Path, feed: Callable[[memoryview], object]) -> float:
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    began = time.process_time()
    with open(path, "rb") as file:
        while length := file.readinto(buffer):
            feed(view[:length])
    return path.stat().st_size / (time.process_time() - began) / 1e9


def main() -> None:
    """Measure, print, and paste if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--megabytes", type=int, default=512, help="of all files together")
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="paste the figures into docs/promises.md")
    options = parser.parse_args()
    length = options.megabytes * 10**6 // options.files
    with tempfile.TemporaryDirectory() as folder:
        paths = files_in(Path(folder), options.files, length)
        costs = list(
            pairs.in_turns(
                pairs.measured(lambda _: in_background(lambda: bare(paths))),
                pairs.measured(lambda _: ours(paths)),
                options.pairs,
            )
        )
        clock, cpu = pairs.measured(lambda _: ours(paths, 0.5))(0)
        alone = single(paths[0], options.pairs)
    total = options.files * length / 1e9
    told = f"{options.files} files, {total:.2f} GB, all six hashes"
    rows = [
        pairs.row(f"{told}, {what}", [(theirs[column], mine[column]) for theirs, mine in costs])
        for column, what in enumerate(("clock", "processor"))
    ]
    best = max(total / mine[1] for _, mine in costs)
    text = "\n".join(
        [pairs.HEAD.replace("bare script", "bare loop"), *rows, ""]
        + ["| hash | GB per second, one core |", "|---|---|"]
        + [f"| {what} | {speed:.2f} |" for what, speed in alone]
        + [f"| all six in one read, ours | {best:.2f} |", ""]
        + [
            f"With the daemon's own share of the time (`duty` 0.5) the thread worked {100 * cpu / clock:.0f} % of it.",
            "",
        ]
        + [f"({pairs.machine()})"]
    )
    print(text)
    if options.write:
        pairs.paste("hashing", text)


if __name__ == "__main__":
    main()
