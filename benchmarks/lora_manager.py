"""ComfyUI-Lora-Manager beside us on the same adapters: from nothing until the first catalogue is complete.

It runs from a checkout of its own, in its standalone mode, with a home of its own in a temporary folder:

    LORA_MANAGER_DIR=DIR [LORA_MANAGER_PYTHON=DIR/bin/python] python -m benchmarks.lora_manager [--write]

The Python must have what its `requirements.txt` names. It reads every file whole for its SHA256 before it lists it, so
the bodies are small here (rank 1) and come from memory: with real bodies its time grows with their bytes, ours
does not.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import bare, library_set, pairs
from loravault.config import Root
from loravault.index import adapters as rows_of
from loravault.index.database import Index
from loravault.index.refresh import refresh_adapters
from loravault.library.hashing import BackgroundHasher, HashWish

DIRECTORY, PYTHON = "LORA_MANAGER_DIR", "LORA_MANAGER_PYTHON"
#: What it prints when its first catalogue stands.
_READY = re.compile(r"Lora cache initialized in ([0-9.]+) seconds\. Found (\d+) models")
_LIMIT_S = 1800.0


@dataclass(frozen=True)
class Took:
    """One first catalogue."""

    #: Seconds of the work alone, and from the start of the process.
    work: float
    whole: float
    found: int


def checkout() -> Path | None:
    """The folder that the variable names; None if it names none."""
    named = os.environ.get(DIRECTORY)
    return Path(named) if named else None


def absent() -> str:
    """Why there is nothing to compare with."""
    return (
        f"ComfyUI-Lora-Manager was not run: {DIRECTORY} does not name a checkout of it (and {PYTHON} a Python that has "
        "its requirements)."
    )


def theirs(program: Path, adapters: Path, home: Path) -> Took:
    """Start it on a folder it has never seen; SystemExit in words if it does not come to a catalogue."""
    if not (program / "standalone.py").is_file():
        raise SystemExit(f"{DIRECTORY} names {program}, which holds no standalone.py")
    python = os.environ.get(PYTHON, sys.executable)
    environment = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home / "config"), "PYTHONUNBUFFERED": "1"}
    _settings(python, environment, adapters)
    command = [python, "standalone.py", "--host", "127.0.0.1", "--port", str(_free_port())]
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        return _until_ready(process, began)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _settings(python: str, environment: Mapping[str, str], adapters: Path) -> None:
    """What it wants to know before it starts, where it looks for it."""
    ask = "import platformdirs; print(platformdirs.user_config_dir('ComfyUI-LoRA-Manager', appauthor=False))"
    answer = subprocess.run([python, "-c", ask], env=environment, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise SystemExit(f"{python} lacks what ComfyUI-Lora-Manager needs: {answer.stderr.strip().splitlines()[-1]}")
    folder = Path(answer.stdout.strip())
    folder.mkdir(parents=True, exist_ok=True)
    empty = folder / "empty"
    empty.mkdir(exist_ok=True)
    paths = {"loras": [str(adapters)], "checkpoints": [str(empty)], "unet": [str(empty)], "embeddings": [str(empty)]}
    (folder / "settings.json").write_text(json.dumps({"use_portable_settings": False, "folder_paths": paths}))


def _until_ready(process: subprocess.Popen[str], began: float) -> Took:
    assert process.stdout is not None
    said: list[str] = []
    for line in process.stdout:
        found = _READY.search(line)
        if found:
            return Took(float(found[1]), time.perf_counter() - began, int(found[2]))
        said = [*said[-30:], line.rstrip()]
        if time.perf_counter() - began > _LIMIT_S:
            break
    last = "\n  ".join(said[-5:])
    raise SystemExit(
        f"ComfyUI-Lora-Manager ended without a catalogue; {PYTHON} must name a Python with its requirements. "
        f"Its last words:\n  {last}"
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _forget(adapters: Path) -> None:
    """Take away the texts that it left beside the adapters."""
    for left in adapters.rglob("*.metadata.json*"):
        left.unlink()


def ours(adapters: Path, home: Path, *more: str) -> Took:
    """A process of ours that builds an index of the folder."""
    what = ["--index", str(adapters), str(home / "index.sqlite"), *more]
    command = [sys.executable, "-m", "benchmarks.lora_manager", *what]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    whole = time.perf_counter() - began
    told = json.loads(done.stdout)
    return Took(told["seconds"], whole, told["found"])


def _index(adapters: Path, database: Path, *, hashes: bool) -> None:
    """Our side, in a process of its own."""
    began = time.perf_counter()
    index = Index(database)
    try:
        result = refresh_adapters(index, [Root("loras", adapters)])
        if hashes:
            _hash_all(index, adapters)
    finally:
        index.close()
    print(json.dumps({"seconds": time.perf_counter() - began, "found": result.seen}))


def _hash_all(index: Index, folder: Path) -> None:
    """What the daemon's background reader does, without its pauses for others, until nothing is left."""
    ready = threading.Event()
    hasher = BackgroundHasher(ready.set, duty=1.0)
    with index.session() as session:
        rows = rows_of.without_hashes(session)
    hasher.want(HashWish(row.root, row.rel, folder / row.rel, row.size, row.mtime_ns) for row in rows)
    left = len(rows)
    while left:
        ready.wait(1)
        ready.clear()
        results = hasher.take_results()
        left -= len(results)
        with index.session() as session:
            for one in results:
                assert one.hashes is not None, one.problem
                rows_of.store_file_hashes(session, (one.root, one.rel), (one.size, one.mtime_ns), one.hashes)
    hasher.stop()


def plain(adapters: Path, home: Path) -> Took:  # noqa: ARG001 - one signature for all
    """The bare loop: walk, read each header, parse its metadata."""
    began = time.perf_counter()
    paths = bare.adapters(adapters)
    bare.list_metadata(paths)
    took = time.perf_counter() - began
    return Took(took, took, len(paths))


def measure(program: Path, count: int, rounds: int, folder: Path) -> str:
    """The table."""
    made = library_set.ensure(folder / "set", count, rank=1, plain=True)
    sides: Mapping[str, Callable[[Path, Path], Took]] = {
        "bare loop (walk, header, metadata)": plain,
        "loravault": ours,
        "loravault, until all six hashes of each are there too": lambda adapters, home: ours(
            adapters, home, "--hashes"
        ),
        "ComfyUI-Lora-Manager (with SHA256)": lambda adapters, home: theirs(program, adapters, home),
    }
    times: dict[str, list[Took]] = {name: [] for name in sides}
    plain(folder / "set", folder)  # what is read once comes from memory for all of them
    for turn in range(rounds):
        for name in list(sides)[:: 1 if turn % 2 else -1]:
            _forget(folder / "set")
            with tempfile.TemporaryDirectory(dir=folder) as home:
                times[name].append(sides[name](folder / "set", Path(home)))
    _forget(folder / "set")
    lines = ["| | adapters found | first catalogue | from the start of the process |", "|---|---|---|---|"]
    for name, took in times.items():
        lines.append(
            f"| {name} | {took[-1].found:,} | {statistics.median(one.work for one in took):.2f} s | "
            f"{statistics.median(one.whole for one in took):.2f} s |"
        )
    return "\n".join([*lines, "", f"({made.told()}; median of {rounds}; {pairs.machine()})"])


def main() -> None:
    """Measure, print, and paste if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="paste the figures into docs/promises.md")
    parser.add_argument("--index", nargs=2, type=Path, metavar=("FOLDER", "DATABASE"), help=argparse.SUPPRESS)
    parser.add_argument("--hashes", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.index:
        _index(*options.index, hashes=options.hashes)
        return
    program = checkout()
    if program is None:
        print(absent())
        return
    with tempfile.TemporaryDirectory() as folder:
        text = measure(program, options.count, options.rounds, Path(folder))
    print(text)
    if options.write:
        pairs.paste("peers", text)


if __name__ == "__main__":
    main()
