"""The library in numbers, and what lies in it several times. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from loravault.library.entry import Entry, Place

MOST_USED = 10

#: (root, path inside it) -> (device, inode).
Inodes = Mapping[tuple[str, str], tuple[int, int]]
_NO_INODES: Inodes = MappingProxyType({})


@dataclass(frozen=True)
class Duplicate:
    """An adapter whose weights lie at several places."""

    weight_id: str
    name: str
    #: `root/rel` of the copy that is used, and of the others.
    used: str
    others: tuple[str, ...]
    #: Bytes of the others.
    freeable: int
    #: The files differ outside of the weights: what one says of itself the other may not.
    differ: bool


@dataclass(frozen=True)
class Counted:
    """How many adapters, and how many bytes in all their files."""

    adapters: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Statistics:
    """The library in numbers. Of several copies of one adapter, the one that is used says its folder."""

    adapters: int
    files: int
    bytes: int
    by_family: Mapping[str, Counted]
    by_network: Mapping[str, Counted]
    #: `ok`, `missing`, `broken`.
    by_state: Mapping[str, Counted]
    #: Folder inside its root; empty: at the top.
    by_folder: Mapping[str, Counted]
    with_trigger_words: int
    with_preview: int
    hashed: int
    rated: int
    favourites: int
    with_card: int
    duplicates: int
    freeable: int
    #: (name, pictures), the most used first.
    most_used: tuple[tuple[str, int], ...]
    never_used: int
    #: Pictures that were made.
    images: int


def duplicates(entries: Sequence[Entry], inodes: Inodes = _NO_INODES) -> list[Duplicate]:
    """Adapters with several files that are there, those that waste the most space first.

    `inodes`: (root, rel) -> (device, inode), where known: one file under several names is no duplicate of itself.
    """
    found = [one for entry in entries if (one := _duplicate(entry, inodes)) is not None]
    return sorted(found, key=lambda one: (-one.freeable, one.name.casefold(), one.weight_id))


def _duplicate(entry: Entry, inodes: Inodes) -> Duplicate | None:
    files: dict[object, Place] = {}
    for place in present(entry):
        inode = inodes.get((place.root, place.rel), (0, 0))
        files.setdefault(inode if inode != (0, 0) else place.shown, place)  # (0, 0): the file system has none
    used, *others = files.values() or [entry.place]
    if not others:
        return None
    return Duplicate(
        weight_id=entry.weight_id,
        name=entry.name,
        used=used.shown,
        others=tuple(place.shown for place in others),
        freeable=sum(place.size for place in others),
        differ=len({place.size for place in (used, *others)}) > 1,
    )


def present(entry: Entry) -> list[Place]:
    """The files of an adapter that are there, the one that is used first."""
    return [place for place in entry.places if place.state != "missing"]


def has_preview(entry: Entry, covers: Collection[str] = ()) -> bool:
    """Whether there is any picture that stands for it; `covers`: weight ids of adapters that have one of ours."""
    return bool(entry.preview or entry.cover or entry.facts.get("embedded_preview") or entry.weight_id in covers)


def statistics(
    entries: Sequence[Entry],
    broken: Sequence[Place] = (),
    images: int = 0,
    *,
    covers: Collection[str] = (),
    inodes: Inodes = _NO_INODES,
) -> Statistics:
    """Count. `broken` are files that never could be read and therefore belong to no adapter.

    `images`: how many pictures were made; `covers`: weight ids that have a cover of ours.
    """
    several = duplicates(entries, inodes)
    there = [place for entry in entries for place in present(entry)]
    unread = [place for place in broken if place.state != "missing"]
    used = sorted((entry for entry in entries if entry.pictures), key=lambda one: (-one.pictures, one.name.casefold()))
    return Statistics(
        adapters=len(entries),
        files=len(there) + len(unread),
        bytes=sum(place.size for place in (*there, *unread)),
        by_family=_grouped((entry.family, entry) for entry in entries),
        by_network=_grouped((entry.network or "unknown", entry) for entry in entries),
        by_state=_with_broken(_grouped((entry.state, entry) for entry in entries), broken),
        by_folder=_grouped((entry.category, entry) for entry in entries),
        with_trigger_words=sum(bool(entry.trigger_words) for entry in entries),
        with_preview=sum(has_preview(entry, covers) for entry in entries),
        hashed=sum(entry.hashed for entry in entries),
        rated=sum(bool(entry.rating) for entry in entries),
        favourites=sum(entry.favourite for entry in entries),
        with_card=sum(entry.card is not None for entry in entries),
        duplicates=len(several),
        freeable=sum(one.freeable for one in several),
        most_used=tuple((entry.name, entry.pictures) for entry in used[:MOST_USED]),
        never_used=len(entries) - len(used),
        images=images,
    )


def _grouped(pairs: Iterable[tuple[str, Entry]]) -> dict[str, Counted]:
    """Group -> how much it holds, the largest first."""
    numbers: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for group, entry in pairs:
        numbers[group] += 1
        sizes[group] += sum(place.size for place in present(entry))
    ordered = sorted(numbers, key=lambda group: (-numbers[group], group))
    return {group: Counted(numbers[group], sizes[group]) for group in ordered}


def _with_broken(states: dict[str, Counted], broken: Sequence[Place]) -> dict[str, Counted]:
    for place in broken:
        state = "missing" if place.state == "missing" else "broken"
        before = states.get(state, Counted())
        states[state] = Counted(before.adapters + 1, before.bytes + (place.size if state == "broken" else 0))
    return states
