"""Bring the index in line with the files: adapters in their roots, and the pictures in the vault.

A root that is offline, or has suddenly lost over half of its files, changes nothing: missing is a state, never a
deletion.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlmodel import Session

from loravault.config import Root
from loravault.index import adapters, commands, images
from loravault.index.database import Index
from loravault.index.tables import AdapterRow, ImageRow
from loravault.library.identify import read_adapter
from loravault.library.imagemeta import read_chunk
from loravault.library.scan import Found, scan_root

#: A file younger than this may still be growing (seconds).
SETTLED_S = 2.0

#: A healthy root does not lose more than this share between two scans.
WORST_LOSS = 0.5

#: Below this many files a root may well be emptied by its owner.
FEW = 4

IMAGE_SUFFIXES = (".webp", ".png", ".jpg", ".jpeg")


@dataclass
class Refreshed:
    """What a refresh found."""

    seen: int = 0
    read: int = 0
    broken: int = 0
    missing: int = 0
    #: Files that were still growing: another look is due.
    unsettled: int = 0
    #: Root name -> why nothing of it was changed.
    troubles: dict[str, str] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether any row was written."""
        return bool(self.read or self.missing)


def refresh_adapters(
    index: Index,
    roots: Sequence[Root],
    on_progress: Callable[[int, int], None] | None = None,
    now: Callable[[], float] = time.time,
) -> Refreshed:
    """Scan the roots and read the headers of new and changed files only."""
    result = Refreshed()
    for root in roots:
        found = _found(root, [other.path for other in roots], result)
        if found is None:
            continue
        with index.session() as session:
            known = {row.rel: row for row in adapters.adapters_of_root(session, root.name)}
            trouble = sudden_loss(known, found)
            if trouble is not None:
                result.troubles[root.name] = f"{root.path} {trouble}"
                continue
        result.seen += len(found)
        _read_changed(index, root, found, known, result, on_progress=on_progress, now=now)
        _mark_unseen(index, root, found, result)
    with index.session() as session:
        for name, trouble in result.troubles.items():
            commands.set_fact(session, f"root.{name}", trouble)
        for root in roots:
            if root.name not in result.troubles:
                commands.set_fact(session, f"root.{root.name}", "")
    return result


def _found(root: Root, roots: Sequence[Path], result: Refreshed) -> dict[str, Found] | None:
    if not root.path.is_dir():
        result.troubles[root.name] = f"{root.path} is not there; its adapters keep their place until it is back."
        return None
    try:
        return {found.rel: found for found in scan_root(root.name, root.path, roots)}
    except OSError as error:
        result.troubles[root.name] = f"{root.path} cannot be read: {error.strerror or error}."
        return None


def sudden_loss(known: dict[str, AdapterRow], found: dict[str, Found]) -> str | None:
    """Why this scan is not believed, or None. Pure."""
    present = [rel for rel, row in known.items() if row.state != "missing"]
    lost = sum(rel not in found for rel in present)
    if len(present) >= FEW and lost > WORST_LOSS * len(present):
        return (
            f"has suddenly lost {lost} of {len(present)} adapters; nothing is changed. If that was you, "
            "`loravault reindex` takes it as it is."
        )
    return None


def _read_changed(
    index: Index,
    root: Root,
    found: dict[str, Found],
    known: dict[str, AdapterRow],
    result: Refreshed,
    *,
    on_progress: Callable[[int, int], None] | None,
    now: Callable[[], float],
) -> None:
    changed = [item for item in found.values() if not _same(known.get(item.rel), item)]
    batch: list[AdapterRow] = []
    for done, item in enumerate(changed):
        record = read_adapter(root.path / item.rel, root.name, item.rel)
        young = now() - item.mtime_ns / 1e9 < SETTLED_S
        if record.state == "broken" and young:
            result.unsettled += 1
            continue
        result.read += 1
        result.broken += record.state == "broken"
        batch.append(adapters.to_row(record, item.dev, item.ino, known.get(item.rel)))
        if len(batch) >= 500:
            _store(index, batch)
        if on_progress is not None:
            on_progress(done + 1, len(changed))
    _store(index, batch)


def _store(index: Index, batch: list[AdapterRow]) -> None:
    with index.session() as session:
        for row in batch:
            session.merge(row)
    batch.clear()


def _same(row: AdapterRow | None, item: Found) -> bool:
    return (
        row is not None
        and row.state != "missing"
        and (row.size, row.mtime_ns, row.dev, row.ino) == (item.size, item.mtime_ns, item.dev, item.ino)
    )


def _mark_unseen(index: Index, root: Root, found: dict[str, Found], result: Refreshed) -> None:
    """A file is missing when two healthy scans in a row did not find it."""
    with index.session() as session:
        for row in adapters.adapters_of_root(session, root.name):
            if row.rel in found:
                if row.unseen:
                    row.unseen = 0
                    session.add(row)
                continue
            if row.state == "missing":
                continue
            row.unseen += 1
            if row.unseen >= 2:
                row.state, row.reason = "missing", "the file is not there any more"
                result.missing += 1
            session.add(row)


def forget_losses(session: Session, root: Root) -> None:
    """The user says that the root is right as it is: what is not there is missing at once."""
    for row in adapters.adapters_of_root(session, root.name):
        if row.state != "missing" and not (root.path / row.rel).exists():
            row.state, row.reason, row.unseen = "missing", "the file is not there any more", 2
            session.add(row)


def refresh_images(index: Index, vault: Path, folder: str) -> int:
    """Record pictures of ours that the index does not know (after a rebuild: all), forget those that are gone.

    Returns how many there are. Only the small chunk that each picture carries is read, never its pixels.
    """
    home = vault / folder / "Images"
    present: dict[str, tuple[int, int]] = {}
    if home.is_dir():
        for path in sorted(home.rglob("lv-*")):
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
                status = path.stat()
                present[path.relative_to(vault).as_posix()] = (status.st_size, status.st_mtime_ns)
    with index.session() as session:
        known = images.known_images(session)
        for rel in known.keys() - present.keys():
            images.forget_image(session, rel)
    new = [rel for rel, key in present.items() if known.get(rel) != key]
    for start in range(0, len(new), 500):
        rows = [row for rel in new[start : start + 500] if (row := _image_row(vault, rel, present[rel])) is not None]
        with index.session() as session:
            for row in rows:
                images.remember_image(session, row)
    return len(present)


def _image_row(vault: Path, rel: str, key: tuple[int, int]) -> ImageRow | None:
    chunk = read_chunk(vault / rel)
    if not isinstance(chunk, dict) or not isinstance(chunk.get("job"), str):
        return None
    return ImageRow(
        path=rel,
        job=str(chunk["job"]).split("@")[0],
        block_hash=str(chunk.get("block_hash", "")),
        fingerprint=str(chunk.get("fingerprint", "")),
        seed=_whole(chunk.get("seed")),
        n=_whole(chunk.get("n")),
        adapters=json.dumps(chunk.get("adapters", [])),
        base=str(chunk.get("base", "")),
        size=key[0],
        mtime_ns=key[1],
    )


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
