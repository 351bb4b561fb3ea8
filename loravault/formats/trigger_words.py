"""Trigger words: from captions, from what sites and tools tell, and in the form in which a card holds them.

On a card each entry is a plain word or phrase, or a named group: `red dress: sks woman, red dress`. Groups are choices
(outfits, concepts); plain words always belong.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from loravault.formats import plain
from loravault.formats.captions import CaptionSet

#: Share of a folder's captions that must hold a tag for it to be a trigger word.
COVERAGE = 0.9
#: Entries on a card, words of a group, letters of a word.
MAX_ENTRIES = 32
MAX_GROUP_WORDS = 32
MAX_WORD = 100
#: Above this number of covering words captions are all alike, which tells nothing about which of them matters.
MAX_COVERING = 8
_MAX_NAME = 60
_SENTENCE_WORDS = 5
_MAX_LOOKED_AT = 100
_MAX_PIECES, _MAX_PIECE_WORDS, _MAX_GRAM = 300, 24, 3

_OUTFITS = re.compile(r"\s*\|\|\s*")
_TAG = re.compile(r"<(?:lora|lyco):[^<>]*>", re.IGNORECASE)


def _listed(text: str) -> frozenset[str]:
    return frozenset(word.strip() for word in text.split(";"))


# What covers every picture of a set without being what it was trained for.
_COMMON = _listed(
    """1girl; 1boy; 1other; solo; 2girls; 2boys; multiple girls; multiple boys; female; male; girl; boy; woman; man;
    person; people; no humans; looking at viewer; simple background; white background; transparent background;
    grey background; best quality; high quality; masterpiece; amazing quality; very aesthetic; highres; absurdres;
    lowres; newest; score 9; score 8 up; score 7 up; score 6 up; score 5 up; score 4 up; source anime; source cartoon;
    rating safe; rating general; rating questionable; rating explicit; general; sensitive; explicit; realistic;
    photorealistic; photo; photo (medium); photograph; image; picture; style; signature; watermark; artist name;
    english text; text; commentary; commentary request"""
)
# Words of sentences that are part of no phrase worth having.
_STOP = _listed(
    """a; an; the; of; in; on; at; with; and; or; is; are; was; to; his; her; its; their; this; that; these; from; by;
    for; it; as; into; over; up; image; picture; photo; photograph; drawing; painting; illustration; portrait; view;
    scene; shot; close; depicting; showing; features; featuring; background; wearing; standing; sitting; looking; there;
    has; have; who; which; while"""
)


@dataclass(frozen=True)
class TriggerGroup:
    """Words that belong together. Without a name it is plain text that is always wanted."""

    name: str | None
    words: tuple[str, ...]

    @property
    def prompt(self) -> str:
        """What to write into a prompt."""
        return ", ".join(self.words)

    @property
    def text(self) -> str:
        """What to write onto a card; `parse_group` reads it back."""
        if self.name is None:
            # A phrase that looks like a group would lose its beginning: it becomes a group of itself.
            before, colon, _ = self.prompt.partition(": ")
            return f"{before}: {self.prompt}" if colon and before.strip() else self.prompt
        return f"{self.name}: {self.prompt}"


def parse_group(text: str) -> TriggerGroup:
    """An entry of a card. `red dress: sks woman, red dress` is a named group; without `: ` it is plain text."""
    if "," not in text and ":" not in text:  # most of them are one phrase
        phrase = " ".join(text.split())
        return TriggerGroup(None, (phrase,) if phrase else ())
    name, colon, rest = text.partition(": ")
    if colon and name.strip() and (words := _words(rest)):
        return TriggerGroup(name.strip(), words)
    return TriggerGroup(None, _words(text))


def plain_and_groups(entries: Iterable[str]) -> tuple[tuple[str, ...], tuple[TriggerGroup, ...]]:
    """The words of a card that always belong, and the groups to choose from."""
    parsed = [group for entry in entries if (group := parse_group(entry)).words]
    always = plain.unique([word for group in parsed if group.name is None for word in group.words])
    return always, tuple([group for group in parsed if group.name is not None])


def _words(text: str) -> tuple[str, ...]:
    return plain.unique(word for part in text.split(",") if (word := " ".join(part.split())))


def from_texts(texts: Any) -> tuple[str, ...]:
    """Card entries from the lists of other tools (`trainedWords`, `activation text`, `trigger_phrase`).

    Each text may be a comma list; several such lists, or lists joined by `||`, are several outfits, which become groups
    named after what only they hold.
    """
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, list | tuple):
        return ()
    lists = [
        words
        for text in texts[:MAX_ENTRIES]
        if isinstance(text, str)
        for part in _OUTFITS.split(_TAG.sub(" ", text[:8000]))
        if (words := plain.strings(part, MAX_WORD, MAX_GROUP_WORDS))
    ]
    lists = list(dict.fromkeys(lists))
    if len([words for words in lists if len(words) > 1]) < 2:
        return _entries(TriggerGroup(None, (word,)) for words in lists for word in words)
    return _entries(_named(lists))


def _named(lists: Sequence[tuple[str, ...]]) -> Iterator[TriggerGroup]:
    uses = Counter(word.casefold() for words in lists for word in words)
    taken: set[str] = set()
    for place, words in enumerate(lists, 1):
        if len(words) == 1:
            yield TriggerGroup(None, words)
            continue
        own = [word for word in words if uses[word.casefold()] == 1 and _name(word) not in taken]
        name = _name(own[0]) if own else f"{_name(words[0])} {place}"
        taken.add(name)
        yield TriggerGroup(name, words)


def _name(text: str) -> str:
    """A text as the name of a group: short, and without what would end the name."""
    return text[:_MAX_NAME].replace(": ", " ").strip(" :") or "group"


def _entries(groups: Iterable[TriggerGroup]) -> tuple[str, ...]:
    return plain.unique(text for group in groups if parse_group(text := group.text).words)[:MAX_ENTRIES]


def from_captions(sets: Sequence[CaptionSet]) -> tuple[str, ...]:
    """Card entries from the captions of a training: what covers a whole dataset folder, and what its name says.

    Folders that were taught different words are different concepts: each becomes a group named after its folder.
    """
    taught = [(one, words) for one in sets if (words := _taught(one))]
    different = dict.fromkeys(tuple(map(_fold, words)) for _, words in taught)
    if len(different) < 2:
        return _entries(TriggerGroup(None, (word,)) for one, words in taught[:1] for word in _named_first(one, words))
    groups: list[TriggerGroup] = []
    seen: set[tuple[str, ...]] = set()
    for one, words in taught:
        key = tuple(map(_fold, words))
        if key not in seen:
            seen.add(key)
            groups.append(_group_of(one, words, {group.name for group in groups}))
    return _entries(groups)


def _group_of(one: CaptionSet, words: tuple[str, ...], taken: set[str | None]) -> TriggerGroup:
    name = _name(one.class_words or words[0])
    return TriggerGroup(name if name not in taken else f"{name} {len(taken) + 1}", words)


def _taught(one: CaptionSet) -> tuple[str, ...]:
    """The words that every picture of one folder was taught with."""
    covering = _covering(one)
    name = one.class_words
    if not covering:  # without captions the folder's name is the caption
        return (name,) if name and _fold(name) not in _COMMON else ()
    return covering


def _named_first(one: CaptionSet, words: tuple[str, ...]) -> list[str]:
    """The word that is the folder's name is the one it was made for."""
    return sorted(words, key=lambda word: _fold(word) != _fold(one.class_words or ""))


def _covering(one: CaptionSet) -> tuple[str, ...]:
    most = max(one.tags.values(), default=0)
    total = one.images or most
    needed = COVERAGE * total
    covering = [tag for tag, count in one.tags.items() if count >= needed][:_MAX_LOOKED_AT]
    lines = (plain.one_line(tag, MAX_WORD) for tag in covering)
    found = [line for line in lines if line and _fold(line) not in _COMMON]
    if (total == 1 or not one.images) and len(found) > MAX_COVERING:
        return ()  # captions that occur once each
    if found:
        return plain.unique(found)[:MAX_COVERING]
    return _phrases(one) if _is_prose(one) else ()


def _is_prose(one: CaptionSet) -> bool:
    some = list(islice(one.tags, _MAX_LOOKED_AT))
    return sum(len(tag.split()) for tag in some) >= _SENTENCE_WORDS * len(some)


def _phrases(one: CaptionSet) -> tuple[str, ...]:
    """Of captions in sentences: the longest runs of words that nearly all of them share."""
    pieces = sorted(one.tags.items(), key=lambda item: -item[1])[:_MAX_PIECES]
    counts: Counter[tuple[str, ...]] = Counter()
    for text, count in pieces:
        words = [word.strip(".,;:!?\"'()") for word in text.split()[:_MAX_PIECE_WORDS]]
        counts.update(dict.fromkeys(_grams(words), count))
    single = max((count for gram, count in counts.items() if len(gram) == 1), default=0)
    total = min(one.images or single, sum(count for _, count in pieces))
    if total < 2:
        return ()
    covering = [gram for gram, count in counts.items() if count >= COVERAGE * total]
    kept = [gram for gram in covering if not _STOP.intersection(gram) and not _COMMON.issuperset(gram)]
    longest = [gram for gram in kept if not any(gram != other and _inside(gram, other) for other in kept)]
    most = max(map(len, longest), default=0)
    lines = (plain.one_line(" ".join(gram), MAX_WORD) for gram in longest if len(gram) == most)
    return tuple(line for line in lines if line)[:2]


def _grams(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for start in range(len(words)):
        for length in range(1, min(_MAX_GRAM, len(words) - start) + 1):
            gram = tuple(words[start : start + length])
            if all(gram):
                yield gram


def _inside(gram: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return any(other[at : at + len(gram)] == gram for at in range(len(other) - len(gram) + 1))


def _fold(text: str) -> str:
    return text.replace("_", " ").replace(":", " ").casefold().strip()
