"""Where the pictures of a training request are: those the note embeds, and those of the folders it names.

Only names and sizes are looked at: pictures of people are decoded in the worker. What is not found, or lies where it
may not be read from, is said with its name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from loravault.dataset.folder import PICTURES, Row, Skipped, from_rows, read_folder
from loravault.formats.training import TrainingPicture
from loravault.vault.embeds import PictureEmbed, picture_embeds
from loravault.vault.note import Note
from loravault.vault.paths import PathRefused, inside
from loravault.vault.resolving import LinkFinder

#: Embedded, and no pictures that can be learned from.
_OTHER_MEDIA = frozenset({".svg", ".tif", ".tiff", ".jxl", ".psd", ".mp4", ".webm", ".mov", ".mkv"})
_NAMED = 8


@dataclass
class Found:
    """The pictures of a request, with everything that is to be said about them."""

    pictures: list[TrainingPicture] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    #: Embedded pictures that are not there.
    missing: list[str] = field(default_factory=list)
    #: Absolute paths of the folders it was read from.
    folders: list[str] = field(default_factory=list)

    def places(self) -> tuple[str, ...]:
        """Every folder, and every picture that lies in none of them."""
        inside = tuple(f"{folder}{os.sep}" for folder in self.folders)
        return (*self.folders, *(one.path for one in self.pictures if not one.path.startswith(inside)))

    def sizes(self) -> list[tuple[str, int]]:
        """Name and bytes of each picture: a cheap sign that one was changed."""
        return [(one.name, _size(one.path)) for one in self.pictures]


def embedded(note: Note, rel: str, vault: Path) -> Found:
    """The pictures that a note (at `rel`) embeds, in order, each once."""
    found = Found()
    embeds = [one for one in picture_embeds(note) if one.external or _suffix(one.target) in PICTURES | _OTHER_MEDIA]
    if not embeds:
        return found
    finder = LinkFinder.of_vault(vault)
    rows: dict[str, tuple[str, str | None]] = {}
    missing: list[str] = []
    again: list[str] = []
    for embed in embeds:
        if not _can_be_learned(embed, found):
            continue
        place = finder.find(embed.target, rel)
        path = None if place is None else _inside(vault, place, found)
        if place is None:
            missing.append(_cut(embed.target))
        elif place in rows:
            again.append(place)
            rows[place] = rows[place][0], rows[place][1] or embed.caption
        elif path is not None:
            rows[place] = path, embed.caption
    if missing:
        found.problems.append(_missing(missing))
        found.missing = missing
    if again:
        listed = _listed(dict.fromkeys(_short(again)))
        found.warnings.append(f"Embedded more than once, and counted once: {listed}.")
    names = _short(list(rows))
    given = from_rows(
        (Row(path, name, caption) for name, (path, caption) in zip(names, rows.values(), strict=True)), roots=(vault,)
    )
    found.pictures = list(given.pictures)
    found.warnings += _skipped(given.skipped)
    return found


def in_folder(text: str, vault: Path, roots: Sequence[Path], *, regularisation: bool = False) -> Found:
    """The pictures in the folder that a property names, with the captions beside them."""
    folder = folder_of(text, vault, roots)
    if isinstance(folder, str):
        return Found(problems=[folder])
    try:
        given = read_folder(folder, roots=(vault, *roots))
    except OSError as error:
        return Found(problems=[f"The folder {text} cannot be read: {error.strerror or error}."])
    found = Found(list(given.pictures), warnings=_skipped(given.skipped), folders=[str(folder)])
    if regularisation:
        found.pictures = [replace(one, regularisation=True) for one in found.pictures]
    if not found.pictures:
        found.problems.append(f"There is no picture in the folder {text}.")
    return found


def _skipped(skipped: Sequence[Skipped]) -> list[str]:
    shown = [f"{one.name} is left out: {one.reason}." for one in skipped[:_NAMED]]
    return shown + ([f"{len(skipped) - _NAMED} more are left out."] if len(skipped) > _NAMED else [])


def _can_be_learned(embed: PictureEmbed, found: Found) -> bool:
    """Whether it may be a picture of the vault; else that is said."""
    if embed.external:
        found.problems.append(
            f"{_cut(embed.target)} is not in the vault, and nothing is fetched: save the picture into the vault and "
            "embed that."
        )
    elif _suffix(embed.target) not in PICTURES:
        found.warnings.append(f"{_cut(embed.target)} is no picture that can be learned from, and was left out.")
    return not embed.external and _suffix(embed.target) in PICTURES


def _inside(vault: Path, place: str, found: Found) -> str | None:
    try:
        return str(inside(vault, place))
    except PathRefused as refusal:
        found.problems.append(refusal.message)
        return None


def folder_of(text: str, vault: Path, roots: Sequence[Path]) -> Path | str:
    """The folder that a property names: inside the vault, or inside a configured folder. Else why not, in words."""
    wanted = text.strip().strip("/") if not os.path.isabs(text.strip()) else text.strip()
    candidates = [Path(wanted)] if os.path.isabs(wanted) else [home / wanted for home in (vault, *roots)]
    allowed = [Path(os.path.realpath(home)) for home in (vault, *roots)]
    for candidate in candidates:
        real = Path(os.path.realpath(candidate))
        if not any(real == home or real.is_relative_to(home) for home in allowed):
            continue
        if any(part.startswith(".") for part in candidate.parts if part not in (".", "..")) and os.path.isdir(real):
            hidden = any(real.is_relative_to(home) and _is_hidden(real, home) for home in allowed)
            if hidden:
                return f"The folder {text} is hidden; move the pictures to one that is not."
        if os.path.isdir(real):
            return real
    if os.path.isabs(wanted) and os.path.isdir(wanted):
        return (
            f"The folder {text} is neither in the vault nor in a folder that config.toml names under `datasets`, so "
            "nothing is read from it. Move it there, or add it."
        )
    where = ", ".join(str(home) for home in roots)
    return f"There is no folder {text} in the vault" + (f", nor in {where}." if where else ".")


def _is_hidden(path: Path, home: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(home).parts)


def merged(parts: Iterable[Found], repeats: int | None) -> Found:
    """All of them; a name that two have is told apart by a number, for names are how pictures are spoken of."""
    found = Found()
    paths: set[tuple[str, bool]] = set()
    names: set[str] = set()
    for part in parts:
        found.problems += part.problems
        found.warnings += part.warnings
        found.missing += part.missing
        found.folders += part.folders
        for one in part.pictures:
            key = (os.path.realpath(one.path), one.regularisation)
            if key in paths:
                continue
            paths.add(key)
            name, number = one.name, 2
            while name in names:
                name, number = f"{one.name} ({number})", number + 1
            names.add(name)
            again = repeats if repeats is not None and not one.regularisation else one.repeats
            found.pictures.append(replace(one, name=name, repeats=again))
    return found


def _short(places: Sequence[str]) -> list[str]:
    """File names; where two are the same, the whole path."""
    bare = [place.rpartition("/")[2] for place in places]
    return [
        place if bare.count(name) > 1 and len(set(places)) > 1 else name
        for place, name in zip(places, bare, strict=True)
    ]


def _missing(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"A picture is not in the vault: {_listed(names)}. Put it there, or take out the line that shows it."
    return (
        f"{len(names)} pictures are not in the vault: {_listed(names)}. Put them there, or take out the lines that "
        "show them."
    )


def _listed(names: Iterable[str]) -> str:
    all_names = list(names)
    more = f" and {len(all_names) - _NAMED} more" if len(all_names) > _NAMED else ""
    return f"{', '.join(all_names[:_NAMED])}{more}"


def _suffix(target: str) -> str:
    return os.path.splitext(target)[1].lower()


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
