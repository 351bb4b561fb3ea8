"""Which files the adapters that a block names are, and at which strengths they are used together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from loravault.formats.block_weights import BASE, Factors, read_blocks
from loravault.formats.generation import AdapterUse
from loravault.requests.defaults import HIGH_WEIGHT, HIGH_WEIGHT_SUM, MANY_ADAPTERS, MAX_ADAPTERS, MAX_WEIGHT
from loravault.requests.model import Catalog, KnownAdapter, NotFound, Several
from loravault.requests.wanted import Candidate, Wanted, from_option, from_tags, too_high

__all__ = ["Candidate", "Choice", "Chosen", "Wanted", "choose", "from_option", "from_tags", "with_blocks"]


@dataclass(frozen=True)
class Chosen:
    """An adapter of the library with the strengths it is to be used at."""

    adapter: KnownAdapter
    te: float
    unet: float
    inline: bool
    #: Strengths per block as written; what they come to is known when the base is.
    written: str | None = None
    blocks: Factors = ()

    @property
    def use(self) -> AdapterUse:
        """As the engine takes it."""
        adapter = self.adapter
        return AdapterUse(
            name=adapter.name,
            path=adapter.path,
            weight_id=adapter.weight_id,
            te=self.te,
            unet=self.unet,
            blocks=self.blocks,
        )

    @property
    def peak(self) -> float:
        """The greatest strength that any of its layers gets, without its sign."""
        factors = dict(self.blocks)
        inside = [abs(factor) for block, factor in self.blocks if block != BASE]
        return max(abs(self.te * factors.get(BASE, 1.0)), abs(self.unet) * max([1.0, *inside]))


@dataclass
class Choice:
    """What became of the adapters a block names."""

    chosen: list[Chosen]
    problems: list[str]
    warnings: list[str]
    #: Warnings about what they do together.
    together: list[str] = field(default_factory=list)
    #: Names of which no file is there, as far as is known; problems or warnings say so too.
    absent: list[str] = field(default_factory=list)


def choose(wanted: Sequence[Wanted], catalog: Catalog, *, skip_missing: bool) -> Choice:
    """Find each adapter, by hash before name; all that cannot be found or used at once.

    A tag overrules `loras:` for the same adapter; two of a kind add up, as far as their blocks are weighted alike.
    """
    result = Choice([], [], [])
    if len(wanted) > MAX_ADAPTERS:
        result.problems.append(f"The block names {len(wanted)} LoRAs; at most {MAX_ADAPTERS} can be used together.")
        return result
    by_weights: dict[str, list[Chosen]] = {}
    for one in wanted:
        found = _one(one, catalog, skip_missing, result)
        if found is not None:
            by_weights.setdefault(found.adapter.weight_id, []).append(found)
    for same in by_weights.values():
        result.chosen += _joined(same, result)
    _warn_of_weights(result)
    return result


def with_blocks(choice: Choice, family: str, presets: Mapping[str, str]) -> None:
    """Reads the strengths per block, now that the base's family is known; what is wrong becomes a problem."""
    for number, one in enumerate(choice.chosen):
        if one.written is None:
            continue
        name = one.adapter.name
        try:
            weighted = replace(one, blocks=read_blocks(one.written, family, presets))
        except ValueError as error:
            choice.problems.append(f'The block weights of "{name}" {error}.')
            continue
        choice.chosen[number] = weighted
        if weighted.peak > MAX_WEIGHT:
            choice.problems.append(too_high(f"{name} {weighted.peak:g}"))
        elif weighted.peak > HIGH_WEIGHT >= one.peak:
            choice.warnings.append(_very_high(name, weighted.peak, " in one of its blocks"))


def _one(wanted: Wanted, catalog: Catalog, skip_missing: bool, result: Choice) -> Chosen | None:
    written = wanted.candidates[-1].name
    for text in wanted.hashes:
        adapter = catalog.find_adapter_by_hash(text)
        if adapter is not None:
            if adapter.name != written:
                result.warnings.append(f'"{written}" is called "{adapter.name}" here (found by its hash).')
            return _usable(adapter, wanted.candidates[0], wanted.inline, skip_missing, result)
    missing = NotFound()
    for candidate in wanted.candidates:
        found = catalog.find_adapter(candidate.name)
        if isinstance(found, KnownAdapter):
            return _usable(found, candidate, wanted.inline, skip_missing, result)
        if isinstance(found, Several):
            result.problems.append(
                f'"{candidate.name}" could be several LoRAs; write one of: {", ".join(found.paths)}.'
            )
            return None
        missing = NotFound(found.closest or missing.closest, found.reason or missing.reason)
    _missing(written, missing, skip_missing, result)
    return None


def _missing(name: str, found: NotFound, skip_missing: bool, result: Choice) -> None:
    result.absent.append(name)
    if skip_missing:
        result.warnings.append(f'There is no LoRA "{name}"; it was left out (missing_loras: skip).')
        return
    near = f"Nearest: {', '.join(found.closest)}." if found.closest else "No name comes close to it."
    result.problems.append(f'There is no LoRA "{name}". {found.reason or near}')


def _usable(
    adapter: KnownAdapter, candidate: Candidate, inline: bool, skip_missing: bool, result: Choice
) -> Chosen | None:
    if adapter.state in ("missing", "incomplete"):
        result.absent.append(adapter.name)
    if adapter.state == "missing":
        lost = f'The LoRA "{adapter.name}" is known, but its file is not there now (moved, or on a drive that is away?)'
        if skip_missing:
            result.warnings.append(f"{lost}; it was left out (missing_loras: skip).")
        else:
            result.problems.append(f"{lost}.")
        return None
    if adapter.state not in ("ok", "duplicate"):
        result.problems.append(f'The LoRA "{adapter.name}" cannot be used: {adapter.reason or adapter.state}.')
        return None
    default = adapter.weight if adapter.weight is not None else 1.0
    te = default if candidate.te is None else candidate.te
    unet = default if candidate.unet is None else candidate.unet
    if max(abs(te), abs(unet)) > MAX_WEIGHT:
        result.problems.append(too_high(f"{adapter.name} {te if abs(te) > MAX_WEIGHT else unet:g}"))
        return None
    return Chosen(adapter, te, unet, inline, candidate.blocks)


def _joined(same: Sequence[Chosen], result: Choice) -> list[Chosen]:
    """All namings of one adapter as the fewest uses that say the same."""
    tagged = [one for one in same if one.inline]
    if len(tagged) not in (0, len(same)):
        # Tags decide how strong; that it is named in `loras:` still decides that trigger words are inserted.
        same = [replace(one, inline=False) for one in tagged]
    alike: dict[str | None, Chosen] = {}
    for one in same:
        before = alike.get(one.written)
        total = one if before is None else replace(before, te=before.te + one.te, unet=before.unet + one.unet)
        alike[one.written] = total
    name = same[0].adapter.name
    if len(alike) > 1:
        result.warnings.append(f'"{name}" is named more than once, with other block weights; the effects add up.')
    elif len(same) > 1:
        (total,) = alike.values()
        sums = f"{total.te:g}" if total.te == total.unet else f"te {total.te:g}, unet {total.unet:g}"
        result.warnings.append(f'"{name}" is named {_times(len(same))}; its weights were added: {sums}.')
    return list(alike.values())


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"


def _warn_of_weights(result: Choice) -> None:
    peaks: dict[str, float] = {}
    for one in result.chosen:
        if one.peak:
            peaks[one.adapter.name] = peaks.get(one.adapter.name, 0.0) + one.peak
    result.warnings += [_very_high(name, peak) for name, peak in peaks.items() if peak > HIGH_WEIGHT]
    total = sum(peaks.values())
    if len(peaks) > MANY_ADAPTERS:
        result.together.append(
            f"{len(peaks)} LoRAs are used together; above {MANY_ADAPTERS} they usually disturb each other."
        )
    if len(peaks) > 1 and total > HIGH_WEIGHT_SUM and max(peaks.values()) <= HIGH_WEIGHT:
        result.together.append(f"The weights of the LoRAs add up to {total:g}; together that often burns the picture.")


def _very_high(name: str, peak: float, where: str = "") -> str:
    return f'The weight {peak:g} of "{name}"{where} is very high; above {HIGH_WEIGHT:g} pictures usually burn.'
