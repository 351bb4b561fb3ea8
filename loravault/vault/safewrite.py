"""Writing into the vault so that no crash tears a note and no edit of the user's is lost.

A write into a note is: intent into the ledger, `.lv-<id>.part` beside the note, fsync, rename to `.lv-<id>.tmp`, read
the note again and compare, exchange the two names, fsync the folder, ledger. The displaced copy stays under the temp
name for a grace, because an editor may have had the old file open: if it changed meanwhile, that edit is brought back
into the note or kept as a conflict copy. docs/durability.md tells what a crash between any two steps leaves.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loravault.errors import UserError
from loravault.failpoints import reach
from loravault.osdep import advance_mtime, copy_metadata, exchange, fsync_dir, fsync_file, replace_no_overwrite
from loravault.vault.bulk import create_many, temp_name_of
from loravault.vault.displaced import Displaced
from loravault.vault.ledger import Ledger
from loravault.vault.paths import Home, inside
from loravault.vault.recovery import compact, recover
from loravault.vault.recovery import in_words as _why

_PATIENCE = 10  # graces to wait for an editor that is still writing into the displaced copy
_RETRY_S = 1.0
_TEMP_PREFIX = ".lv-"


class NoteChanged(UserError):  # noqa: N818 - caught by whoever planned the write, who plans again
    """The file is no longer what the plan was made from; nothing was written."""


@dataclass
class _Pending:
    """A write whose displaced copy still has to be checked."""

    due: float
    rel: str
    temp: Path
    base: bytes
    new: bytes
    ident: str
    rebase: Callable[[bytes], bytes] | None
    seen: tuple[int, int] = (-1, -1)
    delays: int = 0
    told: bool = False
    ending: dict[str, Any] | None = None  # its files are settled, only this record is not in the ledger yet


@dataclass
class VaultWriter:
    """The one writer of a vault. Only the holder of the vault's lock may have one."""

    root: Path
    ledger: Ledger
    displaced_dir: Path
    grace_s: float = 3.0
    now: Callable[[], float] = time.time
    #: Tests switch the exchange off to exercise file systems that lack it.
    can_exchange: bool = True
    _pending: list[_Pending] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root = Path(os.path.realpath(self.root))
        self._displaced = Displaced(self.displaced_dir, self.now)
        self._home = Home(self.root)

    @property
    def pending_checks(self) -> int:
        """How many displaced copies still wait for their check."""
        return len(self._pending)

    def replace(self, rel: str, base: bytes, new: bytes, rebase: Callable[[bytes], bytes] | None = None) -> None:
        """Write `new` over a note that still holds `base`; otherwise raise `NoteChanged` and write nothing.

        `rebase` makes the same change to other bytes: with it, an edit that is found only after the grace is merged
        instead of being kept as a conflict copy. Raises OSError where the disk or the permissions forbid the write.
        """
        self._home.must_be_there()
        path = inside(self.root, rel)
        self._must_equal(path, rel, base)
        if new == base:
            return
        reach("write.planned")
        ident = secrets.token_hex(4)
        temp = path.parent / f"{_TEMP_PREFIX}{ident}.tmp"
        self.ledger.append(
            {
                "op": "write", "id": ident, "path": rel, "temp": self._rel(temp),
                "base": _sha(base), "new": _sha(new), "at": self.now(),
            }
        )  # fmt: skip
        reach("write.intent")
        try:
            self._make_temp(temp, new, like=path)
            self._must_equal(path, rel, base)
            reach("write.checked")
            self._swap(temp, path, rel, base, new)
        except BaseException:
            self._give_up(ident, temp, new)
            raise
        reach("write.exchanged")
        fsync_dir(path.parent)
        reach("write.folder-synced")
        self.ledger.append({"op": "placed", "id": ident})
        reach("write.placed")
        self._pending.append(_Pending(self.now() + self.grace_s, rel, temp, base, new, ident, rebase))

    def create(self, rel: str, data: bytes) -> None:
        """Make a new file with its folders, whole from its first moment. FileExistsError if the name is taken."""
        self._home.must_be_there()
        path = inside(self.root, rel)
        if path.exists() or path.is_symlink():
            raise FileExistsError(f"{rel} exists already")
        self._make_folders(path.parent)
        temp = self._own_temp(path)
        self._make_temp(temp, data, like=None)
        try:
            replace_no_overwrite(temp, path)
        finally:
            temp.unlink(missing_ok=True)
        reach("create.linked")
        fsync_dir(path.parent)

    def create_many(
        self, items: Iterable[tuple[str, bytes]], refused: MutableMapping[str, str] | None = None
    ) -> list[str]:
        """Make many files, waiting for the disk once. Returns those whose name was taken. `refused`: see `bulk`."""
        self._home.must_be_there()
        return create_many(self.root, items, self._own_temp, self._folders_made, refused)

    def publish(self, rel: str, data: bytes) -> None:
        """Make a file that is ours by its name (a generated picture), replacing an earlier one of that name.

        When this returns the file is on disk. Equal content is left alone, so a second try after a crash is free.
        """
        self._home.must_be_there()
        path = inside(self.root, rel)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size == len(data) and path.read_bytes() == data:
                fsync_file(path)
                fsync_dir(path.parent)
                return
        self._make_folders(path.parent)
        temp = self._own_temp(path)
        self._make_temp(temp, data, like=None)
        os.replace(temp, path)
        fsync_dir(path.parent)

    def write_own(self, rel: str, new: bytes, old: bytes | None) -> None:
        """Write a page of ours that held `old` when it was planned (None: it was not there); else `NoteChanged`.

        Lighter than `replace`: the page is made from what we know, so what it displaces is looked at once and not kept.
        """
        if old is None:
            try:
                self.create(rel, new)
            except FileExistsError:
                raise NoteChanged(f"{rel} appeared while it was being written; it was left alone.") from None
            return
        self._home.must_be_there()
        path = inside(self.root, rel)
        self._must_equal(path, rel, old)
        if new == old:
            return
        temp = self._own_temp(path)
        self._make_temp(temp, new, like=path)
        try:
            self._must_equal(path, rel, old)
            self._swap(temp, path, rel, old, new)
        finally:
            self._displaced.discard_if(temp, new, old)
        fsync_dir(path.parent)

    def verify_due(self) -> list[str]:
        """Check the displaced copies whose grace is over. Returns a sentence for every edit that was found in one.

        Raises neither OSError nor UserError: what cannot be checked now is said once and tried again, a second apart.
        """
        now = self.now()
        due = [p for p in self._pending if p.due <= now or p.due > now + 10 * max(self.grace_s, 1)]
        sentences: list[str] = []
        for pending in due:
            self._pending.remove(pending)
            try:
                self._verify(pending, sentences)
            except (OSError, UserError) as error:  # the disk is full, the vault is unplugged: nothing is decided yet
                pending.due = now + max(self.grace_s, _RETRY_S)
                self._pending.append(pending)
                if not pending.told:
                    pending.told = True
                    sentences.append(
                        f"What the last write into {pending.rel} displaced cannot be put away yet "
                        f"({_why(error)}); it is kept as {pending.temp.name} and tried again."
                    )
        return sentences

    def recover(self) -> list[str]:
        """At the start: bring every write that a crash interrupted to its end. Returns what a person should know."""
        sentences = recover(self.root, self.ledger, self._displaced, self.keep_conflict)
        return sentences + self.prune()

    def prune(self) -> list[str]:
        """Once a day: forget displaced copies that are old, and what the ledger needs no more. Never raises OSError."""
        self._displaced.prune()
        try:
            compact(self.ledger, self.now())
        except OSError as error:
            return [f"The ledger {self.ledger.path} could not be made shorter ({_why(error)}); it stays as it is."]
        return []

    def keep_conflict(self, rel: str, copy: Path) -> str:
        """Give a displaced copy that holds a user's edit a visible name beside the note; returns that name."""
        folder, slash, name = rel.rpartition("/")
        stem, dot, suffix = name.rpartition(".")
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(self.now()))
        for number in range(1, 1000):
            extra = f"-{number}" if number > 1 else ""
            conflict = (
                f"{folder}{slash}{_cut(stem or suffix)} (loravault conflict {stamp}{extra}).{suffix if dot else 'md'}"
            )
            target = inside(self.root, conflict)
            with contextlib.suppress(FileExistsError):
                self._make_folders(target.parent)
                replace_no_overwrite(copy, target)
                fsync_dir(target.parent)
                return conflict
        raise OSError(f"no free name for a conflict copy of {rel}")

    # ---- steps

    def _must_equal(self, path: Path, rel: str, expected: bytes) -> None:
        try:
            found = path.read_bytes()
        except FileNotFoundError:
            raise NoteChanged(f"{rel} is gone; nothing was written.") from None
        if found != expected:
            raise NoteChanged(f"{rel} was changed by someone else; nothing was written.")

    def _make_temp(self, temp: Path, data: bytes, like: Path | None) -> None:
        """A whole, synced file under the temp name; until it is whole it is called `.part`."""
        part = temp.with_suffix(".part")
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
            try:
                reach("write.part-created")
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
                reach("write.part-written")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if like is not None:
                copy_metadata(like, part)
                advance_mtime(part, like)
            reach("write.part-synced")
            os.replace(part, temp)
            reach("write.temp-ready")
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def _swap(self, temp: Path, path: Path, rel: str, base: bytes, new: bytes) -> None:
        """Put the temp in the place of the note; afterwards the temp name holds what was displaced."""
        try:
            if not (self.can_exchange and exchange(temp, path)):
                self._replace_keeping(temp, path, rel, base)
                return
        except FileNotFoundError:
            raise NoteChanged(f"{rel} is gone; nothing was written.") from None
        if temp.read_bytes() == base:
            return
        # An edit landed between the comparison and the exchange: it goes back into its place.
        exchange(temp, path)
        if temp.read_bytes() != new:  # and another one on top of ours: both are kept
            self.keep_conflict(rel, temp)
        raise NoteChanged(f"{rel} was changed while it was being written; the edit was kept.")

    def _replace_keeping(self, temp: Path, path: Path, rel: str, base: bytes) -> None:
        """Without an exchange: the old file lives on under a second name, with whatever an editor still writes into it.

        An editor that renames its own file over the note between the last comparison and the replace loses that save.
        """
        keep = temp.with_suffix(".old")
        try:
            os.link(path, keep)
        except FileNotFoundError:
            raise
        except OSError:  # no hard links either
            keep.write_bytes(base)
        self._must_equal(path, rel, base)
        os.replace(temp, path)
        os.replace(keep, temp)

    def _give_up(self, ident: str, temp: Path, new: bytes) -> None:
        """A write that did not happen: take our temp away and close the intent. Never hides the first error."""
        with contextlib.suppress(OSError, UserError):
            if temp.exists() and temp.read_bytes() == new:
                temp.unlink()
            temp.with_suffix(".old").unlink(missing_ok=True)
            if not temp.exists():
                self.ledger.append({"op": "abandoned", "id": ident})

    def _verify(self, pending: _Pending, sentences: list[str]) -> None:
        """Check one displaced copy. May be called again after an error: what was done and said is not done twice."""
        if pending.ending is not None:
            self.ledger.append(pending.ending)
            return
        temp = pending.temp
        try:
            status = temp.stat()
            displaced = temp.read_bytes()
        except FileNotFoundError:  # moved away with its folder: recovery finds it by its name
            self._home.must_be_there()
            return
        if displaced == pending.base:
            self._put_away(pending)
            return
        seen = (status.st_size, status.st_mtime_ns)
        if (seen != pending.seen or not displaced) and pending.delays < _PATIENCE:
            # Somebody is still writing into the old file: wait until it has been the same for a whole grace.
            pending.seen, pending.delays = seen, pending.delays + 1
            pending.due = self.now() + self.grace_s
            self._pending.append(pending)
            return
        self._bring_back(pending, displaced, sentences)

    def _bring_back(self, pending: _Pending, edited: bytes, sentences: list[str]) -> None:
        """An editor wrote into the displaced file: merge that edit into the note, or keep it as a conflict copy."""
        if not edited or edited == pending.new:  # an editor that emptied the file and never came back; or our own text
            self._put_away(pending)
            return
        if pending.rebase is not None:
            try:
                merged = pending.rebase(edited)
                self.replace(pending.rel, pending.new, merged)
            except (UserError, ValueError, OSError):
                pass
            else:
                pending.base = edited  # it is in the note now: a second try only puts it away
                sentences.append(f"{pending.rel} was edited while it was being written; both changes are in it.")
                self._put_away(pending)
                return
        conflict = self.keep_conflict(pending.rel, pending.temp)
        sentences.append(
            f"{pending.rel} was edited while it was being written; the edit is in {conflict}: merge the two."
        )
        pending.ending = {"op": "conflict", "id": pending.ident, "copy": conflict}
        self.ledger.append(pending.ending)

    def _put_away(self, pending: _Pending) -> None:
        self._displaced.keep(pending.temp, pending.rel)
        pending.ending = {"op": "verified", "id": pending.ident}
        reach("write.verified")
        self.ledger.append(pending.ending)

    # ---- helpers

    def _own_temp(self, path: Path) -> Path:
        """The temp name for a file of ours, cleared of what a crash left there."""
        temp = path.parent / temp_name_of(path.name)
        temp.with_suffix(".part").unlink(missing_ok=True)
        if temp.exists():
            self._displaced.keep(temp, path.name)
        return temp

    def _make_folders(self, folder: Path) -> None:
        for grown in self._folders_made(folder):
            fsync_dir(grown)

    def _folders_made(self, folder: Path) -> list[Path]:
        """Make a folder with those above it. Returns the folders that have one more now, to be made durable."""
        self._home.must_be_there()
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
        return [path.parent for path in reversed(missing)]

    def _rel(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _cut(stem: str) -> str:
    return stem.encode()[:180].decode("utf-8", "ignore")
