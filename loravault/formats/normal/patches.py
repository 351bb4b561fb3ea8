"""What a normalised adapter is: its patches, each with the places in the base that it changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loravault.formats.tensor_table import TensorInfo

#: `(out, in)` of a linear layer, `(out, in, *kernel)` of a convolution, `(size,)` of a norm.
Shape = tuple[int, ...]
#: (component, module path) → shape of its `weight`.
LayerKey = tuple[str, str]


@dataclass(frozen=True)
class Place:
    """Where one patch of a file, or some rows of it, goes in the base."""

    #: `unet`, `transformer`, `text_encoder`, `text_encoder_2` or `text_encoder_3`.
    component: str
    #: Path of the module inside that component, as `named_modules()` gives it.
    module: str
    #: Which rows of the module's weight (and bias) are meant, first and behind the last; None: all of them.
    rows: tuple[int, int] | None = None


@dataclass(frozen=True)
class Patch:
    """What a file holds for one layer as the file sees it: perhaps one that the base has in several pieces."""

    #: The module as the file calls it, for messages.
    name: str
    #: `lora`, `locon`, `loha`, `lokr`, `ia3`, `glora`, `oft`, `boft`, `full` or `norm`.
    algorithm: str
    #: Part → (tensor name, its row of the table). Parts are spelled as kohya and LyCORIS do (see `parts.py`).
    parts: Mapping[str, tuple[str, TensorInfo]]
    #: Where it goes. The rows of the file's layer are those of the places, one after the other.
    places: tuple[Place, ...]
    #: What the metadata says in place of an `alpha` tensor (PEFT writes none), to be used like one; None: nothing.
    alpha: float | None = None


@dataclass(frozen=True)
class Normal:
    """A whole file, placed in one base."""

    patches: tuple[Patch, ...]
    #: Names of tensors that have no place in the base.
    unused: tuple[str, ...]
    #: Modules whose shapes contradict those of the base, as the file calls them.
    misfits: tuple[str, ...]
