"""Bring the index in line with the files: adapters in their roots, and the pictures in the vault.

A folder that is offline, or has suddenly lost over half of its files, changes nothing: missing is a state, never a
deletion.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sqlmodel import Session

from loravault.config import Root
from loravault.formats.weight_id import is_weight_id
from loravault.index import adapters, images, lost
from loravault.index.database import Index
from loravault.index.tables import ImageRow
from loravault.library.beside import group
from loravault.library.identify import AdapterRecord, read_adapter
from loravault.library.imagemeta import read_chunk
from loravault.library.scan import Found, Scan, scan
from loravault.vault.walk import is_text, key_of

#: A file younger than this may still be growing (seconds).
SETTLED_S = 2.0

#: A healthy folder does not lose more than this share between two scans.
WORST_LOSS = 0.5

#: Below this many files a folder may well be emptied by its owner.
FEW = 4

#: Rows that are stored in one transaction.
BATCH = 500

#: Covers are not pictures that somebody asked for.
COVER = "lv-cover-"
IMAGE_SUFFIXES = (".webp", ".png", ".jpg", ".jpeg")

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
        trouble = sudden_loss(len(known.present), lost, "adapters")
        if trouble is not None:
            result.troubles[root.name] = f"{root.path} {trouble}"
            continue
        result.seen += len(found)
        result.pickles[root.name] = tuple(seen.pickles)
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
        result.troubles[root.name] = f"{root.path} is not there; its adapters keep their place until it is back."
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
        return (
            f"has suddenly lost {lost} of {present} {what}; nothing is changed. If that was you, "
            "`loravault reindex` takes it as it is."
        )
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
    changed = [item for rel, item in found.items() if known.present.get(rel) != item[2:7]]
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
        elif record.state != "ok" and _is_young(item, now()):
            result.unsettled += 1
            continue
        if record.state == "broken" and is_gone(path):
            continue  # it went between the look and the reading; what was known of it stays
        result.read += 1
        result.broken += record.state != "ok"
        batch.append((record, item))
        if len(batch) >= BATCH:
            _store(index, batch, result)
        if on_progress is not None:
            on_progress(done + 1, len(changed))
    _store(index, batch, result)


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


def _is_young(item: Found, now: float) -> bool:
    """Whether it may still be growing. A time in the future says nothing: the file would be young for ever."""
    return abs(now - item.mtime_ns / 1e9) < SETTLED_S


def _store(index: Index, batch: list[tuple[AdapterRecord, Found]], result: Refreshed) -> None:
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


def refresh_images(
    index: Index,
    vault: Path,
    folder: str,
    troubles: MutableMapping[str, str] | None = None,
    *,
    everywhere: bool = False,
    changed: set[str] | None = None,
) -> int:
    """Record pictures that the index does not know (after a rebuild: all), forget those that are gone.

    They are looked for in our folder, or `everywhere` in the vault where they go to Obsidian's folder for attachments.

    Returns how many of ours there are; the paths of those that came, changed or went are put into `changed`. Only the
    small chunk that each of ours carries is read, never a pixel; what carries none is remembered too, so that it is not
    read again. What is wrong is set as `troubles["images"]`, which is removed when all is well: if the folder is gone
    or has suddenly lost over half of our pictures, no row is.
    """
    home = vault if everywhere else vault / folder / "Images"
    present = dict(_pictures(vault, home))
    with index.session() as session:
        known = images.known_images(session)
    gone = [rel for rel in known if rel not in present and is_gone(vault / rel)]
    trouble = _picture_trouble(home, known, gone)
    new = [rel for rel, key in present.items() if rel not in known or known[rel][:2] != key]
    for start in range(0, len(new), BATCH):
        rows = [row for rel in new[start : start + BATCH] if (row := _image_row(vault, rel, present[rel])) is not None]
        with index.session() as session:
            for row in rows:
                images.remember_image(session, row)
        if changed is not None:
            changed.update(row.path for row in rows if row.job)
    with index.session() as session:
        for rel in gone if trouble is None else ():
            images.forget_image(session, rel)
            if changed is not None and known[rel][2]:
                changed.add(rel)
        count = images.count_images(session)
    if troubles is not None:
        troubles.pop("images", None)
        if trouble is not None:
            troubles["images"] = trouble
    return count


def forget_lost_images(session: Session, vault: Path) -> None:
    """The user says that the pictures are right as they are: those that are not there are forgotten at once."""
    for rel in images.known_images(session):
        if is_gone(vault / rel):
            images.forget_image(session, rel)


def _pictures(vault: Path, home: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """(vault-relative path, (size, mtime_ns)) of everything that is called like a picture of ours."""
    for at, folders, names in os.walk(home):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("lv-") or not name.lower().endswith(IMAGE_SUFFIXES) or name.startswith(COVER):
                continue
            path = Path(at, name)
            rel = path.relative_to(vault).as_posix()
            try:
                status = os.stat(path)
            except OSError:
                continue  # it went while we looked, or may not be looked at
            if is_text(rel) and stat.S_ISREG(status.st_mode):
                yield rel, key_of(status)[:2]


def _picture_trouble(home: Path, known: Mapping[str, tuple[int, int, bool]], gone: Sequence[str]) -> str | None:
    """Why it is not believed that these are gone."""
    ours = sum(is_ours for *_, is_ours in known.values())
    lost = sum(known[rel][2] for rel in gone)
    if lost and not os.path.isdir(home):
        return (
            f"{home} is not there; what is known of its {ours} pictures is kept until it is back. If that was you, "
            "`loravault reindex` takes it as it is."
        )
    trouble = sudden_loss(ours, lost, "pictures")
    return None if trouble is None else f"{home} {trouble}"


def _image_row(vault: Path, rel: str, key: tuple[int, int]) -> ImageRow | None:
    """What the picture's chunk says, as `dispatch` records it; without a job if it is none of ours.

    None if it cannot be read now: another look may do.
    """
    try:
        chunk = read_chunk(vault / rel) or {}
    except OSError:
        return None
    size, mtime_ns = key
    base = chunk.get("base", {})
    used = chunk.get("adapters", [])
    name = base.get("name", "") if isinstance(base, dict) else None
    texts = [chunk.get("job"), chunk.get("block", ""), chunk.get("fingerprint", ""), name]
    numbers = [chunk.get("seed", 0), chunk.get("index", 0)]
    storable = all(isinstance(text, str) and is_text(text) for text in texts) and isinstance(used, list)
    if not storable or not all(isinstance(number, int) and abs(number) < 2**63 for number in numbers):
        return ImageRow(path=rel, job="", size=size, mtime_ns=mtime_ns)
    return ImageRow(
        path=rel,
        job=str(texts[0]).split("@")[0],
        block_hash=str(texts[1]),
        fingerprint=str(texts[2]),
        seed=int(numbers[0]),
        n=int(numbers[1]),
        adapters=json.dumps(sorted({one["id"] for one in used if isinstance(one, dict) and _is_id(one.get("id"))})),
        base=str(name),
        stands_for=str(chunk["stands_for"]) if _is_id(chunk.get("stands_for")) else "",
        named=chunk.get("named") is True,
        size=size,
        mtime_ns=mtime_ns,
    )


def _is_id(value: object) -> bool:
    return isinstance(value, str) and is_weight_id(value)
