"""Every name under which a layer of one base may stand in a file, with the rows of the base it means.

Names are kept with underscores for dots, as keys of either kind come to the same then. What two layers would be called
alike is nobody's name: a look-up finds what is certain, or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from loravault.formats.normal import tables
from loravault.formats.normal.patches import LayerKey, Place, Shape
from loravault.formats.normal.sgm import sgm_names

#: The component that draws; one base has one of them.
DENOISERS = ("transformer", "unet")
#: Component in a key → where that is in a base: the first that the base has.
_TEXT_ENCODERS: Mapping[str, tuple[str, ...]] = {
    "te": ("text_encoder",),
    "te1": ("text_encoder",),
    "te2": ("text_encoder_2",),
    # trainers count T5 as the third, diffusers counts the encoders that a family has
    "te3": ("text_encoder_3", "text_encoder_2", "text_encoder"),
}
_TEXT_MODEL = "text_model."


@dataclass(frozen=True)
class BaseNames:
    """The names of all layers of one base. Made once for a base by `base_names`."""

    layers: Mapping[LayerKey, Shape]
    #: (component, path with underscores) → its places.
    places: Mapping[tuple[str, str], tuple[Place, ...]]
    components: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "components", frozenset(component for component, _ in self.layers))

    def component_of(self, spoken: str) -> str | None:
        """The component of the base that a key's `unet`, `te`, `te1`, … means; None if it has none."""
        meant = DENOISERS if spoken == "unet" else _TEXT_ENCODERS.get(spoken, (spoken,))
        return next((component for component in meant if component in self.components), None)

    def text_encoders(self) -> list[str]:
        """The components that read the prompt, in order."""
        return sorted(component for component in self.components if component.startswith("text_encoder"))

    def find(self, component: str, path: str) -> tuple[Place, ...]:
        """Where a module of a file goes; empty if the base has no such layer."""
        found = self.places.get((component, path))
        if found is None and not path.startswith("transformer_blocks_"):
            # Wrapped as a whole pipeline, the path begins with the component. But `transformer_blocks`, if this base
            # has none, are another model's, and not `blocks` in a transformer.
            found = self.places.get((component, path.removeprefix(f"{component}_")))
        return found or ()

    def rows(self, place: Place) -> int:
        """How many rows it has."""
        first, last = place.rows or (0, self.layers[place.component, place.module][0])
        return last - first

    def shape(self, places: Sequence[Place]) -> Shape | None:
        """The shape of the weights of all places, stacked by rows; None if they do not stack."""
        shapes = [self.layers[place.component, place.module] for place in places]
        if len({shape[1:] for shape in shapes}) != 1:
            return None
        return (sum(map(self.rows, places)), *shapes[0][1:])


def base_names(layers: Mapping[LayerKey, Shape], family: str) -> BaseNames:
    """The names of a base's layers. `family` chooses the table of its transformer; other components need none."""
    collected: dict[tuple[str, str], tuple[Place, ...]] = {}
    by_component: dict[str, dict[str, Shape]] = {}
    for (component, module), shape in layers.items():
        if shape:
            by_component.setdefault(component, {})[module] = shape
    for component, modules in by_component.items():
        found: dict[str, tuple[Place, ...] | None] = {}
        for names in _sources(component, modules, family):  # a name is decided by the first source that has it
            fresh: dict[str, tuple[Place, ...] | None] = {}
            for name, places in names:
                path = name.replace(".", "_")
                fresh[path] = places if fresh.get(path, places) == places else None
            found = fresh | found
        collected |= {(component, path): places for path, places in found.items() if places}
    return BaseNames({key: shape for key, shape in layers.items() if shape}, collected)


def original_names(
    component: str, modules: Mapping[str, Shape], family: str
) -> Iterator[tuple[str, tuple[Place, ...]]]:
    """(name in the models' own code, its places) for those layers of a transformer that are called otherwise there.

    Each layer once: of several names the first of `tables.WRITTEN` counts.
    """
    mine, taken = _Modules(modules), set[str]()
    for line in _lines(tables.WRITTEN.get(family, ())):
        for name, places in line.names(component, mine):
            found = {place.module for place in places}
            if not found & taken:
                taken |= found
                yield name, places


_Named = Iterator[tuple[str, tuple[Place, ...]]]
_NUMBER = re.compile(r"\d+")


class _Modules:
    """The modules of one component, found by what their paths have in common."""

    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        self.shapes = shapes
        self._alike: dict[str, list[str]] = {}
        for module in shapes:
            self._alike.setdefault(_NUMBER.sub("#", module), []).append(module)

    def numbers(self, path: str) -> Iterator[tuple[str, ...]]:
        """What stands for `#` in those modules whose paths are like this one."""
        pattern = re.compile(re.escape(path).replace(r"\#", r"(\d+)"))
        for module in self._alike.get(_NUMBER.sub("#", path), ()):
            if match := pattern.fullmatch(module):
                yield match.groups()


def _sources(component: str, modules: Mapping[str, Shape], family: str) -> Iterator[_Named]:
    """Names of the modules, the most certain first."""
    yield ((module, (Place(component, module),)) for module in modules)
    if component.startswith("text_encoder"):
        yield from _clip_names(component, modules)
        return
    if any(path.startswith("down_blocks.0.resnets.") for path in modules):
        yield ((name, (Place(component, module),)) for name, module in sgm_names(modules.keys()))
    elif component == "transformer":
        mine, lines = _Modules(modules), _lines(tables.TRANSFORMERS.get(family, ()))
        yield from (line.names(component, mine) for line in lines)
        yield from (line.pieces(component, mine) for line in lines)
    # old versions of diffusers named the list of output layer and dropout, not the layer in it
    yield (
        (module.removesuffix(".0"), (Place(component, module),)) for module in modules if module.endswith(".to_out.0")
    )


def _clip_names(component: str, modules: Mapping[str, Shape]) -> Iterator[_Named]:
    """Text encoders with and without the `text_model` level, whichever of them the installed transformers has."""
    real = {module.removeprefix(_TEXT_MODEL): module for module in modules}
    bare = _Modules({short: modules[module] for short, module in real.items()})

    def both(names: Iterable[tuple[str, tuple[Place, ...]]]) -> _Named:
        for name, places in names:
            meant = tuple(Place(component, real[place.module], place.rows) for place in places)
            yield name, meant
            yield _TEXT_MODEL + name, meant

    yield both((short, (Place(component, short),)) for short in real)
    for line in _lines((tables.CLIP,)):
        yield both(line.names(component, bare))


@dataclass(frozen=True)
class _Target:
    """One module on the right side of a line."""

    path: str
    #: `swap`, `1:2`, `3:` or nothing.
    rows: str

    def places(self, component: str, numbers: Sequence[str], modules: Mapping[str, Shape]) -> tuple[Place, ...]:
        """The places for one block; empty if the base has no such module, or not in this shape."""
        module = _filled(self.path, numbers)
        shape = modules.get(module)
        if shape is None:
            return ()
        if not self.rows:
            return (Place(component, module),)
        if len(shape) < 2:
            return ()
        unit = shape[1]
        if self.rows == "swap":
            halves = ((unit, 2 * unit), (0, unit))
            return tuple(Place(component, module, half) for half in halves) if shape[0] == 2 * unit else ()
        first, _, last = self.rows.partition(":")
        begin, end = int(first) * unit, int(last) * unit if last else shape[0]
        return (Place(component, module, (begin, end)),) if begin < end <= shape[0] else ()


@dataclass(frozen=True)
class _Line:
    """One line of a table."""

    name: str
    targets: tuple[_Target, ...]

    def names(self, component: str, modules: _Modules) -> _Named:
        """The name in every block of the base that has these modules."""
        for name, each in self._blocks(component, modules):
            yield name, tuple(place for places in each for place in places)

    def pieces(self, component: str, modules: _Modules) -> _Named:
        """The pieces of fused layers by number: OneTrainer adapts them one by one."""
        if len(self.targets) > 1:
            for name, each in self._blocks(component, modules):
                yield from ((f"{name}.{piece}", places) for piece, places in enumerate(each))

    def _blocks(self, component: str, modules: _Modules) -> Iterator[tuple[str, list[tuple[Place, ...]]]]:
        for numbers in modules.numbers(self.targets[0].path):
            each = [target.places(component, numbers, modules.shapes) for target in self.targets]
            if all(each):
                yield _filled(self.name, numbers), each


def _filled(path: str, numbers: Sequence[str]) -> str:
    for number in numbers:
        path = path.replace("#", number, 1)
    return path


@cache
def _lines(texts: tuple[str, ...]) -> tuple[_Line, ...]:
    """The lines of some texts, read. Raises `ValueError` for a line that cannot be read."""
    result = []
    for text in texts:
        for row in text.splitlines():
            if not (words := row.split()):
                continue
            targets = tuple(target for word in words[1:] for target in _targets(word))
            if not targets or any(target.path.count("#") != words[0].count("#") for target in targets):
                raise ValueError(f"not a line of names: {row}")
            result.append(_Line(words[0], targets))
    return tuple(result)


_TARGET = re.compile(r"([\w.#{},-]+?)(?:\[(swap|\d+:\d*)\])?")


def _targets(word: str) -> Iterator[_Target]:
    match = _TARGET.fullmatch(word)
    if match is None:
        raise ValueError(f"not the name of a module: {word}")
    before, brace, rest = match[1].partition("{")
    if not brace:
        yield _Target(match[1], match[2] or "")
        return
    choices, _, after = rest.partition("}")
    for choice in choices.split(","):
        yield _Target(before + choice + after, match[2] or "")
