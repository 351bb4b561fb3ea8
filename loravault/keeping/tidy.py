"""What there is to tidy up, found by looking: the index, the files beside the adapters, and every file of the vault.

Nothing is changed here. A plan says what would move and what stays although it might be expected to go.
"""

from __future__ import annotations

import json
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from sqlmodel import Session, col, select

from loravault.config import Root, VaultConfig
from loravault.errors import UserError
from loravault.index import adapters, images
from loravault.index.library import entries
from loravault.index.tables import AdapterRow, ImageRow, JobRow
from loravault.keeping.adapterfiles import busy_files, file_of, names_in
from loravault.keeping.batches import VAULT
from loravault.keeping.cardwork import worked_on
from loravault.library.covers import covered_by
from loravault.library.housekeeping import (
    AdapterFile,
    Beside,
    Named,
    Twins,
    all_beside,
    lost_sidecars,
    plan_duplicates,
    plan_unused,
    sidecars_of_twin,
)
from loravault.library.imagemeta import is_made_here
from loravault.pages.own import is_ours
from loravault.vault.mentions import PICTURE, Mentions, read_mentions
from loravault.vault.walk import key_of

#: What can be tidied up.
KINDS = ("duplicates", "sidecars", "unused", "images")

#: A file at least so old counts as unused when nothing was made with it (days).
UNUSED_DAYS = 30
_DAY_NS = 86_400 * 10**9
_SYSTEM = frozenset({"lost+found", "system volume information", "$recycle.bin"})
_COMPARE = 4 * 1024 * 1024


@dataclass(frozen=True)
class Piece:
    """One file. `to` is where it moves within its area; None: into the trash."""

    area: str
    rel: str
    size: int
    to: str | None = None


@dataclass(frozen=True)
class Item:
    """Something that goes, with everything that belongs to it."""

    #: One of `KINDS`.
    kind: str
    #: As people know it.
    name: str
    why: str
    pieces: tuple[Piece, ...]
    #: For duplicates the file that stays: root and path.
    keeps: tuple[str, str] | None = None

    @property
    def size(self) -> int:
        """Bytes of what goes into the trash."""
        return sum(piece.size for piece in self.pieces if piece.to is None)


@dataclass(frozen=True)
class CleanPlan:
    """What would go, what stays and why, and what could not be looked at."""

    items: tuple[Item, ...] = ()
    stays: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of everything that would go into the trash."""
        return sum(item.size for item in self.items)


@dataclass
class _Found:
    items: list[Item] = field(default_factory=list)
    stays: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def plan_clean(
    config: VaultConfig, session: Session, kinds: Collection[str], *, now: float, unused_days: float = UNUSED_DAYS
) -> CleanPlan:
    """Look at everything that these kinds need. Raises `UserError` for a kind that is none."""
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"There is nothing called {kind} to tidy up; there are {', '.join(KINDS)}.")
    look = _Look(config, session, now, unused_days)
    for kind in KINDS:
        if kind in kinds:
            getattr(look, kind)()
    found = look.found
    return CleanPlan(tuple(_each_once(found.items)), tuple(found.stays), tuple(dict.fromkeys(found.problems)))


def _each_once(items: Iterable[Item]) -> Iterator[Item]:
    """A file that goes for two reasons goes, and counts, for the first."""
    seen: set[tuple[str, str]] = set()
    for item in items:
        pieces = tuple(piece for piece in item.pieces if (piece.area, piece.rel) not in seen)
        seen.update((piece.area, piece.rel) for piece in pieces)
        if pieces:
            yield replace(item, pieces=pieces)


def confirm_twins(
    config: VaultConfig, plan: CleanPlan, on_progress: Callable[[int, int], None] | None = None
) -> CleanPlan:
    """Compare the weights of every duplicate that would go with those of the file that stays, byte by byte.

    A weight id is made from samples: before a file goes, all of it is looked at. Takes as long as reading both.
    """
    homes = {root.name: root.path for root in config.loras}
    twins = [item for item in plan.items if item.keeps is not None]
    why: dict[str, str] = {}
    for done, item in enumerate(twins):
        if on_progress is not None:
            on_progress(done, len(twins))
        objection = _objection(homes, item)
        if objection is not None:
            why[item.name] = objection
    items = tuple(item for item in plan.items if item.keeps is None or item.name not in why)
    return replace(plan, items=items, stays=(*plan.stays, *sorted(why.items())))


def _objection(homes: Mapping[str, Path], item: Item) -> str | None:
    """Why a duplicate is not to go after all, in words; None if all its weights are those of the file that stays."""
    assert item.keeps is not None
    kept = "/".join(item.keeps)
    try:
        same = same_weights(homes[item.keeps[0]] / item.keeps[1], homes[item.pieces[0].area] / item.pieces[0].rel)
    except OSError as error:
        return f"it could not be compared with {kept} ({error.strerror or error})"
    return None if same else f"its weights differ somewhere from those of {kept}"


def same_weights(one: Path, other: Path) -> bool:
    """Whether all bytes behind the headers of two safetensors files are the same. Raises OSError."""
    with one.open("rb") as first, other.open("rb") as second:
        for file in (first, second):
            file.seek(8 + int.from_bytes(file.read(8), "little"))
        while True:
            piece = first.read(_COMPARE)
            if piece != second.read(_COMPARE):
                return False
            if not piece:
                return True


class _Look:
    """One look at the library and the vault; what several kinds need is read once."""

    def __init__(self, config: VaultConfig, session: Session, now: float, unused_days: float) -> None:
        self._config = config
        self._session = session
        self._older_ns = int(now * 1e9 - unused_days * _DAY_NS)
        self._homes = {root.name: root.path for root in config.loras}
        self._besides: dict[tuple[str, str], dict[str, Beside]] = {}
        self.found = _Found()

    @cached_property
    def mentions(self) -> Mentions:
        """What the vault mentions; where it could not be read whole that is a problem."""
        return read_mentions(self._config.vault, is_ours)

    @cached_property
    def busy(self) -> set[tuple[str, str]]:
        """(root, path) of what open requests use."""
        return busy_files(self._session, self._config.loras)

    def _all_was_read(self, what: str) -> bool:
        if self.mentions.problems:
            self.found.problems.append(
                f"{self.mentions.problems[0]}, so it is not known {what}; none of them is touched."
            )
        return not self.mentions.problems

    def duplicates(self) -> None:
        """Files with the same weights as another one."""
        if not self._all_was_read("which copies are named in notes"):
            return
        rows = {(row.root, row.rel): row for row in adapters.adapters(self._session) if row.weight_id}
        files = [file_of(row) for row in rows.values() if self._is_current(row)]
        for twins in plan_duplicates(files, self.mentions.names, self.busy):
            self.found.stays += [(file.shown, why) for file, why in twins.stay]
            taken: set[str] = set()
            for file in twins.go:
                self._duplicate(twins, file, taken)

    def _duplicate(self, twins: Twins, file: AdapterFile, taken: set[str]) -> None:
        keep = twins.keep
        home = self._homes[file.root]
        going, kept = self._beside(file.root, file.rel), self._beside(keep.root, keep.rel)

        def free(rel: str) -> bool:
            return rel not in taken and not os.path.lexists(home / rel)

        over = dict(sidecars_of_twin(keep, file, kept, going, free))
        taken |= set(over.values())
        folder = file.rel.rpartition("/")[0]
        pieces = [Piece(file.root, file.rel, file.size)]
        for name in going:
            rel = f"{folder}/{name}" if folder else name
            pieces.append(Piece(file.root, rel, _size(home / rel), over.get(rel)))
        why = f"the same weights as {keep.shown}"
        self.found.items.append(Item("duplicates", file.shown, why, tuple(pieces), (keep.root, keep.rel)))

    def sidecars(self) -> None:
        """Files that tools wrote for models that are not there."""
        for root in self._config.loras:
            for folder, listing in self._folders(root):
                lost = [name for name in lost_sidecars(listing) if _is_file(root.path / folder / name)]
                if lost and lies_in(root.path / folder, self._config.vault):
                    lost = [name for name in lost if name in lost_sidecars(listing, in_vault=True)]
                for name in lost:
                    rel = f"{folder}/{name}" if folder else name
                    piece = Piece(root.name, rel, _size(root.path / rel))
                    self.found.items.append(
                        Item("sidecars", f"{root.name}/{rel}", "the model it was made for is not there", (piece,))
                    )

    def unused(self) -> None:
        """Adapters that nothing speaks for."""
        if not self._all_was_read("which LoRAs are named in notes"):
            return
        named = Named(self.mentions.names)
        rows: dict[str, list[AdapterRow]] = defaultdict(list)
        for row in adapters.adapters(self._session):
            rows[row.weight_id or ""].append(row)
        found = plan_unused(entries(self._session), self.mentions.names, self._older_ns)
        worked = worked_on(self._config, self._session, [entry.weight_id for entry in found])
        for entry in found:
            if entry.weight_id in worked:
                continue
            # A note may name it as its trainer called it.
            forms = {form for row in rows[entry.weight_id] for form in named.forms_of(file_of(row))}
            if any(note != entry.card for form in forms for note in self.mentions.names[form]):
                continue
            pieces: list[Piece] = []
            places = [place for place in entry.places if place.state in ("ok", "duplicate")]
            if any((place.root, place.rel) in self.busy for place in places):
                continue
            for place in places:
                folder = place.rel.rpartition("/")[0]
                rels = [place.rel, *(f"{folder}/{n}" if folder else n for n in self._beside(place.root, place.rel))]
                home = self._homes.get(place.root)
                if home is not None:
                    pieces += [Piece(place.root, rel, _size(home / rel)) for rel in rels if _is_file(home / rel)]
            if pieces:
                why = "no picture was made with it, and no note names it" + (
                    "; nobody wrote on its card" if entry.card else ""
                )
                self.found.items.append(Item("unused", entry.place.shown, why, tuple(pieces)))

    def images(self) -> None:
        """Pictures of ours that no note embeds, and covers that nothing shows."""
        if not self._all_was_read("which pictures are embedded"):
            return
        waiting = set()
        for pictures in self._session.exec(select(JobRow.pictures).where(col(JobRow.delivered).is_(False))):
            waiting |= set(json.loads(pictures))
        standing = set(self._session.exec(select(ImageRow.path).where(col(ImageRow.stands_for) != "")))
        for rel, (size, _, ours) in sorted(images.known_images(self._session).items()):
            stem = rel.rpartition("/")[2].rpartition(".")[0]
            if not ours or stem.lower() in self.mentions.embedded or not is_made_here(self._config.vault / rel):
                continue
            if rel in waiting:
                self.found.stays.append((rel, "its answer waits to be written"))
            elif rel in standing:
                self.found.stays.append((rel, "it stands for a LoRA that has no other preview"))
            elif not PICTURE.fullmatch(stem.encode()):
                self.found.stays.append((rel, "it was renamed"))
            else:
                self.found.items.append(Item("images", rel, "no note embeds it", (Piece(VAULT, rel, size),)))
        self._covers()

    def _covers(self) -> None:
        folder = f"{self._config.folder}/Images/Covers"
        home = self._config.vault / folder
        for name in sorted(os.listdir(home)) if home.is_dir() else ():
            if (
                covered_by(name)
                and name.rpartition(".")[0].lower() not in self.mentions.shown
                and _is_file(home / name)
            ):
                piece = Piece(VAULT, f"{folder}/{name}", _size(home / name))
                self.found.items.append(Item("images", piece.rel, "no card and no page shows this cover", (piece,)))

    def _is_current(self, row: AdapterRow) -> bool:
        """Whether the file is there as the index knows it."""
        home = self._homes.get(row.root)
        try:
            return home is not None and key_of(os.stat(home / row.rel))[:2] == (row.size, row.mtime_ns)
        except OSError:
            return False

    def _beside(self, root: str, rel: str) -> tuple[str, ...]:
        home = self._homes.get(root)
        if home is None:
            return ()
        folder, _, name = rel.rpartition("/")
        known = self._besides.get((root, folder))
        if known is None:  # a folder with thousands of files is listed once
            known = self._besides[root, folder] = all_beside(names_in(home / folder))
        own = known[name].own if name in known else ()
        if any(map(_is_note, own)) and lies_in(home / folder, self._config.vault):
            own = tuple(other for other in own if not _is_note(other))  # a note of the vault, whatever else it may be
        return own

    def _folders(self, root: Root) -> Iterator[tuple[str, Sequence[str]]]:
        """(path inside the root, names) of every folder that a scan would look at. Links are not followed."""

        def complain(error: OSError) -> None:
            self.found.problems.append(f"{error.filename} cannot be read ({error.strerror}).")

        for at, folders, files in os.walk(root.path, onerror=complain):
            folders[:] = sorted(n for n in folders if not n.startswith(".") and n.casefold() not in _SYSTEM)
            rel = os.path.relpath(at, root.path).replace(os.sep, "/")
            yield ("" if rel == "." else rel), [*folders, *files]


def lies_in(folder: Path, vault: Path) -> bool:
    """Whether a folder is the vault or inside it, by whatever way and spelling it was reached."""
    try:
        real, home = folder.resolve(), vault.stat()
        return any(os.path.samestat(at.stat(), home) for at in (real, *real.parents))
    except OSError:
        return True  # nothing is known of it: nothing of it goes that could be somebody's


def _is_note(name: str) -> bool:
    return name.lower().endswith(".md")


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
