"""Bring the index in line with the pictures in the vault.

What each of them was made from stands in itself, so a lost index costs nothing. A folder that has suddenly lost over
half of its pictures changes nothing: missing is a state, never a deletion.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path

from sqlmodel import Session

from loravault.formats.weight_id import is_weight_id
from loravault.index import images
from loravault.index.database import Index
from loravault.index.refresh import BATCH, is_gone, sudden_loss
from loravault.index.tables import ImageRow
from loravault.library.imagemeta import read_chunk
from loravault.vault.walk import is_text, key_of

#: Covers are not pictures that somebody asked for.
COVER = "lv-cover-"
IMAGE_SUFFIXES = (".webp", ".png", ".jpg", ".jpeg")


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


def image_row_of(vault: Path, rel: str) -> ImageRow | None:
    """The row of one picture, from its own chunk; None if it cannot be read."""
    try:
        return _image_row(vault, rel, key_of(os.stat(vault / rel))[:2])
    except OSError:
        return None


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
