"""Files are moved, never overwritten and never unlinked: every batch of moves stands in the ledger before the first.

    {"op": "moves", "batch": id, "at": t, "what": words, "whole": bool, "undoes": id | null,
     "moves": [[area, from, to], …]}
    {"op": "moved", "batch": id, "done": [index, …], "folders": [[area, path], …]}

The first is the intent, fsynced before a file moves; the second ends the batch and says which moves were made, and
which folders for them. A batch that is `whole` is made whole or not at all: when one move fails the others are taken
back, and so they are at the next start after a crash. Another batch that a crash cut short is closed as far as it came.
`area` is the name of a root, or `""` for the vault; paths are relative to it, so that a drive may come back under
another letter.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loravault.config import VaultConfig
from loravault.errors import UserError
from loravault.failpoints import reach
from loravault.keeping.batches import (
    ROOT_TRASH,
    VAULT,
    VAULT_TRASH,
    Batch,
    Move,
    batches_of,
    choose_batch,
    is_in_trash,
    moves_of,
    open_batches,
)
from loravault.osdep import fsync_dir, replace_no_overwrite
from loravault.vault.ledger import Ledger

_STAMP = r"\d{8}-\d{6}-[0-9a-f]{6}"
_IN_VAULT = re.compile(rf"loravault-({_STAMP})")
_IN_ROOT = re.compile(rf"({_STAMP})")


@dataclass(frozen=True)
class Moved:
    """How a batch ended: what moved, and what stayed with the reason in words."""

    batch: str
    moves: tuple[Move, ...]
    stayed: tuple[tuple[Move, str], ...]


@dataclass(frozen=True)
class Binned:
    """One folder of a trash that we filled."""

    area: str
    #: Relative to the area.
    rel: str
    at: float
    files: int
    size: int


class Trash:
    """Moves files within the vault and the roots: for the holder of the vault's lock. Others may only look."""

    def __init__(self, config: VaultConfig, ledger: Ledger, now: Callable[[], float] = time.time) -> None:
        self._homes = {VAULT: config.vault, **{root.name: root.path for root in config.loras}}
        self._ledger = ledger
        self._now = now
        self._made_folders: list[tuple[str, Path]] = []

    def new_batch(self) -> str:
        """An id for a batch: its time and something random; also the name of its folder in the trash."""
        return f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(self._now()))}-{secrets.token_hex(3)}"

    def path(self, area: str, rel: str) -> Path:
        """Where that is. Raises `UserError` for an area that is not configured, or a path that leaves it."""
        home = self._homes.get(area)
        if home is None:
            raise UserError(f'The folder "{area}" is not configured any more; `loravault init` adds it again.')
        parts = rel.split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise UserError(f"{rel!r} is not a path inside {home}.")
        path = home.joinpath(*parts)
        real, above = os.path.realpath(path.parent), os.path.realpath(home)
        if real != above and not Path(real).is_relative_to(above):
            raise UserError(f"{rel} leads out of {home} through a link; that file is left where it is.")
        return path

    # ---- moving

    def carry_out(
        self, what: str, moves: Sequence[Move], *, whole: bool, batch: str | None = None, undoes: str | None = None
    ) -> Moved:
        """Make these moves. A `whole` batch raises `UserError` if one cannot be made, and then none is.

        Otherwise what cannot be moved stays and is told.
        """
        batch = batch or self.new_batch()
        stayed: list[tuple[Move, str]] = []
        wanted: list[Move] = []
        taken: set[tuple[str, str]] = set()
        for move in moves:
            reason = self._obstacle(move, taken)
            taken.add((move.area, move.target.casefold()))
            if reason is None:
                wanted.append(move)
            else:
                stayed.append((move, reason))
        if stayed and whole:
            raise UserError(f"Nothing was moved: {stayed[0][1]}")
        if not wanted:
            return Moved(batch, (), tuple(stayed))
        self._ledger.append(
            {
                "op": "moves", "batch": batch, "at": self._now(), "what": what, "whole": whole, "undoes": undoes,
                "moves": [[move.area, move.source, move.target] for move in wanted],
            }
        )  # fmt: skip
        reach("move.intent")
        self._made_folders.clear()
        done, failed = self._make(wanted, whole=whole)
        for _, folder in reversed(self._made_folders):  # those for files that did not come
            with contextlib.suppress(OSError):
                folder.rmdir()
        self._sync(wanted)
        reach("move.synced")
        self._ledger.append({"op": "moved", "batch": batch, "done": done, "folders": self._new_folders()})
        if whole and failed:
            raise UserError(self._not_whole(failed[0][1], [wanted[index] for index in done]))
        return Moved(batch, tuple(wanted[index] for index in done), (*stayed, *failed))

    def _new_folders(self) -> list[list[str]]:
        """(area, path) of the folders that were made and are there still; those of a trash look after themselves."""
        found = []
        for area, folder in self._made_folders:
            rel = folder.relative_to(self._homes[area]).as_posix()
            if folder.is_dir() and not is_in_trash(f"{rel}/"):
                found.append([area, rel])
        return found

    def _make(self, moves: Sequence[Move], *, whole: bool) -> tuple[list[int], list[tuple[Move, str]]]:
        """Indices of what was moved, and what could not be."""
        done: list[int] = []
        failed: list[tuple[Move, str]] = []
        for index, move in enumerate(moves):
            try:
                self._rename(move)
            except (OSError, UserError) as error:
                failed.append((move, f"{move.source} could not be moved ({_why(error)})."))
                if whole:
                    return self._take_back(moves, done), failed
            else:
                done.append(index)
                reach("move.renamed")
        return done, failed

    def _take_back(self, moves: Sequence[Move], done: Iterable[int]) -> list[int]:
        """Undo these moves, the last first. Returns the indices of those that could not be undone."""
        stuck = []
        for index in sorted(done, reverse=True):
            try:
                self._rename(moves[index].back)
            except (OSError, UserError):
                stuck.append(index)
        return sorted(stuck)

    def _rename(self, move: Move) -> None:
        source, target = self.path(move.area, move.source), self.path(move.area, move.target)
        self._made_folders += [(move.area, folder) for folder in _make_folders(target.parent)]
        if _is_respelling(source, target):
            os.rename(source, target)
        else:
            replace_no_overwrite(source, target)

    def _obstacle(self, move: Move, taken: Collection[tuple[str, str]]) -> str | None:
        """Why this move cannot be made, as a sentence."""
        try:
            source, target = self.path(move.area, move.source), self.path(move.area, move.target)
            mode = source.lstat().st_mode
        except FileNotFoundError:
            return f"{move.source} is not there any more."
        except (OSError, UserError) as error:
            return f"{move.source} could not be looked at ({_why(error)})."
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            return f"{move.source} is not a file."
        if (move.area, move.target.casefold()) in taken:
            return f"two files would be called {move.target}."
        if os.path.lexists(target) and not _is_respelling(source, target):
            return f"there is already something at {move.target}; it is never overwritten."
        return None

    def _sync(self, moves: Iterable[Move]) -> None:
        """Make the renames durable: each folder once, and the folders that were made for it."""
        folders: set[Path] = set()
        for move in moves:
            for rel in (move.source, move.target):
                with contextlib.suppress(UserError):
                    folders.add(self.path(move.area, rel).parent)
        for folder in folders:
            with contextlib.suppress(OSError):
                fsync_dir(folder)

    @staticmethod
    def _not_whole(reason: str, stuck: Sequence[Move]) -> str:
        if not stuck:
            return f"Nothing was moved: {reason}"
        names = ", ".join(f"{move.source} (now {move.target})" for move in stuck)
        return f"{reason} What was moved before could not be moved back: {names}. `loravault undo` tries it again."

    # ---- after a crash

    def recover(self) -> list[str]:
        """At the start: end every batch that a crash cut short. Returns what a person should know."""
        sentences: list[str] = []
        for record in open_batches(self._ledger.read()):
            moves = moves_of(record)
            try:
                done = [index for index, move in enumerate(moves) if self._was_made(move)]
            except (OSError, UserError) as error:
                sentences.append(f"Moving files ({record.get('what')}) was interrupted and waits: {_why(error)}.")
                continue
            if record.get("whole") and 0 < len(done) < len(moves):
                done = self._take_back(moves, done)
                sentences.append(f"{record.get('what')} was interrupted; what had been moved is back in its place.")
            self._sync(moves)
            self._ledger.append({"op": "moved", "batch": record["batch"], "done": done})
        return sentences

    def _was_made(self, move: Move) -> bool:
        """Whether the file is at its target. Half a move, where renaming is linking or claiming, is ended here."""
        home = self._homes.get(move.area)
        if home is None or not home.is_dir():
            raise UserError(f"{home or move.area} is not there")
        source, target = self.path(move.area, move.source), self.path(move.area, move.target)
        if not os.path.lexists(source):
            return os.path.lexists(target)
        if not os.path.lexists(target):
            return False
        if _is_respelling(source, target):
            return target.name in os.listdir(target.parent)
        if _same_file(source, target):
            source.unlink()  # the second name is there already, only the first was not taken away
            return True
        if target.stat().st_size == 0 and source.stat().st_size > 0:
            target.unlink()  # a name that was claimed and not yet filled
        return False

    # ---- taking back

    def batches(self) -> list[Batch]:
        """Everything that was moved and can be moved back, newest first; undoings are not among it."""
        return batches_of(self._ledger.read())

    def undo(self, batch: str | None = None) -> Moved:
        """Move a batch back (the newest one if none is named). Raises `UserError` if there is nothing to undo.

        Nothing is overwritten: a file whose place is taken stays in the trash and is told.
        """
        chosen = choose_batch(self.batches(), batch)
        back = [move.back for move in reversed(chosen.left)]
        moved = self.carry_out(f"undo of {chosen.what}", back, whole=False, undoes=chosen.id)
        for move in moved.moves:
            self._tidy(move)
        for area, rel in reversed(chosen.folders):
            with contextlib.suppress(OSError, UserError):
                self.path(area, rel).rmdir()  # only an empty one goes
        return moved

    def _tidy(self, move: Move) -> None:
        """Take away the folders of a trash that are empty now; Obsidian's own `.trash` stays."""
        parts = move.source.split("/")[:-1]
        while parts and parts[0] in (VAULT_TRASH, ROOT_TRASH) and parts != [VAULT_TRASH]:
            try:
                self.path(move.area, "/".join(parts)).rmdir()
            except (OSError, UserError):
                return
            parts.pop()

    # ---- emptying

    def binned(self, older_than_s: float = 0.0) -> list[Binned]:
        """The folders of our batches in every trash, oldest first. Nothing else in a trash is looked at."""
        found = []
        for area, home in self._homes.items():
            trash = home / (VAULT_TRASH if area == VAULT else ROOT_TRASH)
            pattern = _IN_VAULT if area == VAULT else _IN_ROOT
            if trash.is_symlink():
                continue
            with contextlib.suppress(OSError):
                for entry in sorted(os.scandir(trash), key=lambda entry: entry.name):
                    match = pattern.fullmatch(entry.name)
                    if match is None or not entry.is_dir(follow_symlinks=False):
                        continue
                    at = _time_of(match.group(1))
                    if at <= self._now() - older_than_s:
                        files, size = _weigh(Path(entry.path))
                        found.append(Binned(area, f"{trash.name}/{entry.name}", at, files, size))
        return sorted(found, key=lambda one: (one.at, one.area, one.rel))

    def empty(self, chosen: Iterable[Binned]) -> list[str]:
        """Delete these folders for good. Returns what could not be deleted, in words."""
        problems: list[str] = []
        for one in chosen:
            pattern = _IN_VAULT if one.area == VAULT else _IN_ROOT
            if not pattern.fullmatch(one.rel.rpartition("/")[2]):
                continue
            path = self.path(one.area, one.rel)
            self._ledger.append({"op": "emptied", "at": self._now(), "area": one.area, "rel": one.rel})
            shutil.rmtree(path, ignore_errors=True)
            if one.area != VAULT:
                with contextlib.suppress(OSError):
                    path.parent.rmdir()
            if path.exists():
                problems.append(f"{path} could not be deleted whole.")
        return problems


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it; returns those that were missing, the outermost first."""
    missing: list[Path] = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        fsync_dir(path.parent)
    return missing[::-1]


def _same_file(one: Path, other: Path) -> bool:
    try:
        return os.path.samestat(one.lstat(), other.lstat())
    except OSError:
        return False


def _is_respelling(source: Path, target: Path) -> bool:
    """Whether both are one name to the file system, which takes upper and lower case for the same."""
    if not _same_file(source, target) or not _same_file(source.parent, target.parent):
        return False
    return {source.name, target.name} - set(os.listdir(source.parent)) != set()


def _why(error: OSError | UserError) -> str:
    if isinstance(error, UserError):
        return error.message.rstrip(".")
    if error.errno == errno.EXDEV:
        return "it lies on another drive than the folder it would move to; move it by hand"
    return str(error.strerror or error)


def _time_of(stamp: str) -> float:
    try:
        return time.mktime(time.strptime(stamp[:15], "%Y%m%d-%H%M%S"))
    except (ValueError, OverflowError):
        return float("inf")  # no time at all: it is never old enough


def _weigh(folder: Path) -> tuple[int, int]:
    """How many files a folder holds, and their size together."""
    sizes = list(_sizes(folder))
    return len(sizes), sum(sizes)


def _sizes(folder: Path) -> Iterator[int]:
    for at, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                yield os.lstat(os.path.join(at, name)).st_size
