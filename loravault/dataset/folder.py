"""Pictures and captions of a folder, in the layouts of the usual trainers; nothing is decoded.

cats/                      a folder of pictures, or of such folders
  a.jpg  a.txt             the caption of a.jpg
  b.png  b-masklabel.png   what counts of b.png is white (OneTrainer)
  mask/a.png               the same for a.jpg (kohya)
  metadata.jsonl           captions of many
  10_sks cat/…             seen ten times in one round; "sks cat" stands for a caption that is lacking (kohya)
  reg/1_cat/…              pictures of the class, for prior preservation
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from loravault.dataset.sidecars import TABLES, Table, Unreadable, read_caption, read_table, text_beside
from loravault.formats.training import TrainingPicture

#: Endings of what can be read; by its bytes a picture is told when it is looked at.
PICTURES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".avif", ".heic", ".heif"})
#: Endings of what a person may have meant to be learned from.
_FILMS = frozenset({".mp4", ".mov", ".webm", ".mkv", ".avi", ".m4v"})
_OTHERS = frozenset({".tif", ".tiff", ".jxl", ".psd", ".raw", ".cr2", ".nef", ".arw", ".dng", ".svg", ".xcf", ".tga"})
#: Beyond so many pictures a folder is surely the wrong one.
MAX_PICTURES = 20_000
#: A larger number in front of a folder's name is a year or a date.
MAX_REPEATS = 1000
_MAX_DEPTH = 16

_REPEATS = re.compile(r"([0-9]{1,9})_(.*)", re.DOTALL)
_REGULARISATION = re.compile(r"(?:reg|regs|reg_images|regulari[sz]ation(?:_images)?|class_images)", re.IGNORECASE)
_MASK_FOLDERS = ("mask", "masks")
_THUMBS = re.compile(r"(?:thumbs|thumbnails?|@eadir|__macosx)", re.IGNORECASE)
_MASK_LABEL, _OTHER_LABEL = "-masklabel", "-condlabel"


@dataclass(frozen=True)
class Skipped:
    """What was found and is not used."""

    #: As `TrainingPicture.name`; a folder's ends in a slash.
    name: str
    #: Half a sentence.
    reason: str


@dataclass(frozen=True)
class Found:
    """What a folder or a note gives to learn from."""

    pictures: tuple[TrainingPicture, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    @property
    def uncaptioned(self) -> tuple[str, ...]:
        """Names of the pictures of the subject that nobody wrote anything under."""
        return tuple(one.name for one in self.pictures if one.caption is None and not one.regularisation)


@dataclass(frozen=True)
class Row:
    """A picture as a note embeds it."""

    #: Absolute.
    path: str
    #: As its owner wrote it.
    name: str
    #: The line under it; None or empty: there is none.
    caption: str | None = None


def from_rows(rows: Iterable[Row], *, roots: Iterable[Path] = ()) -> Found:
    """The pictures of a note, in its order. One that is embedded twice is learned once, with its first caption.

    Where a note says nothing under a picture, the text file beside the picture counts. `roots`: as of `read_folder`,
    for what lies beside the pictures.
    """
    links = _Links(roots)
    found: dict[str, TrainingPicture] = {}
    skipped: list[Skipped] = []
    for row in rows:
        path = Path(row.path)
        if (reason := _unfit(path)) is not None:
            skipped.append(Skipped(row.name, reason))
            continue
        caption, problem = links.caption(path) if not (row.caption or "").strip() else (row.caption, None)
        if problem:
            skipped.append(Skipped(row.name, problem))
        earlier = found.get(row.path)
        if earlier is None:
            mask = links.mask(path, path.parent)
            found[row.path] = TrainingPicture(path=row.path, name=row.name, caption=caption, mask=mask)
        elif earlier.caption is None:
            found[row.path] = replace(earlier, caption=caption)
    return Found(tuple(found.values()), tuple(skipped))


def read_folder(folder: Path, *, name: str = "", roots: Iterable[Path] = (), alpha_masks: bool = False) -> Found:
    """Everything in a folder and below, sorted by name.

    `name`: what the folder is called in front of every picture. `roots`: links that lead out of all of them are not
    followed; none: every link is. `alpha_masks`: what is transparent does not count, in pictures without a mask of
    their own. Raises `OSError` if the folder itself cannot be listed.
    """
    os.scandir(folder).close()
    reader = _Reader(folder, name, _Links(roots), alpha_masks)
    reader.read(replace(_counted(_Place(folder), folder.name), regularisation=False), ())
    for path in sorted(reader.mask_folders - reader.masks_used):
        reader.skip(path, "its pictures are taken for masks, and no picture has one there", folder=True)
    return Found(tuple(reader.pictures), tuple(reader.skipped))


def _unfit(path: Path) -> str | None:
    """Why a path is not even looked at."""
    ending = path.suffix.lower()
    if ending in _FILMS:
        return "it is a film, and only still pictures are learned from"
    if ending not in PICTURES:
        return f"it is no picture that is read{' (save it as PNG or JPEG)' if ending in _OTHERS else ''}"
    try:
        str(path).encode()
        if not path.is_file():
            return "it is not there" if not path.exists() else "it is no file"
    except UnicodeEncodeError:
        return "its name is no text: rename it"
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"
    return None if os.access(path, os.R_OK) else "it may not be read (permission denied)"


class _Links:
    """Where links may lead: a picture's text file must not be somebody's diary, and captions end up in the adapter."""

    def __init__(self, roots: Iterable[Path]) -> None:
        self._roots = tuple(root.resolve() for root in roots)

    def problem(self, path: Path) -> str | None:
        """Why a path is not followed."""
        if not self._roots or not path.is_symlink():
            return None
        try:
            real = path.resolve()
        except (OSError, RuntimeError):
            return "it is a link that leads nowhere"
        return None if any(real.is_relative_to(root) for root in self._roots) else "it is a link that leads out of here"

    def caption(self, path: Path) -> tuple[str | None, str | None]:
        """(caption of a picture, what is wrong with its file)."""
        try:
            file = text_beside(path)
            if file is None:
                return None, None
            if reason := self.problem(file):
                raise Unreadable(reason)
            return read_caption(file), None
        except Unreadable as reason:
            return None, f"its caption is not used: {reason}"

    def mask(self, path: Path, home: Path) -> str | None:
        """The mask of a picture, beside it or in a folder `mask` there or at `home`; None: everything counts."""
        inner = path.relative_to(home).parent
        places = [path.with_name(f"{path.stem}{_MASK_LABEL}.png")]
        places += [path.parent / folder / path.name for folder in _MASK_FOLDERS]
        places += [home / folder / inner / path.name for folder in _MASK_FOLDERS]
        for place in places:
            for found in (place, place.with_suffix(".png")):
                if found.is_file() and self.problem(found) is None:
                    return str(found)
        return None


@dataclass(frozen=True)
class _Place:
    """A folder on the way down, with what the folders above it say."""

    path: Path
    repeats: int = 1
    #: What stands for a picture without a caption.
    words: str | None = None
    regularisation: bool = False
    #: The tables above, nearest last, each with its folder.
    tables: tuple[tuple[Path, Table], ...] = ()
    depth: int = 0


def _counted(place: _Place, name: str) -> _Place:
    """With what the name of the folder says."""
    place = replace(place, regularisation=place.regularisation or bool(_REGULARISATION.fullmatch(name)))
    counted = _REPEATS.fullmatch(name)
    if counted is None or int(counted[1]) > MAX_REPEATS:
        return place
    return replace(place, repeats=int(counted[1]), words=" ".join(counted[2].split()) or None)


@dataclass
class _Reader:
    root: Path
    name: str
    links: _Links
    alpha_masks: bool
    pictures: list[TrainingPicture] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    mask_folders: set[Path] = field(default_factory=set)
    masks_used: set[Path] = field(default_factory=set)

    def read(self, place: _Place, above: tuple[tuple[int, int], ...]) -> None:
        """One folder. `above`: device and number of every folder on the way here, so that no link turns in a circle."""
        try:
            status = place.path.stat()
            entries = sorted(os.scandir(place.path), key=lambda entry: _natural(entry.name))
        except OSError as error:
            self.skip(place.path, f"it cannot be read ({error.strerror or error})", folder=True)
            return
        me = (status.st_dev, status.st_ino)
        if me in above:
            self.skip(place.path, "it is a link to a folder above it", folder=True)
            return
        place = replace(place, tables=(*place.tables, *self._tables(place.path)))
        for entry in entries:
            path = Path(entry.path)
            if _is_folder(entry):
                if self._is_for_pictures(place, path):
                    inner = replace(place, path=path, depth=place.depth + 1)
                    self.read(_counted(inner, path.name), (*above, me))
            elif (picture := self._picture(place, path)) is not None:
                self.pictures.append(picture)

    def skip(self, path: Path, reason: str, *, folder: bool = False) -> None:
        """Tell that something is not used."""
        self.skipped.append(Skipped(self._named(path) + ("/" if folder else ""), reason))

    def _named(self, path: Path) -> str:
        inner = PurePosixPath(self.name) / path.relative_to(self.root).as_posix()
        return str(inner).encode("utf-8", "replace").decode()

    def _tables(self, folder: Path) -> Iterator[tuple[Path, Table]]:
        for name in reversed(TABLES):
            path = folder / name
            if path.is_file():
                try:
                    if reason := self.links.problem(path):
                        raise Unreadable(reason)
                    yield folder, read_table(path)
                except Unreadable as reason:
                    self.skip(path, f"its captions are not used: {reason}")

    def _is_for_pictures(self, place: _Place, path: Path) -> bool:
        name = path.name
        if name.lower() in _MASK_FOLDERS:
            self.mask_folders.add(path)
            return False
        reason = (
            "it is hidden"
            if name.startswith(".")
            else "it holds thumbnails"
            if _THUMBS.fullmatch(name)
            else "it lies too deep"
            if place.depth >= _MAX_DEPTH
            else self.links.problem(path)
        )
        if reason is not None:
            self.skip(path, reason, folder=True)
        return reason is None

    def _picture(self, place: _Place, path: Path) -> TrainingPicture | None:
        ending = path.suffix.lower()
        if ending not in PICTURES | _FILMS | _OTHERS or path.name.lower().endswith(f"{_MASK_LABEL}.png"):
            return None
        reason = self._why_not(place, path)
        if reason is not None:
            self.skip(path, reason)
            return None
        mask = self.links.mask(path, self.root)
        if mask is not None:
            self.masks_used.update(Path(mask).parents)
        return TrainingPicture(
            path=str(path),
            name=self._named(path),
            caption=self._captioned(place, path),
            repeats=place.repeats,
            mask=mask or (str(path) if self.alpha_masks else None),
            regularisation=place.regularisation,
        )

    def _why_not(self, place: _Place, path: Path) -> str | None:
        if path.name.startswith("."):
            return "it is hidden"
        if path.stem.lower().endswith(_OTHER_LABEL):
            return "it is a label of OneTrainer, not a picture"
        if place.repeats < 1:
            return "its folder says 0 times"
        if len(self.pictures) >= MAX_PICTURES:
            return f"there are more than {MAX_PICTURES} pictures"
        return self.links.problem(path) or _unfit(path)

    def _captioned(self, place: _Place, path: Path) -> str | None:
        caption, problem = self.links.caption(path)
        if problem:
            self.skip(path, problem)
        if caption is not None:
            return caption
        for folder, table in reversed(place.tables):
            written = table.caption_of(PurePosixPath(path.relative_to(folder).as_posix()), path)
            if written is not None:
                return written
        return place.words


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that turns in a circle
        return False


def _natural(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """`cat2` before `cat10`, capitals beside small letters, and never two names alike."""
    pieces = re.split(r"(\d+)", name.casefold())
    return tuple((0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces if piece), name
