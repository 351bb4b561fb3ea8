"""What a table of a family is, and how the layers in it are written down.

A layer is one line: the path of the module as its authors write it, the width it reads, the width it writes, and for a
convolution the size of its kernel:

    double_blocks.[0-18].{img,txt}_attn.qkv   d   3d

`{a,b}` stands for each of them, `[0-18]` for each number. A width is a number, a multiple of one of the model's own
`numbers` (`3d`, `[0-last]` too), several of them with `|`, or `*` for any. Blanks and `#` comments do not matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product

#: The widths a layer may have; None for any.
Choice = frozenset[int] | None


@dataclass(frozen=True)
class Layer:
    """One line of a table."""

    #: The path with underscores, and `#` for every number.
    pattern: str
    #: What each number in the path may be: first and last.
    numbers: tuple[tuple[int, int], ...]
    into: Choice
    out: Choice
    #: Edge of the kernel of a convolution; 0 for a linear layer, None if the table leaves it open.
    kernel: int | None


@dataclass(frozen=True)
class Model:
    """A variant of a family as far as shapes tell: its layers, in every spelling that is used."""

    #: None if the variants of the family all have these shapes.
    variant: str | None
    #: Texts of layers, see above.
    layers: tuple[str, ...]
    numbers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """Everything that is known about the adapters of one family of base models."""

    name: str
    #: As people write it.
    title: str
    models: tuple[Model, ...] = ()
    #: Families that are meant instead when shapes allow both and nothing else is said: far more adapters are theirs.
    rarer_than: tuple[str, ...] = ()
    #: Whether the names of the layers alone settle it, when their widths are those of no known variant.
    names_settle: bool = True
    #: Variants by shape that one name may stand for where they cannot be told apart.
    merged: Mapping[frozenset[str], str] = field(default_factory=dict)
    #: Component of the keys (`te`, `te1`, …) → the text encoder that is there (a key of `text.ENCODERS`).
    text: Mapping[str, str] = field(default_factory=dict)
    #: Folded beginnings of what trainers call it in `modelspec.architecture` and `ss_base_model_version`.
    claims: tuple[str, ...] = ()
    #: Folded words in names of its base models → variant; the first that is found decides.
    variants: Mapping[str, str] = field(default_factory=dict)
    #: Words in file and folder names that mean this family.
    words: tuple[str, ...] = ()


def layers_of(model: Model) -> Iterator[Layer]:
    """Every layer of a model, braces written out. Raises `ValueError` for a line that cannot be read."""
    for text in model.layers:
        for line in text.splitlines():
            fields = line.partition("#")[0].split()
            if not fields:
                continue
            if len(fields) not in (3, 4):
                raise ValueError(f"not a layer: {line}")
            kernel = {"*": None}.get(fields[3], fields[3]) if len(fields) == 4 else "0"
            into, out = (_choice(text, model.numbers) for text in fields[1:3])
            for path in _spelled_out(fields[0]):
                pattern, numbers = _pattern(path, model.numbers)
                yield Layer(pattern, numbers, into, out, None if kernel is None else int(kernel))


def fold_numbers(path: str) -> tuple[str, tuple[int, ...]]:
    """A module path with underscores → its pattern, and the numbers that were in it."""
    numbers = _NUMBER.findall(path)
    return _NUMBER.sub("#", path), tuple(int(text[:9]) for text in numbers)


_NUMBER = re.compile(r"[0-9]+")
_RANGE = re.compile(r"\[(\w+)(?:-(\w+))?\]")
_TERM = re.compile(r"(\d*)([a-z]\w*)?")


def _spelled_out(path: str) -> Iterator[str]:
    """`{img,txt}_attn.{qkv,proj}` → four paths."""
    pieces = re.split(r"\{([^}]*)\}", path)
    choices = [piece.split(",") if index % 2 else [piece] for index, piece in enumerate(pieces)]
    return ("".join(chosen) for chosen in product(*choices))


def _pattern(path: str, values: Mapping[str, int]) -> tuple[str, tuple[tuple[int, int], ...]]:
    ranges = []
    for match in re.finditer(r"\[(\w+)(?:-(\w+))?\]|(\d+)", path):
        first, last = match[1] or match[3], match[2] or match[1] or match[3]
        ranges.append((_number(first, values), _number(last, values)))
    return _NUMBER.sub("#", _RANGE.sub("#", path)).replace(".", "_"), tuple(ranges)


def _number(text: str, values: Mapping[str, int]) -> int:
    return int(text) if text.isdigit() else values[text]


def _choice(text: str, values: Mapping[str, int]) -> Choice:
    if text == "*":
        return None
    return frozenset(sum(_term(term, values) for term in part.split("+")) for part in text.split("|"))


def _term(text: str, values: Mapping[str, int]) -> int:
    match = _TERM.fullmatch(text)
    if match is None or not text:
        raise ValueError(f"not a width: {text!r}")
    return int(match[1] or 1) * (values[match[2]] if match[2] else 1)
