"""Bring the index in line with the adapter files in their roots.

A folder that is offline, or has suddenly lost over half of its files, changes nothing: missing is a state, never a
deletion.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sqlmodel import Session

from loravault.config import Root
from loravault.index import adapters, lost
from loravault.index.database import Index
from loravault.library.beside import group
from loravault.library.identify import AdapterRecord, not_yet, read_adapter
from loravault.library.scan import Found, Scan, scan
from loravault.vault.walk import key_of

#: A file younger than this may still be growing (seconds).
SETTLED_S = 2.0

#: A file with much of zeros that is younger than this is probably being copied into room that was reserved for it.
HOLLOW_S = 600.0

#: Stands in a row for what is beside the file, so that it is looked at again although nothing of it changes.
_HOLLOW = "hollow"

#: A healthy folder does not lose more than this share between two scans.
WORST_LOSS = 0.5

#: Below this many files a folder may well be emptied by its owner.
FEW = 4

#: Rows that are stored in one transaction.
BATCH = 500

_IF_YOU = "If that was you, `loravault reindex` takes it as it is."

GONE = "the file is not there any more"
NOT_CONFIGURED = "its folder is not configured any more"


@dataclass
class Refreshed:
    """What a refresh found."""

    seen: int = 0
    read: int = 0
    broken: int = 0
    missing: int = 0
    #: Files that were still growing: another look is due.
    unsettled: int = 0
    #: The time was up before every changed file was read: the next call goes on where this one ended.
    unfinished: bool = False
    #: Root name -> what is wrong with it, for the dashboard.
    troubles: dict[str, str] = field(default_factory=dict)
    #: A file without a weight id came or changed.
    unreadable: bool = False
    #: Weight ids in which something changed.
    weights: set[str] = field(default_factory=set)
    #: Root name -> files in formats that are never opened.
    pickles: dict[str, tuple[str, ...]] = field(default_factory=dict)
    #: Root name -> links that lead out of all roots, each with where it leads.
    elsewhere: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether any row was written."""
        return bool(self.read or self.missing)


def refresh_adapters(
    index: Index,
    roots: Sequence[Root],
    on_progress: Callable[[int, int], None] | None = None,
    now: Callable[[], float] = time.time,
    budget_s: float | None = None,
) -> Refreshed:
    """Scan the roots and read the headers of new and changed files only.

    With a budget (seconds, of reading; the scan of names comes on top) the reading ends when it is used up and
    `unfinished` is set: the caller comes back at once after it has looked at other things. Every call gets on by one
    file at least.
    """
    result = Refreshed()
    scans = {root.name: seen for root in roots if (seen := _scan(root, [r.path for r in roots], result)) is not None}
    until = None if budget_s is None else time.monotonic() + budget_s
    looked: list[tuple[Root, Scan]] = []
    for root in roots:
        seen = scans.get(root.name)
        if seen is None:
            continue
        found = {item.rel: item for item in seen.found}
        with index.session() as session:
            known = adapters.known_files(session, root.name)
        absent = known.present.keys() - found.keys()
        lost = sum(not seen.hides(rel) for rel in absent) if absent else 0
        if lost:
            lost -= _moved(known, absent, scans.values())
        trouble = sudden_loss(len(known.present), lost, "LoRAs") or _not_mounted(root, known, found, lost)
        if trouble is not None:
            result.troubles[root.name] = f"{root.path} {trouble}"
            continue
        result.seen += len(found)
        result.pickles[root.name] = tuple(seen.pickles)
        result.elsewhere[root.name] = tuple(seen.elsewhere)
        _read_changed(index, root, found, known, result, on_progress=on_progress, now=now, until=until)
        if result.unfinished:
            return result  # what is unseen is counted once per whole look, not once per slice
        looked.append((root, seen))
        if absent or known.doubts:
            _mark_unseen(index, root, seen, found.keys(), result)
    _look_at_config(index, roots, looked, result)
    if result.changed or result.weights:
        _settle_places(index, roots, looked, result)
    return result


def _look_at_config(
    index: Index, roots: Sequence[Root], looked: Sequence[tuple[Root, Scan]], result: Refreshed
) -> None:
    """What lies in folders that the config names no more is out of reach; and which folders were seen in full."""
    names = [root.name for root in roots]
    with index.session() as session:
        gone = adapters.leave_roots(session, names, NOT_CONFIGURED)
        sound = {root.name for root, seen in looked if not seen.problems}
        more = lost.remember_looks(session, names, sound)
    result.missing += len(gone)
    result.weights |= {weight_id for weight_id in gone if weight_id} | more


def _moved(known: adapters.Known, absent: Collection[str], scans: Iterable[Scan]) -> int:
    """How many of the absent files are found elsewhere: a file that was moved, also from root to root, is not lost."""
    files = {item[2:6] for seen in scans for item in seen.found}
    return sum(known.present[rel][:4] in files for rel in absent)


def _settle_places(index: Index, roots: Sequence[Root], looked: Sequence[tuple[Root, Scan]], result: Refreshed) -> None:
    """Forget places that their file has left for another one, and say which copy of several is used."""
    with index.session() as session:
        for root, seen in looked:
            for weight_id in adapters.forget_left_places(session, root.name, {item.rel for item in seen.found}):
                result.weights.add(weight_id)
        for name in adapters.other_roots(session, [root.name for root in roots]):
            result.weights |= adapters.forget_left_places(session, name, ())
        result.weights |= adapters.mark_duplicates(session)


def _scan(root: Root, roots: Sequence[Path], result: Refreshed) -> Scan | None:
    """What lies in a root; None if it is not to be had. What is wrong goes into the result."""
    try:
        seen = scan(root.name, root.path, roots)
    except (FileNotFoundError, NotADirectoryError):
        result.troubles[root.name] = f"{root.path} is not there; its LoRAs keep their place until it is back."
        return None
    except OSError as error:
        result.troubles[root.name] = f"{root.path} cannot be read: {error.strerror or error}."
        return None
    if seen.problems:
        more = f" (and {len(seen.problems) - 1} more)" if len(seen.problems) > 1 else ""
        result.troubles[root.name] = f"In {root.path}: {seen.problems[0]}{more}"
    return seen


def sudden_loss(present: int, lost: int, what: str) -> str | None:
    """Why a look that does not find `lost` of `present` files is not believed, or None. Pure."""
    if present >= FEW and lost > WORST_LOSS * present:
        return f"has suddenly lost {lost} of {present} {what}; nothing is changed. {_IF_YOU}"
    return None


def _not_mounted(root: Root, known: adapters.Known, found: Collection[str], lost: int) -> str | None:
    """Why an empty folder is not believed, however few LoRAs it had: it is on another disk than they were; or None."""
    if found or not lost or _disk(root.path) in {key[2] for key in known.present.values()}:
        return None
    what = "is empty, and on another disk than its LoRAs were (a drive that is not mounted?)"
    return f"{what}; nothing is changed. {_IF_YOU}"


def _disk(path: Path) -> int | None:
    try:
        return key_of(os.stat(path))[2]
    except OSError:
        return None


def is_gone(path: Path) -> bool:
    """Whether there is surely no such file: one that may not be looked at is not gone."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _read_changed(
    index: Index,
    root: Root,
    found: dict[str, Found],
    known: adapters.Known,
    result: Refreshed,
    *,
    on_progress: Callable[[int, int], None] | None,
    now: Callable[[], float],
    until: float | None,
) -> None:
    changed = [
        item
        for rel, item in found.items()
        if (before := known.present.get(rel)) != item[2:7]
        and not (before == (*item[2:6], _HOLLOW) and _is_young(item, now(), HOLLOW_S))
    ]
    batch: list[tuple[AdapterRecord, Found]] = []
    neighbours = Neighbours()
    for done, item in enumerate(changed):
        if until is not None and result.read and time.monotonic() >= until:
            result.unfinished = True
            break
        path = root.path / item.rel
        record = read_adapter(path, root.name, item.rel, neighbours.of(path))
        if item.unfinished is not None:
            record = replace(record, state="incomplete", reason=f"it is still being downloaded ({item.unfinished})")
        elif (record.state != "ok" or record.hollow) and _is_young(item, now()):
            result.unsettled += 1
            continue
        elif may_be_filled(record, item, now()):
            record, item = not_yet(record), item._replace(beside=_HOLLOW)  # noqa: PLW2901
        if record.state == "broken" and is_gone(path):
            continue  # it went between the look and the reading; what was known of it stays
        result.read += 1
        result.broken += record.state != "ok"
        batch.append((record, item))
        if len(batch) >= BATCH:
            store(index, batch, result)
        if on_progress is not None:
            on_progress(done + 1, len(changed))
    store(index, batch, result)


class Neighbours:
    """What belongs to each adapter of a folder; a folder is listed once for all that are read in it in a row."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._groups: dict[str, tuple[str, ...]] = {}

    def of(self, path: Path) -> tuple[str, ...]:
        """The names of the files that belong to the adapter at this path."""
        if path.parent != self._folder:
            self._folder = path.parent
            try:
                self._groups = group(os.listdir(path.parent))
            except OSError:
                self._groups = {}
        return self._groups.get(path.name, ())


def _is_young(item: Found, now: float, age: float = SETTLED_S) -> bool:
    """Whether it may still be growing. A time in the future says nothing: the file would be young for ever."""
    return abs(now - item.mtime_ns / 1e9) < age


def may_be_filled(record: AdapterRecord, item: Found, now: float) -> bool:
    """Whether it is mostly zeros because it is still being copied into room that was reserved for it."""
    return record.hollow and _is_young(item, now, HOLLOW_S)


def store(index: Index, batch: list[tuple[AdapterRecord, Found]], result: Refreshed) -> None:
    """Put what was read into the index, and empty the batch."""
    with index.session() as session:
        for record, item in batch:
            old = adapters.adapter_at(session, record.root, record.rel)
            known = old
            if record.weight_id and (old is None or old.weight_id != record.weight_id or not old.hashed):
                inode = (item.dev, item.ino)
                known = adapters.same_file(session, record.weight_id, record.size, record.mtime_ns, inode) or old
            result.weights |= {row for row in (record.weight_id, old.weight_id if old else None) if row}
            result.unreadable |= record.weight_id is None and (old is None or old.weight_id is None)
            session.merge(adapters.to_row(record, item.dev, item.ino, known, item.beside))
    batch.clear()


def _mark_unseen(index: Index, root: Root, seen: Scan, found: Collection[str], result: Refreshed) -> None:
    """A file is missing when two healthy scans in a row did not find it."""
    with index.session() as session:
        for row in adapters.adapters_of_root(session, root.name):
            if row.rel in found:
                if row.unseen:
                    row.unseen = 0
                    session.add(row)
                continue
            if row.state == "missing" or seen.hides(row.rel):
                continue
            row.unseen += 1
            if row.unseen >= 2:
                row.state, row.reason = "missing", GONE
                result.missing += 1
            if row.weight_id:
                result.weights.add(row.weight_id)
            session.add(row)


def forget_losses(session: Session, root: Root) -> None:
    """The user says that the root is right as it is: what is not there is missing at once."""
    for row in adapters.adapters_of_root(session, root.name):
        if row.state != "missing" and is_gone(root.path / row.rel):
            row.state, row.reason, row.unseen = "missing", GONE, 2
            session.add(row)
