"""What the names and shapes of a file's tensors tell: which models have such layers, which algorithm, which ranks.

A thousand tensors are a few dozen kinds with a handful of shapes; only those are looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from loravault.formats import keys
from loravault.formats.families.index import (
    ANY,
    FAMILIES,
    MODELS,
    Entry,
    Kind,
    complete_stacks,
    kinds_of,
    of_height,
)  # fmt: skip
from loravault.formats.families.unet import WIDTHS
from loravault.formats.keys import Shape, Widths
from loravault.formats.tensor_table import TensorInfo

# A layer in ten may contradict a model (a squeezed convolution, an added input), a third may be unknown to it.
_AGREEMENT = 0.9
_KNOWN = 0.66
_REMEMBERED_SHAPES = 256
#: Parts of plain LoRA: every tensor of theirs tells by itself, without the others of its module.
_ALONE = frozenset(
    {
        "lora_down", "lora_up", "lora_A", "lora_B", "lora.down", "lora.up", "alpha", "dora_scale",
        "lora_magnitude_vector", "lora_A.bias", "lora_B.bias", "lora_up.bias", "lora_down.bias", "diff_b",
        *keys.PLAIN_PARTS, "",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Census:
    """What was counted in one file."""

    #: Tensors that are parts of adapters, and all of them.
    own: int
    tensors: int
    #: Modules that an adapter patches.
    modules: int
    #: Modules that have one half of a LoRA only, and the name of one of them.
    halves: int
    half: str
    #: Algorithm → modules; rank → modules.
    networks: Mapping[str, int]
    ranks: Mapping[int, int]
    #: Names of all parts that occur.
    parts: frozenset[str]
    text_encoder: bool
    #: Bits of the models (see `index.MODELS`) that have all these layers; 0 if none has.
    models: int
    #: Whether known names contradict every known model, so that no claim can be believed.
    contradicted: bool
    #: Whether the layers belong to models at all, and not to something unknown.
    known: bool
    #: Name of the first tensor that is an alpha.
    alpha: str | None = None
    #: Whether it would be a control adapter, if it is one of Flux.
    control: bool = False


def count(tensors: Mapping[str, TensorInfo]) -> Census:
    """Everything that names and shapes tell of a tensor table."""
    rows = kinds_of(tensors)
    shapes = [info.shape for info in tensors.values()]
    groups = Counter(zip([row[0] for row in rows], shapes, strict=True))
    parts = {kind.part for kind, _ in groups}
    networks, ranks, evidence = _of_plain(groups) if parts <= _ALONE else _of_modules(rows, shapes)
    total = sum(networks.values())
    halves, half = _halves(rows)
    models, contradicted, known = _models(evidence)
    if _several_families(models):  # a whole stack says how high it is
        models = of_height(models, complete_stacks({module for kind, module in rows if kind.own}))
    own = sum(number for (kind, _), number in groups.items() if kind.own) + _plain_ia3(groups)
    return Census(
        own, len(tensors), total, halves, half, networks, ranks, frozenset(parts - {""}),
        any(kind.component[:2] == "te" and kind.own for kind, _ in groups),
        models, contradicted, known, _first_alpha(tensors, rows) if "alpha" in parts else None, _is_control(groups),
    )  # fmt: skip


class _Row(NamedTuple):
    """Layers of one kind that tell the same."""

    kind: Kind
    #: Bits of the models whose layer has these widths.
    fitting: int
    #: Width it reads, if that is known.
    into: int | None
    number: int


_Told = tuple[Counter[str], Counter[int], list[_Row]]


def _of_plain(groups: Mapping[tuple[Kind, Shape], int]) -> _Told:
    """A file of nothing but LoRA: each matrix for itself."""
    networks: Counter[str] = Counter()
    ranks: Counter[int] = Counter()
    rows: list[_Row] = []
    for (kind, shape), number in groups.items():
        if kind.half == 1 and len(shape) > 1:
            networks["locon" if max(shape[2:], default=1) > 1 else "lora"] += number
            ranks[shape[0]] += number
            rows.append(_Row(kind, _fitting_half(kind, shape), shape[1], number))
        elif kind.half == 2 and shape:
            rows.append(_Row(kind, _fitting_half(kind, shape), None, number))
    if not networks:  # biases alone
        networks["full"] = sum(number for (kind, _), number in groups.items() if kind.part == "diff_b")
    return networks, ranks, rows


def _fitting_half(kind: Kind, shape: Shape) -> int:
    """The models whose layer has the width that this half of a LoRA tells. Ranks are few, so it is remembered."""
    known = kind.fitting.get(shape)
    if known is None:
        widths = Widths(into=shape[1], kernel=shape[2:]) if kind.half == 1 else Widths(out=shape[0])
        known = _fitting(kind.entries, widths)
        if len(kind.fitting) < _REMEMBERED_SHAPES:
            kind.fitting[shape] = known
    return known


def _of_modules(rows: list[tuple[Kind, str]], shapes: list[Shape]) -> _Told:
    """Any file: the parts of each module together, each distinct set of them looked at once."""
    modules: dict[str, dict[str, Shape]] = {}
    kinds: dict[str, Kind] = {}
    for (kind, module), shape in zip(rows, shapes, strict=True):
        if kind.part:
            modules.setdefault(module, {})[kind.part] = shape
            kinds.setdefault(module, kind)
    alike = Counter((tuple(parts.items()), kinds[module]) for module, parts in modules.items())
    networks: Counter[str] = Counter()
    ranks: Counter[int] = Counter()
    found: list[_Row] = []
    for (items, kind), number in alike.items():
        parts = dict(items)
        network = keys.network_of(parts)
        if network is None:
            continue
        networks[network] += number
        rank = keys.rank_of(parts)
        if rank is not None:
            ranks[rank] += number
        if network != "norm" and not (parts.keys() <= {"diff", "diff_b"} and len(parts.get("diff", ())) < 2):
            widths = keys.widths_of(parts)
            found.append(_Row(kind, _fitting(kind.entries, widths), widths.into, number))
    return networks, ranks, found


def _halves(rows: list[tuple[Kind, str]]) -> tuple[int, str]:
    """How many modules have the one half of a LoRA without the other, and one of them."""
    downs = {module for kind, module in rows if kind.half == 1}
    ups = {module for kind, module in rows if kind.half == 2}
    if downs == ups:
        return 0, ""
    single = sorted(downs ^ ups)
    return len(single), single[0].partition(":")[2]


def _plain_ia3(groups: Mapping[tuple[Kind, Shape], int]) -> int:
    """IA3 keeps its factors in tensors called `weight`; they count as its own where `on_input` stands beside them."""
    flags = sum(number for (kind, _), number in groups.items() if kind.part == "on_input")
    plain = sum(number for (kind, _), number in groups.items() if kind.part == "weight")
    return min(flags, plain)


def _first_alpha(tensors: Mapping[str, TensorInfo], rows: list[tuple[Kind, str]]) -> str | None:
    return next((name for name, row in zip(tensors, rows, strict=True) if row[0].part == "alpha"), None)


def _is_control(groups: Mapping[tuple[Kind, Shape], int]) -> bool:
    """A control adapter of Flux reads the picture and a second one, so its first layer is twice as wide."""
    return any(
        kind.half == 1 and len(shape) > 1 and shape[1] == 128
        and any(entry.into == _FLUX_INPUT for entry in kind.entries)
        for (kind, shape) in groups
    )  # fmt: skip


_FLUX_INPUT = frozenset({64, 128, 384})


def _models(rows: Sequence[_Row]) -> tuple[int, bool, bool]:
    """(bits of the models that have all these layers, whether all are contradicted, whether the layers are known)."""
    known = [row for row in rows if row.kind.entries]
    total = sum(row.number for row in known)
    crossing = {row.into for row in rows if row.kind.cross and row.into}
    if not known or total < _KNOWN * sum(row.number for row in rows):
        return (_crossing(crossing), True, True) if crossing else (0, False, False)
    common = ANY
    for row in known:
        common &= row.fitting
    if common:
        return common, False, True
    if crossing:
        return _crossing(crossing), True, True
    best = _most(((row.fitting, row.number) for row in known), _AGREEMENT * total)
    if best:
        return best, False, True
    by_name = _most(((_paths(row.kind.entries), row.number) for row in known), _AGREEMENT * total)
    settled = {MODELS[bit][0].name for bit in _bits(by_name)}
    if len(settled) == 1 and FAMILIES[next(iter(settled))].names_settle:
        return by_name, False, True
    return 0, True, True


@cache
def _several_families(models: int) -> bool:
    return len({MODELS[bit][0].name for bit in _bits(models)}) > 1


def _crossing(widths: Collection[int]) -> int:
    """The models of the UNet whose text is that wide; none for a width that nobody uses."""
    family = WIDTHS.get(next(iter(widths)), "") if len(widths) == 1 else ""
    return sum(1 << bit for bit, (table, _) in enumerate(MODELS) if table.name == family)


def _paths(entries: tuple[Entry, ...]) -> int:
    """The models that have a module of this path, whatever its widths."""
    models = 0
    for entry in entries:
        models |= entry.models
    return models


def _fitting(entries: tuple[Entry, ...], widths: Widths) -> int:
    """The models whose layer has these widths, as far as they are known."""
    models = 0
    for entry in entries:
        if _fits(entry, widths):
            models |= entry.models
    return models


def _fits(entry: Entry, widths: Widths) -> bool:
    area = (entry.kernel or 1) ** 2
    if widths.into is not None and entry.into is not None and widths.into not in entry.into:
        # without a kernel of its own the matrix is flattened, and reads width times area
        flat = widths.kernel in (None, ()) and area > 1 and widths.into % area == 0
        if not (flat and widths.into // area in entry.into):
            return False
    if widths.out is not None and entry.out is not None and widths.out not in entry.out:
        return False
    if widths.either is not None and entry.into is not None and entry.out is not None:
        return widths.either in entry.into | entry.out
    if widths.kernel is None or entry.kernel is None:
        return True
    return (len(widths.kernel) > 0) == (entry.kernel > 0)


def _most(masks: Iterable[tuple[int, int]], needed: float) -> int:
    """The bits that occur in most, if that is enough."""
    counts: Counter[int] = Counter()
    for mask, number in masks:
        for bit in _bits(mask):
            counts[bit] += number
    top = max(counts.values(), default=0)
    return sum(1 << bit for bit, number in counts.items() if number == top) if top >= needed and top else 0


def _bits(mask: int) -> list[int]:
    return [bit for bit in range(mask.bit_length()) if mask >> bit & 1]
