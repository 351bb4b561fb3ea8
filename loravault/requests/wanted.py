"""What a block says about adapters: which names, at which strengths. Which files they are is decided elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loravault.formats.block_weights import KEY
from loravault.formats.infotext import hash_name
from loravault.formats.prompt_tags import LoraTag, parse_tags
from loravault.requests.defaults import MAX_WEIGHT

_LINK = re.compile(r"!?\[\[([^\[\]|]+)(?:\\?\|([^\[\]]*))?\]\]\s*(.*)")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_OPTION = re.compile(r"(.*?)\s+([A-Za-z][A-Za-z0-9-]*)\s*=\s*(\S+)\s*")
#: No line of adapters and no name of one is longer than this; beyond it strengths are not looked for.
_LONGEST = 2000
#: A vector in a line of adapters, whose commas are its own: up to the next adapter or the next option.
_VECTOR = re.compile(r"(lbw\s*=\s*)(\S+?(?:\s*,\s*[-+]?[\d.]+(?=\s*(?:[],>:]|$)|\s+[a-z]))+)", re.IGNORECASE)


@dataclass(frozen=True)
class Candidate:
    """One way to read what was written: a name, and the weights that go with it (None = the card's, else 1)."""

    name: str
    te: float | None = None
    unet: float | None = None
    #: Strengths per block, as written.
    blocks: str | None = None


@dataclass(frozen=True)
class Wanted:
    """An adapter that the block names."""

    #: In the order they are to be tried.
    candidates: tuple[Candidate, ...]
    #: Named by a tag in the prompt, not by `loras:`.
    inline: bool
    hashes: tuple[str, ...] = ()


def from_tags(tags: Sequence[LoraTag], hashes: Mapping[str, tuple[str, ...]]) -> list[Wanted]:
    """What the usable tags of a prompt name, with the hashes that pasted parameters give for them."""
    return [
        Wanted((_of_tag(tag),), True, hashes.get(hash_name(tag.name).casefold(), ())) for tag in tags if not tag.problem
    ]


def _of_tag(tag: LoraTag) -> Candidate:
    return Candidate(tag.name, tag.te, tag.unet, tag.blocks)


def from_option(value: Any, problems: list[str]) -> list[Wanted]:
    """What `loras:` names: a text with commas, a list of texts, links or tags, or names with their weights.

    After the name `0.8 te=0.5 unet=1 lbw=INALL in=0.5` may follow, in any order.
    """
    items = re.split(r",(?=\s|\D|$)", _own_commas(value)) if isinstance(value, str) else value
    if isinstance(items, Mapping):
        items = [{name: weight} for name, weight in items.items()]
    if not isinstance(items, Sequence):
        items = [items]
    found = []
    for item in items:
        # YAML reads an unquoted [[Ink|Ink 0.8]] as a list in a list.
        nested = _only_text(item)
        text = f"[[{nested}]]" if nested is not None else "" if item is None else _as_written(item)
        if text:
            wanted = _wanted(text, problems)
            if wanted:
                found.append(wanted)
    return found


def _only_text(item: Any) -> str | None:
    while isinstance(item, list) and len(item) == 1:
        item = item[0]
        if isinstance(item, str):
            return item
    return None


def _as_written(item: Any) -> str:
    """`- ink: 0.8` is YAML for a name and a value: the weight, as everybody means it."""
    if isinstance(item, Mapping) and len(item) == 1:
        ((name, weight),) = item.items()
        if isinstance(weight, int | float | str):
            return f"{name} {weight}".strip()
    return str(item).strip()


def _own_commas(text: str) -> str:
    """The commas of vectors as semicolons, so that they do not part adapters."""
    if len(text) > _LONGEST:
        return text
    return _VECTOR.sub(lambda found: found[1] + re.sub(r"\s*,\s*", ";", found[2]), text)


def _wanted(text: str, problems: list[str]) -> Wanted | None:
    text = _own_commas(text)
    link = _LINK.fullmatch(text)
    if link:
        return _from_link(link[1].strip(), (link[2] or "").strip(), link[3].strip(), problems)
    if text.startswith("<"):
        rest, tags = parse_tags(text)
        problems.extend(tag.problem for tag in tags if tag.problem)
        if len(tags) == 1 and not rest.strip():
            return None if tags[0].problem else Wanted((_of_tag(tags[0]),), False)
    read = _read(text)
    if read.problem:
        problems.append(read.problem)
        return None
    # A file may be called "ink 2", or "a=b": what is written is tried as a name before its end is read as strengths.
    tried = [Candidate(text), read.candidate(read.name)]
    if read.whole_name != read.name:
        tried.insert(1, read.candidate(read.whole_name, weighted=False))
    return Wanted(tuple(dict.fromkeys(tried)), False)


def _from_link(path: str, alias: str, after: str, problems: list[str]) -> Wanted | None:
    """`[[LoraVault/LoRAs/Styles/ink|ink 0.8]]`: the card's path tells which, the end of the alias how strong."""
    note = path.partition("#")[0].strip().removesuffix(".md")
    target = note.removesuffix(" (LoRA)")
    read = _read(f"x {after}" if after else alias)
    if read.problem:
        problems.append(read.problem)
        return None
    place = target.partition("LoRAs/")[2]
    # The note itself, wherever it is and whatever it is called by now; then the file that a new card is called after.
    names = dict.fromkeys(name for name in (f"{note}.md", place, target, target.rpartition("/")[2]) if name)
    return Wanted(tuple(read.candidate(name) for name in names), False)


@dataclass
class _Read:
    """`ink 0.8 te=0.5 in=0.5`, taken apart."""

    name: str
    #: With the weight, if that stands where the end of the name could be.
    whole_name: str
    weight: float | None = None
    te: float | None = None
    unet: float | None = None
    blocks: str | None = None
    problem: str | None = None

    def candidate(self, name: str, *, weighted: bool = True) -> Candidate:
        """These strengths with a name; without `weighted`, the number before the options is part of the name."""
        weight = self.weight if weighted else None
        te = self.te if self.te is not None else weight
        return Candidate(name, te, self.unet if self.unet is not None else weight, self.blocks)


def _read(text: str) -> _Read:
    """Takes options and the weight off the end, in any order."""
    rest, numbers, blocks = text.strip(), dict[str, str](), list[str]()
    while (option := _last_option(rest)) is not None:
        rest, key, value = option
        if key in ("te", "unet", ""):
            numbers.setdefault(key, value)
        else:
            # They are read from the end; a name or a vector comes before what differs from it.
            blocks.insert(0, value if key == "lbw" else f"{key}={value}")
    result = _Read(rest, rest, blocks=" ".join(sorted(blocks, key=lambda one: "=" in one)) or None)
    if "" not in numbers:
        result.name, numbers[""] = _name_and_weight(rest)
    for key, value in numbers.items():
        number, problem = _weight(value, text) if value else (None, None)
        setattr(result, key or "weight", number)
        result.problem = result.problem or problem
    return result


def _last_option(text: str) -> tuple[str, str, str] | None:
    """(what is before it, key in lower case, value) of the option at the end; a weight after an option has no key."""
    if len(text) > _LONGEST:
        return None
    if match := _OPTION.fullmatch(text):
        key = match[2].lower()
        return (match[1].rstrip(), key, match[3]) if key in ("te", "unet", "lbw") or KEY.fullmatch(key) else None
    before, weight = _name_and_weight(text)
    return (before, "", weight) if weight and _OPTION.fullmatch(before) and _last_option(before) else None


def _name_and_weight(text: str) -> tuple[str, str]:
    """`("ink", "0.8")` of `ink 0.8`; without a weight, nothing."""
    name, blank, last = text.rpartition(" ")
    is_weight = _NUMBER.fullmatch(last) or re.fullmatch(r"[-+]?\d+,\d+", last)
    return (name.strip(), last) if blank and name.strip() and is_weight else (text, "")


def _weight(value: str, whole: str) -> tuple[float | None, str | None]:
    """A number, or what is wrong with it."""
    if re.fullmatch(r"[-+]?\d+,\d+", value):
        return None, f'The weight in "{whole}" is written with a comma: write {value.replace(",", ".")}.'
    if not _NUMBER.fullmatch(value):
        return None, f'The weight "{value}" in "{whole}" is not a number.'
    weight = float(value)
    return (None, too_high(whole)) if abs(weight) > MAX_WEIGHT else (weight, None)


def too_high(text: str) -> str:
    """The sentence about a weight that nobody means."""
    return f'The weight in "{text}" is out of range: {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}, usually 0.4 to 1.'
