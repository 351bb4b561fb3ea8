"""What works on this machine and for this vault, and what does not, in words. Looks; changes nothing."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import loravault
from loravault import osdep
from loravault.config import VaultConfig
from loravault.dataset.captioner import read_captioner
from loravault.errors import UserError
from loravault.following import window
from loravault.holding import holder
from loravault.index import adapters, troubled
from loravault.index.database import IndexAbsent
from loravault.library.bases import list_bases
from loravault.pages import bases as base_files
from loravault.pages import own
from loravault.pages.dashboard import dashboard_path, second_path
from loravault.resources import demo_base

if TYPE_CHECKING:
    from loravault.jobs.supervisor import Supervisor

#: The worker's first import of torch from a cold disk takes its time (seconds).
DEVICE_WAIT_S = 120.0

#: Pages that the user changed are named up to this number.
_NAMED = 8

#: File systems that do not report changes made elsewhere, by their name in /proc/mounts.
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "fuse.rclone", "afs", "davfs"})


@dataclass(frozen=True)
class Finding:
    """One line."""

    label: str
    text: str
    #: What to do about it; None = nothing is wrong.
    advice: str | None = None


def examine(config: VaultConfig | None, ask_device: Callable[[str], Finding] | None = None) -> Iterator[Finding]:
    """The device first, then the vault's part if one is meant."""
    wishes = config.device if config else "auto"
    for wish in (wishes,) if isinstance(wishes, str) else wishes:
        yield (ask_device or device)(wish)
    ours, python = loravault.__version__, sys.version.split()[0]
    yield Finding("versions", f"loravault {ours}, Python {python}, torch {version('torch')}")
    if config is None:
        return
    yield vault_class(config)
    yield daemon(config)
    yield Finding("state", f"{config.state_path} (worker.log there is what the worker said)")
    yield from roots(config)
    yield from library(config)
    yield from edited(config)
    bases = list_bases(config.bases, demo_base())
    yield Finding("bases", ", ".join(f"{base.name} ({base.family})" for base in bases))
    yield from captioner(config)


def device(wish: str, worker_command: Sequence[str] | None = None) -> Finding:
    """What the worker chooses: it is started and asked, because only it may import torch."""
    from loravault.jobs import supervisor as sup  # noqa: PLC0415 - for this line only

    supervisor = sup.Supervisor(worker_command, {**os.environ, "LORAVAULT_DEVICE": wish})
    try:
        supervisor.warm_up()
        give_up = time.monotonic() + DEVICE_WAIT_S
        while time.monotonic() < give_up:
            for event in supervisor.poll():
                if isinstance(event, sup.WorkerDied):
                    return Finding("device", "none", f"The worker could not start: {event.reason}")
            if supervisor.device:
                return Finding("device", _of_many(wish, supervisor), _advice(supervisor.device))
            time.sleep(0.05)
        return Finding("device", "none", f"The worker did not answer within {DEVICE_WAIT_S:.0f} s.")
    finally:
        supervisor.close()


def _of_many(wish: str, supervisor: Supervisor) -> str:
    """The device, and that others beside it are used too."""
    cards = supervisor.cards or 0
    others = f" and {cards - 1} more: a worker for each of the {cards} cards" if wish == "auto" and cards > 1 else ""
    return supervisor.device + others


def _advice(chosen: str) -> str | None:
    """The command that helps when a GPU is there and torch cannot use it."""
    if not chosen.startswith("cpu") or shutil.which("nvidia-smi") is None:
        return None
    built = version("torch")
    if "+cpu" not in built:
        return "There is an NVIDIA GPU, but torch cannot use it: `nvidia-smi` says whether its driver works."
    wanted = built.partition("+")[0]
    return (
        "There is an NVIDIA GPU, but torch is built for the CPU: "
        f"{sys.executable} -m pip install --force-reinstall torch=={wanted}"
    )


def captioner(config: VaultConfig) -> Iterator[Finding]:
    """The model that describes pictures of trainings, if one is configured. By what its files say of themselves."""
    if config.captioner is None:
        return
    try:
        found = read_captioner(config.captioner)
        yield Finding("captioner", f"{found.name} ({found.kind})")
    except UserError as error:
        yield Finding("captioner", str(config.captioner), error.message)


def vault_class(config: VaultConfig) -> Finding:
    """How safely notes can be written there, and how changes are noticed."""
    network = file_system(config.vault) in _NETWORK
    seen = "polling, because it is a network drive" if network else "events and rescans"
    if not os.access(config.vault, os.W_OK):
        return Finding("vault", f"{config.vault} (read-only)", "Make it writable for you: answers go into its notes.")
    swaps = can_exchange(config.own_folder if config.own_folder.is_dir() else config.vault)
    way = "exchange" if swaps else "replace"
    advice = None if swaps else "This file system cannot swap files: do not type in a note while its answer is written."
    return Finding("vault", f"{config.vault} ({way}; {seen})", advice)


def can_exchange(folder: Path) -> bool:
    """Whether two files in this folder can be swapped in one step. Tried with two hidden files of our own."""
    one, two = (folder / f".lv-probe-{os.getpid()}-{n}" for n in (1, 2))
    try:
        one.touch()
        two.touch()
        return osdep.exchange(one, two)
    except OSError:
        return False
    finally:
        one.unlink(missing_ok=True)
        two.unlink(missing_ok=True)


def file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The name of the file system that `path` is on; "" where the system does not tell."""
    try:
        lines = mounts.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    real = os.path.realpath(path)
    best = ("", "")
    for line in lines:
        _, point, kind, *_ = [*line.split(" "), "", "", ""]
        point = point.replace("\\040", " ")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def daemon(config: VaultConfig) -> Finding:
    """Whether somebody serves the vault now."""
    pid = holder(config)
    if pid is None:
        return Finding("daemon", "not running: ticked notes wait for `loravault watch`")
    return Finding("daemon", f"running, process {pid}")


def roots(config: VaultConfig) -> Iterator[Finding]:
    """Each folder with adapters."""
    for root in config.loras:
        if root.path.is_dir():
            yield Finding(f"loras {root.name}", str(root.path))
        else:
            advice = "Plug its drive in, or change it in config.toml; nothing was forgotten."
            yield Finding(f"loras {root.name}", f"{root.path} is not there", advice)


def library(config: VaultConfig) -> Iterator[Finding]:
    """What the index knows of the adapters: how many cannot be used, and whether all are hashed."""
    try:
        with window(config) as opened, opened.index().session() as session:
            counts = adapters.count_adapters(session)
            hashed, files = troubled.hashing(session)
    except IndexAbsent:
        yield Finding("library", "not indexed yet: `loravault watch` or `loravault reindex` does that")
        return
    except UserError as error:
        yield Finding("library", "the index cannot be read", error.message)
        return
    copies = counts.get("duplicate", 0)
    there = f"{counts.get('ok', 0):,} usable"
    there += f", {copies:,} {'copy' if copies == 1 else 'copies'}" if copies else ""
    wrong = {word: counts.get(word, 0) for word in ("broken", "incomplete", "missing")}
    told = [f"{number:,} {word}" for word, number in wrong.items() if number]
    advice = "Which files these are, and what is wrong with each, "
    board = dashboard_path(config.folder)
    if (config.vault / board).is_file():
        advice += f"is on the dashboard: {board} in the vault."
    else:  # `loravault watch` makes it
        words = " and ".join(
            f"`loravault search {word}`" for word in ("broken", "missing") if _is_found_by(word, wrong)
        )
        advice += f"say {words} with `loravault show NAME`."
    yield Finding("library", ", ".join([there, *told]), advice if told else None)
    state = "complete" if hashed >= files else f"{hashed:,} of {files:,} files"
    off = "" if config.hashing else " (switched off: `hashing = false`)"
    yield Finding("hashing", f"{state}{off}")


def _is_found_by(word: str, wrong: Mapping[str, int]) -> bool:
    """Whether a search for this word lists some of the files: to a search, what is incomplete is broken."""
    return bool(wrong[word] or (word == "broken" and wrong["incomplete"]))


def edited(config: VaultConfig) -> Iterator[Finding]:
    """Pages of ours that the user changed: they are left alone, which is no fault but explains what is old in them."""
    folder = config.own_folder
    dashboard, second = (path(config.folder).rpartition("/")[2] for path in (dashboard_path, second_path))
    found = [name for name in base_files.NAMES if _is(folder / name, lambda data: not base_files.is_ours(data))]
    found += [dashboard] if _is(folder / dashboard, lambda data: not own.is_ours(data)) else []
    pages = [folder / second, *sorted((folder / "Gallery").rglob("*.md"))]
    found += [path.relative_to(folder).as_posix() for path in pages if _is(path, _was_ours)]
    if found:
        more = f" and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
        named = ", ".join(found[:_NAMED]) + more
        yield Finding("edited by you", f"{named} (left alone; delete one, and the newest is made)")


def _was_ours(data: bytes) -> bool:
    return own.is_sealed(data) and not own.is_ours(data)


def _is(path: Path, what: Callable[[bytes], bool]) -> bool:
    try:
        return what(path.read_bytes())
    except OSError:
        return False
