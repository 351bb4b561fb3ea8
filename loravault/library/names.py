"""Which adapter a person means by a name."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Literal, Protocol, TypeVar

from loravault.errors import UserError
from loravault.formats.cuts import long_words, unaccented
from loravault.formats.hashes import MIN_LOOKUP, clean_hash, names_file
from loravault.library.located import Located
from loravault.vault.inert import inert_value

CLOSEST = 3
#: How much alike two names are that are close (`difflib`): at less, anything comes close to a short one.
NEAR = 0.55
#: The same for a word of a name.
WORD_NEAR = 0.75

#: What a name may hold if it was copied from a card, where active signs are broken.
_TAMED = re.compile("[\\[\\]<>%{}:=!＃¦ˆ∼∖＄\u2060]")


class Named(Located, Protocol):
    """What of an adapter's record the search for a name needs."""

    @property
    def name(self) -> str:
        """File name without its ending."""

    @property
    def alias(self) -> str | None:
        """The name its trainer gave it."""

    @property
    def weight_id(self) -> str | None:
        """Its weights, if they could be read."""


R = TypeVar("R", bound=Named)


@dataclass(frozen=True)
class Ambiguous(Generic[R]):
    """Several different adapters go by this name."""

    records: tuple[R, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """What to write instead, one each: the path inside the root, with the root's name where that is needed."""
        rels = [_bare(record.rel) for record in self.records]
        return tuple(
            rel if rels.count(rel) == 1 else f"{record.root}/{rel}"
            for record, rel in zip(self.records, rels, strict=True)
        )


@dataclass(frozen=True)
class Missing:
    """No adapter goes by this name."""

    #: The names that come closest, best first.
    closest: tuple[str, ...]


class GivenNames:
    """What people call adapters: the notes that are their cards, the aliases on these, and their titles."""

    def __init__(self, given: Iterable[tuple[str, Literal["card", "alias", "title"], str]] = ()) -> None:
        """`given`: weight id, kind and text; of a card its path in the vault."""
        self._given = given

    def of(self, record: Named) -> Sequence[str]:
        """The names of one. A card's path stands there with its ending, whole and without the folders in front."""
        return self._names.get(record.weight_id or "", ())

    @cached_property
    def _names(self) -> Mapping[str, list[str]]:
        names: defaultdict[str, list[str]] = defaultdict(list)
        for weight_id, kind, text in self._given:
            if kind == "card":
                parts = text.split("/")
                names[weight_id] += ["/".join(parts[start:]) for start in range(len(parts))]
                names[weight_id].append(parts[-1].removesuffix(NOTE))
            else:
                names[weight_id].append(text)
        return names


#: The ending of notes: a name with it is a link to a card, and means that one before any file.
NOTE = ".md"


def find(name: str, records: Iterable[R], given: GivenNames | None = None) -> R | Ambiguous[R] | Missing:
    """The adapter a name means: its file name, `folder/name`, its trainer's name for it, then what people call it.

    First as it is written, then in any case. Copies (equal weights) are one adapter. Of files with equal names those
    that can be used come first.
    """
    known = list(records)
    wanted = _bare(name)
    called = given.of if given is not None else _nothing
    ways = (called,) if wanted.endswith(NOTE) else (_file_name, _path, _alias, called)
    for fold in (_exact, _any_case, *([_as_on_a_card] if _TAMED.search(wanted) else [])):
        key = fold(wanted)
        for keys in ways:
            found = [record for record in known if key in map(fold, keys(record))]
            if found:
                return _one(found)
    return Missing(closest(wanted.removesuffix(NOTE), known))


def find_one(name: str, records: Iterable[R], beside: str = "", given: GivenNames | None = None) -> R:
    """The adapter a person means by a name. Raises `UserError`; `beside` tells what else has no such name."""
    found = find(name, records, given)
    if isinstance(found, Ambiguous):
        raise UserError(f"{name} may be any of these, write one of them: {', '.join(found.paths)}.")
    if isinstance(found, Missing):
        near = f" The closest names are {', '.join(found.closest)}." if found.closest else ""
        raise UserError(f"No LoRA is called {name}{beside}.{near}")
    return found


class HashIndex(Generic[R]):
    """The adapters by their hashes: made once for many that are looked up. `hashes` gives the texts of a record."""

    def __init__(self, records: Iterable[R], hashes: Callable[[R], Iterable[str]]) -> None:
        self._by_beginning: dict[str, list[tuple[str, R]]] = {}
        for record in records:
            for known in hashes(record):
                if len(known) >= MIN_LOOKUP:
                    self._by_beginning.setdefault(known[:MIN_LOOKUP].lower(), []).append((known, record))

    def find(self, text: str) -> R | Ambiguous[R] | None:
        """The adapter whose file a hash of an image's text names."""
        near = self._by_beginning.get((clean_hash(text) or "")[:MIN_LOOKUP], ())  # what matches begins alike
        found = {(one.root, one.rel): one for known, one in near if names_file(text, (known,))}
        return _one(list(found.values())) if found else None


def closest(name: str, records: Iterable[Named], limit: int = CLOSEST) -> tuple[str, ...]:
    """The names nearest to one that nobody has: similar spelling first, then names that contain it."""
    spelled = {_any_case(record.name): record.name for record in records if record.state != "missing"}
    typed = name.rpartition("/")[2]
    key = _any_case(typed)
    near = [spelled[match] for match in difflib.get_close_matches(key, spelled, n=limit, cutoff=NEAR)]
    near += [other for other in with_a_word_like(long_words(typed), spelled.values()) if other not in near]
    if len(key) >= 3:
        others = (spelled[other] for other in sorted(spelled) if key in other or other in key)
        near += [other for other in others if other not in near]
    return tuple(near[:limit])


def with_a_word_like(wanted: Iterable[str], names: Iterable[str]) -> list[str]:
    """Names that share one of these words, or nearly: `ghibliStyleV2` as a whole is too long to be like `gibli`.

    Those that share most come first. `wanted`: words as `long_words` gives them.
    """
    typed_words = list(wanted)
    if not typed_words:
        return []
    known = list(names)
    # cut in one go, which of ten thousand names takes a fifth of the time; those without accents need no more
    plain, others = ("\n".join(name for name in known if name.isascii() is ascii_) for ascii_ in (True, False))
    vocabulary = dict.fromkeys([*long_words(plain), *long_words(others)])
    near = {typed: difflib.get_close_matches(typed, vocabulary, n=CLOSEST, cutoff=WORD_NEAR) for typed in typed_words}
    wanted_words = {word for words in near.values() for word in words}
    shared: dict[str, int] = {}
    for name in known if wanted_words else ():
        folded = unaccented(name).casefold()
        if any(word in folded for word in wanted_words) and (found := wanted_words.intersection(long_words(name))):
            shared[name] = sum(not found.isdisjoint(words) for words in near.values())
    return sorted(shared, key=lambda name: (-shared[name], name.casefold(), name))


def _one(found: Sequence[R]) -> R | Ambiguous[R]:
    usable = [record for record in found if record.state in ("ok", "duplicate")]
    candidates = sorted(usable or found, key=lambda record: (record.state == "duplicate", record.root, record.rel))
    first = candidates[0]
    if len(candidates) == 1 or (first.weight_id and len({record.weight_id for record in candidates}) == 1):
        return first
    distinct: dict[str, R] = {}
    for record in candidates:
        distinct.setdefault(record.weight_id or f"{record.root}/{record.rel}", record)
    return Ambiguous(tuple(distinct.values()))


def _file_name(record: Named) -> list[str]:
    return [record.name]


def _path(record: Named) -> list[str]:
    """Every way to write the file's place: `Styles/ink`, `art/Styles/ink`, and with the root's name in front."""
    parts = f"{record.root}/{_bare(record.rel)}".split("/")
    return ["/".join(parts[start:]) for start in range(len(parts) - 1)]


def _nothing(_record: Named) -> Sequence[str]:
    return ()


def _alias(record: Named) -> list[str]:
    return [record.alias] if record.alias else []


def _exact(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _any_case(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _as_on_a_card(text: str) -> str:
    """Cards break the active signs of a name: what is copied from one finds it too."""
    return _any_case(inert_value(text))


def _bare(name: str) -> str:
    text = name.strip().replace("\\", "/").strip("/")
    return text[: -len(".safetensors")] if text.lower().endswith(".safetensors") else text
