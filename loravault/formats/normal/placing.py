"""Placing a file in a base: every tensor ends in one patch, among the unused, or in a module that does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from loravault.formats import keys
from loravault.formats.normal import parts
from loravault.formats.normal.alphas import Alphas
from loravault.formats.normal.names import BaseNames, base_names
from loravault.formats.normal.patches import LayerKey, Normal, Patch, Place, Shape
from loravault.formats.safetensors_header import Header
from loravault.formats.tensor_table import TensorInfo

# A raw PEFT file does not say which component it was trained on.
_NO_COMPONENT = frozenset({"", "base_model.model."})
#: Prefixes of components that the grammar of keys does not tell apart.
_OTHERS: Mapping[str, str] = {"transformer_2.": "transformer_2"}


@dataclass
class Module:
    """The tensors that a file has for one layer."""

    prefix: str
    #: As in `keys.Key`, or the name of a component.
    component: str
    name: str
    path: str
    #: Part in its one spelling → (tensor name, its row of the table).
    parts: dict[str, tuple[str, TensorInfo]] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, Shape]:
        """Part → shape of its tensor."""
        return {part: parts.meant_shape(name, info.shape) for part, (name, info) in self.parts.items()}


def normalise(header: Header, layers: Mapping[LayerKey, Shape], family: str) -> Normal:
    """An adapter's header, placed in a base.

    `layers`: (component, module path) → shape of its weight, of every linear, convolution, norm and embedding of the
    base; `family` as `families.identify` names it. Nothing of the file but its header is needed, and nothing raises.
    """
    return place(header, base_names(layers, family))


def place(header: Header, names: BaseNames) -> Normal:
    """As `normalise`, with the names of the base made before: they are worth keeping as long as the base."""
    modules, _ = gather(header.tensors)
    alphas = Alphas(header.metadata)
    found: list[Patch] = []
    misfits: list[str] = []
    missed: set[str] = set()  # tensors of misfits: they are told by their module
    for module in modules:
        places = _places(module, names)
        patch = _patch(module, places, names, alphas) if places else None
        if patch is not None:
            found.append(patch)
        elif places and parts.is_adapter(module.shapes):
            misfits.append(module.name)
            missed.update(row[0] for row in module.parts.values())
    patches = _without_repetitions(found, names)
    used = {row[0] for patch in patches for row in patch.parts.values()}
    unused = tuple(name for name in header.tensors if name not in used and name not in missed)
    return Normal(tuple(patches), unused, tuple(misfits))


def gather(tensors: Mapping[str, TensorInfo]) -> tuple[list[Module], list[str]]:
    """The modules of a file in the order they stand in, and the names of tensors that are part of none."""
    result: dict[tuple[str, str, str], Module] = {}
    rest: list[str] = []
    for name, info in tensors.items():
        key = keys.split_name(name)
        if key is None:
            rest.append(name)
            continue
        component = _OTHERS.get(key.prefix, key.component)
        at = (key.prefix, component, key.path)
        module = result.get(at) or result.setdefault(at, Module(key.prefix, component, key.module, key.path))
        part = parts.spelled(key.part)
        if part in module.parts:  # one part twice, under two spellings: the first counts
            rest.append(name)
        else:
            module.parts[part] = (name, info)
    return list(result.values()), rest


def _places(module: Module, names: BaseNames) -> tuple[Place, ...]:
    """Where the layer is in the base; empty if it has none."""
    component = names.component_of(module.component)
    found = names.find(component, module.path) if component else ()
    if found or module.component != "unet" or module.prefix not in _NO_COMPONENT:
        return found
    others = [places for encoder in names.text_encoders() if (places := names.find(encoder, module.path))]
    return next((places for places in others if _fitting(module, places, names)), others[0] if others else ())


def _fitting(module: Module, places: Sequence[Place], names: BaseNames) -> bool:
    layer, algorithm = names.shape(places), parts.algorithm_of(module.shapes)
    return layer is not None and algorithm is not None and parts.fits(algorithm, module.shapes, layer)


def _patch(module: Module, places: tuple[Place, ...], names: BaseNames, alphas: Alphas) -> Patch | None:
    """The patch, if the parts are complete and have the shapes of these places."""
    layer, shapes = names.shape(places), module.shapes
    if layer is None:
        return None
    copies = parts.copied_norm(shapes, layer)
    if copies is not None:
        renamed = {new: module.parts[part] for part, new in copies.items()}
        whole = parts.fits("full", {part: row[1].shape for part, row in renamed.items()}, layer)
        return Patch(module.name, "full", renamed, places) if whole else None
    algorithm = parts.algorithm_of(shapes)
    if algorithm is None:
        return None
    kept = {part: row for part, row in module.parts.items() if parts.allowed(algorithm, part)}
    shapes = {part: shapes[part] for part in kept}
    if not parts.fits(algorithm, shapes, layer):
        return None
    alpha = None
    if "alpha" not in kept:
        path = module.name[len(module.prefix) :]
        alpha = alphas.of(places[0].component, path, algorithm, keys.rank_of(shapes))
    return Patch(module.name, algorithm, kept, places, alpha)


def _without_repetitions(patches: Sequence[Patch], names: BaseNames) -> list[Patch]:
    """The patches without those that change rows a second time.

    Some files hold one adapter twice, fused and apart or in two spellings; applied both, it would count double. What is
    closer to the layers of the base stays.
    """
    taken: dict[LayerKey, list[tuple[int, int]]] = {}
    kept: set[int] = set()
    for number, patch in sorted(enumerate(patches), key=lambda row: (len(row[1].places), row[0])):
        spans = list(_spans(patch, names))
        if any(_overlap(span, other) for key, span in spans for other in taken.get(key, ())):
            continue
        kept.add(number)
        for key, span in spans:
            taken.setdefault(key, []).append(span)
    return [patch for number, patch in enumerate(patches) if number in kept]


def _spans(patch: Patch, names: BaseNames) -> Iterable[tuple[LayerKey, tuple[int, int]]]:
    for one in patch.places:
        key = (one.component, one.module)
        yield key, one.rows or (0, names.layers[key][0])


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < other[1] and other[0] < one[1]
