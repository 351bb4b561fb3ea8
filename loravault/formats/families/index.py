"""All tables turned round: from the path of a module to the models that have it, each with its widths.

A model (a variant of a family, as far as shapes tell) is one bit of a number, so that "which models have all of these
layers" is a few `and`s. A tensor's name is taken apart once and remembered: names repeat from file to file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import NamedTuple

from loravault.formats import keys
from loravault.formats.families import attention1, flux, hunyuan, joint, layers, unet
from loravault.formats.families.table import Choice, Family, Layer, Model, fold_numbers, layers_of
from loravault.formats.families.text import ENCODERS

#: Every family, by name.
FAMILIES: Mapping[str, Family] = {
    family.name: family
    for module in (unet, flux, hunyuan, joint, layers, attention1)
    for family in module.FAMILIES
}  # fmt: skip
#: Every model: family and variant. Its place is its bit.
MODELS: tuple[tuple[Family, Model], ...] = tuple(
    (family, model) for family in FAMILIES.values() for model in family.models
)
#: All bits.
ANY = (1 << len(MODELS)) - 1
# Names of the modules that nearly every writer prefixes differently are found behind up to so many words of a prefix.
_PREFIX_WORDS = 4
_REMEMBERED = 60_000
_LONGEST = 256  # no trainer writes longer names; those of a hostile header are not kept
_SPLIT = ("qkv_#", "linear#_#")


class Entry(NamedTuple):
    """One layer as some models have it."""

    models: int
    into: Choice
    out: Choice
    kernel: int | None


class Kind:
    """What tensors at the same place of equal blocks have in common; equal ones are one object."""

    __slots__ = ("component", "cross", "entries", "fitting", "half", "own", "part")

    def __init__(self, component: str, part: str, entries: tuple[Entry, ...], cross: bool) -> None:
        self.component = component
        self.part = part
        self.entries = entries
        #: Whether it reads the text in a Stable Diffusion UNet: the width of that is what tells these apart.
        self.cross = cross
        #: See `keys.half_of`.
        self.half = keys.half_of(part)
        #: Shape of one of the halves → the models it fits, as far as it was asked for.
        self.fitting: dict[tuple[int, ...], int] = {}
        #: Whether it is part of an adapter by its name alone.
        self.own = part != "" and part not in keys.PLAIN_PARTS


# The path up to its first number (the stack of equal blocks), what its numbers may be, and the models.
_Place = tuple[str, tuple[tuple[int, int], ...], Entry]


class _Names(dict[str, tuple[Kind, str]]):
    """Tensor name → its kind, and the module it belongs to."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: dict[tuple[str, str, tuple[Entry, ...], bool], Kind] = {}
        #: Module → its stack of blocks and its number there.
        self.blocks: dict[str, tuple[str, int]] = {}
        self.places: dict[tuple[str, str], tuple[str, tuple[Entry, ...], bool]] = {}

    def __missing__(self, name: str) -> tuple[Kind, str]:
        row = self._row(name)
        if len(name) <= _LONGEST:
            self[name] = row
        return row

    def _row(self, name: str) -> tuple[Kind, str]:
        split = keys.split_key(name)
        if split is None:
            return self._kind("", "", (), False), ""
        component, path, part = split
        place = (_place(component, name), path)
        known = self.places.get(place)
        if known is None:  # all parts of a module are at the same place
            known = (f"{component}:{path}", entries_of(*place), bool(unet.CROSS.search(path)))
            if len(path) <= _LONGEST:
                self.places[place] = known
                block = _block(known[0])
                if block:
                    self.blocks[known[0]] = block
        module, entries, cross = known
        return self._kind(component, part, entries, cross), module

    def _kind(self, component: str, part: str, entries: tuple[Entry, ...], cross: bool) -> Kind:
        key = (component, part, entries, cross)
        return self.kinds.get(key) or self.kinds.setdefault(key, Kind(*key))


_NAMES = [_Names()]


def prepare() -> None:
    """Turn the tables round now, which takes a while, so that the first file is told as quickly as all others."""
    _heights()


def kinds_of(names: Iterable[str]) -> list[tuple[Kind, str]]:
    """For each tensor name, in order: its kind, and the module it belongs to."""
    known = _NAMES[0]
    if len(known) > _REMEMBERED:  # a new one, as another thread may be in the middle of a file
        known = _NAMES[0] = _Names()
    return list(map(known.__getitem__, names))


def complete_stacks(modules: Iterable[str]) -> dict[str, int]:
    """Of module names: the stacks of which every block from the first on is there → number of the last one."""
    stacks: dict[str, set[int]] = {}
    known = _NAMES[0].blocks
    for block in {known.get(module) or _block(module) for module in modules}:
        if block is not None:
            stacks.setdefault(block[0], set()).add(block[1])
    return {stack: max(found) for stack, found in stacks.items() if len(found) == max(found) + 1 >= _STACK}


def of_height(models: int, stacks: Mapping[str, int]) -> int:
    """Of models that all fit, those whose stacks end where the file's do, if there are any; else all."""
    for stack, last in stacks.items():
        exact = _heights().get((stack, last), 0) & models
        models = exact or models
    return models


def _block(module: str) -> tuple[str, int] | None:
    match = _BLOCK.match(module)
    return (match[1], int(match[2])) if match else None


_BLOCK = re.compile(r"([^0-9]+)([0-9]{1,4})(?![0-9])")
_STACK = 4


@cache
def _heights() -> dict[tuple[str, int], int]:
    """(stack, number of its last block) → the models that have such a stack."""
    tops: dict[tuple[str, int], int] = {}
    for (component, _), rows in _index().items():
        for stack, ranges, entry in rows:
            for bit in range(len(MODELS)):
                if ranges and entry.models >> bit & 1:
                    key = (f"{component}:{stack}", bit)
                    tops[key] = max(tops.get(key, 0), ranges[0][1])
    result: dict[tuple[str, int], int] = {}
    for (stack, bit), last in tops.items():
        result[stack, last] = result.get((stack, last), 0) | 1 << bit
    return result


def entries_of(component: str, path: str) -> tuple[Entry, ...]:
    """The models that have a module of this path (with underscores), and its widths there; empty if none has."""
    pattern, numbers = fold_numbers(path)
    for found in _guesses(component, pattern):
        rows = _index().get((component, found))
        if rows is None:
            continue
        fused = found.count("#") < len(numbers)  # one of the layers that others have fused: it writes a part of that
        return tuple(
            entry._replace(out=None) if fused else entry
            for _, ranges, entry in rows
            if all(first <= number <= last for number, (first, last) in zip(numbers, ranges, strict=False))
        )
    return ()


def _guesses(component: str, pattern: str) -> Iterator[str]:
    """The pattern; without a number at its end (`qkv.0`, OneTrainer); without the words of an unknown prefix."""
    yield pattern
    if pattern.endswith(_SPLIT):
        yield pattern[:-2]
    if component == "unet":
        words = pattern.split("_")
        for number in range(1, min(_PREFIX_WORDS, len(words) - 1) + 1):
            if "#" in words[number - 1]:
                return
            yield "_".join(words[number:])


def _place(component: str, name: str) -> str:
    """As the component, but kohya's `lora_te_` apart from `text_encoder.`, which every family has."""
    return "te1" if component == "te" and "text_encoder" in name[:32] else component


@cache
def _index() -> dict[tuple[str, str], list[_Place]]:
    """(component, pattern) → its rows; entries of several models that are alike are one."""
    rows: dict[tuple[str, Layer], int] = {}
    for bit, (family, model) in enumerate(MODELS):
        for component, part in (("unet", model), *_text_models(family)):
            for layer in layers_of(part):
                rows[component, layer] = rows.get((component, layer), 0) | 1 << bit
    result: dict[tuple[str, str], list[_Place]] = {}
    for (component, layer), models in rows.items():
        entry = Entry(models, layer.into, layer.out, layer.kernel)
        stack = layer.pattern.partition("#")[0]
        result.setdefault((component, layer.pattern), []).append((stack, layer.numbers, entry))
    return result


def _text_models(family: Family) -> Iterator[tuple[str, Model]]:
    for component, name in family.text.items():
        text, numbers = ENCODERS[name]
        yield component, Model(None, (text,), numbers)
