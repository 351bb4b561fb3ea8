"""What could be tidied away in a library, and what goes along when an adapter is renamed. Pure: plans, no files.

Every plan errs on the side of leaving things where they are: a copy that a note names by its own name, a file that
several could own, a word in a note that may mean an adapter, all of them stay.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from loravault.errors import UserError
from loravault.library.beside import OTHER_MODELS, ending_of, group, orphans, rest_of
from loravault.library.entry import Entry
from loravault.library.scan import SUFFIX
from loravault.vault.mentions import folded

_FACTS = r"\.(?:civitai\.info|metadata\.json(?:\.bak)?|swarm\.json|cm-info\.json|api_info\.json|rgthree-info\.json)"
_PICTURE = r"\.(?:preview|thumb|example\.\d{1,4})\.[a-z0-9]{3,4}"
#: Facts about a model, which nobody writes by hand.
_FACTS_ENDING = re.compile(rf"{_FACTS}\Z", re.IGNORECASE)
_CERTAIN_ENDING = re.compile(rf"(?:{_FACTS}|{_PICTURE})\Z", re.IGNORECASE)
_LIKELY_ENDING = re.compile(r"\.(?:json|png|jpe?g|webp|gif|mp4|webm)\Z", re.IGNORECASE)
#: What people write. `recipe.preview.png` beside `recipe.md` may be the picture of a cake.
_TEXT_ENDING = re.compile(r"\.(?:html|md|txt)\Z", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[\\:*?"<>|\x00-\x1f]')


@dataclass(frozen=True)
class AdapterFile:
    """One file of an adapter, as far as tidying up needs to know it."""

    root: str
    rel: str
    weight_id: str
    #: File name without its ending.
    name: str
    #: What its trainer called it.
    alias: str | None
    state: str
    size: int
    mtime_ns: int
    #: Device and inode; (0, 0) where the file system has none.
    inode: tuple[int, int]

    @property
    def shown(self) -> str:
        """Root name and path, as people read it."""
        return f"{self.root}/{self.rel}"


@dataclass(frozen=True)
class Twins:
    """Files with the same weights: the one that stays in use, those that can go, those that stay and why."""

    weight_id: str
    keep: AdapterFile
    go: tuple[AdapterFile, ...]
    stay: tuple[tuple[AdapterFile, str], ...] = ()


def plan_duplicates(
    files: Iterable[AdapterFile], mentions: Mapping[str, Collection[str]], busy: Collection[tuple[str, str]] = ()
) -> tuple[Twins, ...]:
    """Of several files with the same weights the one in use stays: that which is `ok`, then the first by place.

    A copy stays as well if a note names it in a way that does not mean the kept one too, or if it is `busy` (root, path
    of what open requests use). One file under several names (links, roots inside roots) is no duplicate of itself.
    """
    groups: dict[str, list[AdapterFile]] = defaultdict(list)
    for file in files:
        if file.state in ("ok", "duplicate"):
            groups[file.weight_id].append(file)
    named = Named(mentions)
    plans = []
    for weight_id, twins in sorted(groups.items()):
        ordered = _distinct(sorted(twins, key=lambda file: (file.state != "ok", file.root, file.rel)))
        if len(ordered) < 2:
            continue
        keep, go, stay = ordered[0], [], []
        covered = named.forms_of(keep)
        for file in ordered[1:]:
            notes = sorted({note for form in named.forms_of(file) - covered for note in mentions[form]})
            if (file.root, file.rel) in busy:
                stay.append((file, "a request that waits or runs uses it"))
            elif notes:
                stay.append((file, f"{notes[0]} names it{f' ({len(notes)} notes do)' if len(notes) > 1 else ''}"))
            else:
                go.append(file)
        plans.append(Twins(weight_id, keep, tuple(go), tuple(stay)))
    return tuple(plans)


def plan_unused(
    entries: Iterable[Entry], mentions: Mapping[str, Collection[str]], older_than_ns: int
) -> tuple[Entry, ...]:
    """Adapters that made no picture, that no note names, whose files are all older than that; largest first.

    Favourites and what is rated stay. An adapter's own card does not count as a note that names it.
    """
    named = Named(mentions)

    def is_unused(entry: Entry) -> bool:
        newest = max(place.mtime_ns for place in entry.places)
        if entry.state != "ok" or entry.pictures or newest > older_than_ns:
            return False
        if entry.favourite or entry.rating:
            return False
        words = {entry.name, *entry.aliases, *(place.rel.rpartition("/")[2] for place in entry.places)}
        if entry.card:
            words.add(entry.card.rpartition("/")[2])
        alias = entry.facts.get("title")
        if isinstance(alias, str):
            words.add(alias)
        return not any(note != entry.card for word in words for note in named.by_last(word))

    return tuple(sorted(filter(is_unused, entries), key=lambda entry: (-entry.place.size, entry.name, entry.weight_id)))


class Named:
    """What notes name (see `vault.mentions`), by the last part of it."""

    def __init__(self, mentions: Mapping[str, Collection[str]]) -> None:
        self._mentions = mentions
        self._by_last: dict[str, list[str]] = defaultdict(list)
        for form in mentions:
            self._by_last[form.rpartition("/")[2]].append(form)

    def by_last(self, word: str) -> set[str]:
        """The notes that name something whose last part is this word."""
        return {note for form in self._by_last.get(folded(word), ()) for note in self._mentions[form]}

    def forms_of(self, file: AdapterFile) -> set[str]:
        """The forms in notes that mean this file: its name, its trainer's name, any end of its path."""
        path = folded(file.shown)
        forms = {form for form in self._by_last.get(folded(file.name), ()) if f"/{path}".endswith(f"/{form}")}
        return forms | {
            form for form in self._by_last.get(folded(file.alias or ""), ()) if form == folded(file.alias or "")
        }


def _distinct(files: Iterable[AdapterFile]) -> list[AdapterFile]:
    seen: set[tuple[int, int]] = set()
    kept = []
    for file in files:
        if file.inode != (0, 0) and file.inode in seen:
            continue
        seen.add(file.inode)
        kept.append(file)
    return kept


# --- what stands beside an adapter -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Beside:
    """The sidecars of one adapter file; `shared` are those that another model of the same name could own as well."""

    own: tuple[str, ...]
    shared: tuple[str, ...] = ()


def beside(name: str, listing: Collection[str]) -> Beside:
    """Which files of a folder (names) go with the adapter file `name`. For many of one folder use `all_beside`."""
    return all_beside({*listing, name})[name]


def all_beside(listing: Collection[str]) -> dict[str, Beside]:
    """Adapter file -> what goes with it, for every adapter file of a folder (names).

    With `ink.ckpt` beside `ink.safetensors` both may need what is called `ink.…`: it stays.
    """
    found = group(listing)
    stems = Counter(folded_stem(name) for name in found)
    others = {folded_stem(name) for name in listing if os.path.splitext(name)[1].lower() in OTHER_MODELS}
    return {
        name: Beside((), names) if folded_stem(name) in others or stems[folded_stem(name)] > 1 else Beside(names)
        for name, names in found.items()
    }


def lost_sidecars(listing: Sequence[str], *, in_vault: bool = False) -> tuple[str, ...]:
    """Files of a folder (names) that tools wrote for a model that is not there (any more).

    What may be anybody's by its name (`ink.json`, `ink.png`) goes along with one that surely was made for the model;
    a text only with facts about the model, not with a picture alone. In a vault notes and attachments are the user's
    whatever they are called: there only facts go.
    """
    certain = orphans(listing)
    if in_vault:
        return tuple(name for name in certain if _FACTS_ENDING.search(name))
    made, known = _stems_before(_CERTAIN_ENDING, certain), _stems_before(_FACTS_ENDING, certain)
    companions = [
        name
        for name in listing
        if not name.startswith(".")
        and (
            (_LIKELY_ENDING.search(name) and folded_stem(name) in made)
            or (_TEXT_ENDING.search(name) and folded_stem(name) in known)
        )
    ]
    return tuple(sorted({*certain, *companions}))


def _stems_before(ending: re.Pattern[str], names: Iterable[str]) -> set[str]:
    """The stems of those names that have such an ending."""
    return {stem for name in names if (match := ending.search(name)) and (stem := folded(name[: match.start()]))}


def folded_stem(name: str) -> str:
    """A file name without its last ending, as names are compared."""
    return folded(name.rpartition(".")[0] or name)


# --- renaming --------------------------------------------------------------------------------------------------------


def new_place(rel: str, new: str, is_folder: Callable[[str], bool] = lambda _rel: False) -> str:
    """Where an adapter goes: `name` renames it where it is, `folder/name` elsewhere; the ending stays.

    `folder/`, and whatever `is_folder` in the root, keeps its name; `./` and a leading `/` are the top folder.
    Raises `UserError` for what is no place inside the root.
    """
    text = unicodedata.normalize("NFC", new.strip())
    name = rel.rpartition("/")[2]
    if text in ("/", "./"):
        return name
    if not text:
        raise UserError("Say where it goes: NAME, FOLDER/ or FOLDER/NAME.")
    folder, slash, stem = text.rpartition("/")
    asked = stem
    stem = stem[: -len(SUFFIX)] if stem.lower().endswith(SUFFIX) else stem
    parts = [part for part in (folder.split("/") if folder else []) if part != "."]
    for part in (*parts, *([stem] if stem else [])):
        if not part.strip() or part.startswith(".") or part != part.strip() or part.endswith("."):
            raise UserError(f"{new!r} is no place inside the folder of LoRAs: write NAME, FOLDER/ or FOLDER/NAME.")
        if _FORBIDDEN.search(part) or len(part.encode()) > 240:
            raise UserError(f'{part!r} cannot be a name on every system; leave out \\ : * ? " < > | and be shorter.')
    if stem and is_folder("/".join([*parts, asked])):
        return "/".join([*parts, asked, name])
    if not slash:
        return _joined(rel.rpartition("/")[0], f"{stem}{SUFFIX}")
    return "/".join([*parts, f"{stem}{SUFFIX}" if stem else name])


def rename_moves(rel: str, target: str, sidecars: Iterable[str]) -> list[tuple[str, str]]:
    """(from, to) for an adapter and the names beside it: each keeps what follows the adapter's own name."""
    folder, _, name = rel.rpartition("/")
    new_folder, _, new_name = target.rpartition("/")
    new_stem = new_name[: -len(SUFFIX)]
    moves = [(rel, target)]
    for other in sidecars:
        moves.append((_joined(folder, other), _joined(new_folder, new_stem + rest_of(other, name))))
    return [move for move in moves if move[0] != move[1]]


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def sidecars_of_twin(
    keep: AdapterFile, go: AdapterFile, kept: Sequence[str], going: Sequence[str], free: Callable[[str], bool]
) -> list[tuple[str, str]]:
    """(from, to) of those sidecars of a copy that the kept file lacks: they move over to it. Within one root only."""
    if keep.root != go.root:
        return []
    keep_folder, _, keep_name = keep.rel.rpartition("/")
    go_folder, _, go_name = go.rel.rpartition("/")
    keep_stem = keep_name[: -len(SUFFIX)]
    has = {ending_of(name, keep_name) for name in kept}
    moves = []
    for name in going:
        target = _joined(keep_folder, keep_stem + rest_of(name, go_name))
        if ending_of(name, go_name) not in has and free(target):
            moves.append((_joined(go_folder, name), target))
    return moves
