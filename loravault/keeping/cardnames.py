"""What cards are called and where they go, and by which name a prompt finds an adapter. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from loravault.keeping.notenames import TakenNames
from loravault.library.entry import Entry, without_ending
from loravault.library.names import Named
from loravault.vault.ignore import IgnoreRules, conflict_original
from loravault.vault.names import FOLDER_BYTES, free_stem, name_key, safe_stem

#: Cards are in this folder of ours, in the folders of the loras folder.
CARDS = "LoRAs"
#: Pages of ours whose number is not known beforehand, as keys of names.
_MONTH = re.compile(r"made in (?:\d{4}-\d\d|an unknown month)(?: [^(]|\Z)")


def plan_paths(entries: Iterable[Entry], folder: str, taken: TakenNames, rules: IgnoreRules) -> dict[str, str]:
    """Weight id -> vault-relative path of its new card. `taken` grows by the new names.

    Names are unique in the whole vault, whatever its file system thinks of case and composition, because a second note
    of a name makes Obsidian rewrite the links to the first. The name of the page with its pictures is free as well.
    """

    def is_free(stem: str) -> bool:
        key = name_key(stem)
        return key not in taken and name_key(f"{stem} pictures") not in taken and not _MONTH.match(key)

    def is_looked_at(stem: str) -> bool:
        return conflict_original(f"{stem}.md") is None and rules.reason(f"{stem}.md") is None

    paths = {}
    homes: dict[str, str] = {}
    for entry in sorted(entries, key=lambda e: (e.place.rel, e.place.root, e.weight_id)):
        stem = free_stem(safe_stem(entry.name), is_free, tried=taken.numbers)
        if not is_looked_at(stem):  # named like a temporary file or a sync tool's copy: as a note nobody would read it
            stem = free_stem(f"LoRA {entry.weight_id.removeprefix('w1-')}", is_free)
        taken.add((name_key(stem), name_key(f"{stem} pictures")))
        category = entry.category
        home = homes.get(category)
        if home is None:
            parts = [safe_stem(part, FOLDER_BYTES) for part in category.split("/") if part]
            home = homes[category] = "/".join([folder, CARDS, *parts])
        paths[entry.weight_id] = f"{home}/{stem}.md"
    return paths


class CallNames:
    """The shortest name that means one adapter and no other: its file name, else with as many folders as are needed."""

    def __init__(self, places: Iterable[Named]) -> None:
        self._by_name: dict[str, list[Named]] = defaultdict(list)
        for place in places:
            self._by_name[place.name].append(place)
        #: Name -> end of a path of a file of this name -> whose that is; `_SEVERAL`: of more than one adapter.
        self._owners: dict[str, dict[str, str | None]] = {}

    def of(self, entry: Entry) -> str:
        """How a prompt calls this adapter."""
        places = self._by_name.get(entry.name, [])
        if len(places) == 1 and places[0].weight_id == entry.weight_id:  # nearly every name
            return _ends(entry.place.shown, 1)[0]
        owners = self._owners.get(entry.name)
        if owners is None:  # of a name that hundreds of files have, each is looked at once, and not for each of them
            owners = self._owners[entry.name] = _owners(places)
        *ends, whole = _ends(entry.place.shown)
        return next((end for end in ends if owners.get(end, entry.weight_id) == entry.weight_id), whole)


_SEVERAL = "several"


def _owners(places: Iterable[Named]) -> dict[str, str | None]:
    owners: dict[str, str | None] = {}
    for place in places:
        for end in _ends(f"{place.root}/{place.rel}"):
            if owners.setdefault(end, place.weight_id) != place.weight_id:
                owners[end] = _SEVERAL
    return owners


def _ends(path: str, most: int = 1000) -> list[str]:
    """The last part of a path without its ending, the last two, and so on."""
    parts = without_ending(path).split("/")
    return ["/".join(parts[-count:]) for count in range(1, min(len(parts), most) + 1)]
