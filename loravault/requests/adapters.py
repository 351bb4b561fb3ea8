"""Which adapters a block names, at which weights, and which files they are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from loravault.formats.generation import AdapterUse
from loravault.formats.infotext import hash_name
from loravault.formats.prompt_tags import LoraTag, parse_tags
from loravault.requests.defaults import HIGH_WEIGHT, HIGH_WEIGHT_SUM, MAX_ADAPTERS, MAX_WEIGHT
from loravault.requests.model import Catalog, KnownAdapter, NotFound, Several

_LINK = re.compile(r"!?\[\[([^\[\]|]+)(?:\\?\|([^\[\]]*))?\]\]\s*(\S*)")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True)
class Candidate:
    """One way to read what was written: a name, and the weights that go with it (None = the card's, else 1)."""

    name: str
    te: float | None = None
    unet: float | None = None


@dataclass(frozen=True)
class Wanted:
    """An adapter that the block names."""

    #: In the order they are to be tried.
    candidates: tuple[Candidate, ...]
    #: Named by a tag in the prompt, not by `loras:`.
    inline: bool
    hashes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chosen:
    """An adapter of the library with the strengths it is to be used at."""

    adapter: KnownAdapter
    te: float
    unet: float
    inline: bool

    @property
    def use(self) -> AdapterUse:
        """As the engine takes it."""
        adapter = self.adapter
        return AdapterUse(name=adapter.name, path=adapter.path, weight_id=adapter.weight_id, te=self.te, unet=self.unet)


def from_tags(tags: Sequence[LoraTag], hashes: Mapping[str, tuple[str, ...]]) -> list[Wanted]:
    """What the usable tags of a prompt name, with the hashes that pasted parameters give for them."""
    return [
        Wanted((Candidate(tag.name, tag.te, tag.unet),), True, hashes.get(hash_name(tag.name).casefold(), ()))
        for tag in tags
        if not tag.problem
    ]


def from_option(value: Any, problems: list[str]) -> list[Wanted]:
    """What `loras:` names: a text with commas, or a list of texts (`ink_outline 0.8`), links or tags."""
    items = re.split(r",(?=\s|\D|$)", value) if isinstance(value, str) else value
    if not isinstance(items, Sequence):
        items = [items]
    found = []
    for item in items:
        # YAML reads an unquoted [[Ink|Ink 0.8]] as a list in a list.
        nested = _only_text(item)
        text = f"[[{nested}]]" if nested is not None else "" if item is None else str(item).strip()
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


def _wanted(text: str, problems: list[str]) -> Wanted | None:
    link = _LINK.fullmatch(text)
    if link:
        return _from_link(link[1].strip(), (link[2] or "").strip(), link[3], problems)
    if text.startswith("<"):
        rest, tags = parse_tags(text)
        problems.extend(tag.problem for tag in tags if tag.problem)
        if len(tags) == 1 and not rest.strip():
            return None if tags[0].problem else Wanted((Candidate(tags[0].name, tags[0].te, tags[0].unet),), False)
    name, weight, problem = _name_and_weight(text)
    if problem:
        problems.append(problem)
        return None
    whole = Candidate(text)
    # A file may be called "ink 2": what is written is tried as a name before its end is read as a weight.
    return Wanted((whole,) if weight is None else (whole, Candidate(name, weight, weight)), False)


def _from_link(path: str, alias: str, after: str, problems: list[str]) -> Wanted | None:
    """`[[LoraVault/LoRAs/Styles/ink|ink 0.8]]`: the card's path tells which, the end of the alias how strong."""
    target = path.partition("#")[0].strip().removesuffix(".md").removesuffix(" (LoRA)")
    _, weight, problem = _name_and_weight(f"x {after}" if after else alias)
    if problem:
        problems.append(problem)
        return None
    place = target.partition("LoRAs/")[2]
    names = dict.fromkeys(name for name in (place, target, target.rpartition("/")[2]) if name)
    return Wanted(tuple(Candidate(name, weight, weight) for name in names), False)


def _name_and_weight(text: str) -> tuple[str, float | None, str | None]:
    """`("ink", 0.8, None)` of `ink 0.8`; a third value says what is wrong with the weight."""
    name, blank, last = text.rpartition(" ")
    if not blank or not name.strip():
        return text, None, None
    if re.fullmatch(r"[-+]?\d+,\d+", last):
        return text, None, f'The weight in "{text}" is written with a comma: write {last.replace(",", ".")}.'
    if not _NUMBER.fullmatch(last):
        return text, None, None
    weight = float(last)
    if abs(weight) > MAX_WEIGHT:
        return text, None, _too_high(text)
    return name.strip(), weight, None


def _too_high(text: str) -> str:
    return f'The weight in "{text}" is out of range: {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}, usually 0.4 to 1.'


@dataclass
class Choice:
    """What became of the adapters a block names."""

    chosen: list[Chosen]
    problems: list[str]
    warnings: list[str]


def choose(wanted: Sequence[Wanted], catalog: Catalog, *, skip_missing: bool) -> Choice:
    """Find each adapter, by hash before name; all that cannot be found or used at once.

    A tag overrules `loras:` for the same adapter; two of a kind add up.
    """
    result = Choice([], [], [])
    if len(wanted) > MAX_ADAPTERS:
        result.problems.append(f"The block names {len(wanted)} adapters; at most {MAX_ADAPTERS} can be used together.")
        return result
    by_weights: dict[str, Chosen] = {}
    for one in wanted:
        found = _one(one, catalog, skip_missing, result)
        if found is not None:
            _add(found, by_weights, result)
    result.chosen = list(by_weights.values())
    _warn_of_weights(result)
    return result


def _one(wanted: Wanted, catalog: Catalog, skip_missing: bool, result: Choice) -> Chosen | None:
    written = wanted.candidates[-1].name
    for text in wanted.hashes:
        adapter = catalog.find_adapter_by_hash(text)
        if adapter is not None:
            if adapter.name != written:
                result.warnings.append(f'"{written}" is called "{adapter.name}" here (found by its hash).')
            return _usable(adapter, wanted.candidates[0], wanted.inline, skip_missing, result)
    closest: tuple[str, ...] = ()
    for candidate in wanted.candidates:
        found = catalog.find_adapter(candidate.name)
        if isinstance(found, KnownAdapter):
            return _usable(found, candidate, wanted.inline, skip_missing, result)
        if isinstance(found, Several):
            result.problems.append(
                f'"{candidate.name}" could be several adapters; write one of: {", ".join(found.paths)}.'
            )
            return None
        closest = found.closest or closest
    _missing(written, NotFound(closest), skip_missing, result)
    return None


def _missing(name: str, found: NotFound, skip_missing: bool, result: Choice) -> None:
    if skip_missing:
        result.warnings.append(f'There is no adapter "{name}"; it was left out (missing_loras: skip).')
        return
    hint = f"Nearest: {', '.join(found.closest)}." if found.closest else "No name comes close to it."
    result.problems.append(f'There is no adapter "{name}". {hint}')


def _usable(
    adapter: KnownAdapter, candidate: Candidate, inline: bool, skip_missing: bool, result: Choice
) -> Chosen | None:
    if adapter.state == "missing":
        lost = (
            f'The adapter "{adapter.name}" is known, but its file is not there now (moved, or on a drive that is away?)'
        )
        if skip_missing:
            result.warnings.append(f"{lost}; it was left out (missing_loras: skip).")
        else:
            result.problems.append(f"{lost}.")
        return None
    if adapter.state not in ("ok", "duplicate"):
        result.problems.append(f'The adapter "{adapter.name}" cannot be used: {adapter.reason or adapter.state}.')
        return None
    default = adapter.weight if adapter.weight is not None else 1.0
    te = default if candidate.te is None else candidate.te
    unet = te if candidate.unet is None else candidate.unet
    if max(abs(te), abs(unet)) > MAX_WEIGHT:
        result.problems.append(_too_high(f"{adapter.name} {te if abs(te) > MAX_WEIGHT else unet:g}"))
        return None
    return Chosen(adapter, te, unet, inline)


def _add(found: Chosen, by_weights: dict[str, Chosen], result: Choice) -> None:
    key = found.adapter.weight_id
    before = by_weights.get(key)
    if before is None:
        by_weights[key] = found
    elif found.inline and not before.inline:
        # The tag decides how strong; that it is named in `loras:` still decides that trigger words are inserted.
        by_weights[key] = replace(found, inline=False)
    else:
        te, unet = before.te + found.te, before.unet + found.unet
        by_weights[key] = replace(before, te=te, unet=unet)
        sums = f"{te:g}" if te == unet else f"te {te:g}, unet {unet:g}"
        result.warnings.append(f'"{found.adapter.name}" is named twice; its weights were added: {sums}.')


def _warn_of_weights(result: Choice) -> None:
    peaks = {one.adapter.name: max(abs(one.te), abs(one.unet)) for one in result.chosen}
    for name, peak in peaks.items():
        if peak > HIGH_WEIGHT:
            result.warnings.append(
                f'The weight {peak:g} of "{name}" is very high; above {HIGH_WEIGHT:g} pictures usually burn.'
            )
    total = sum(peaks.values())
    if len(peaks) > 1 and total > HIGH_WEIGHT_SUM and max(peaks.values()) <= HIGH_WEIGHT:
        result.warnings.append(
            f"The weights of the adapters add up to {total:g}; together that often burns the picture."
        )
