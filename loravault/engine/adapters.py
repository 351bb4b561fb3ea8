"""Reading an adapter for a base: what of it goes where is decided from its header, then its tensors are read.

Every key format and every algorithm comes through here. Nothing but safetensors is opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from loravault.engine.bases import Base
from loravault.engine.contents import Contents, Digests
from loravault.engine.deltas import Delta, read_delta
from loravault.engine.embeddings import Learned, learned_in
from loravault.errors import UserError
from loravault.formats import families, keys
from loravault.formats.generation import AdapterUse
from loravault.formats.normal import BaseNames, LayerKey, Normal, Patch, Place, base_names, place
from loravault.formats.safetensors_header import Header, header_of, reader
from loravault.formats.tensor_table import BrokenFile
from loravault.formats.weight_id import weight_id

#: Weight id, path, size, time and inode of a file: another key is perhaps another file.
FileKey = tuple[str, str, int, int, int]
#: Parts that change the bias of a layer.
_BIASES = frozenset({"diff_b", "set_bias", "b_norm", "lora_up.bias"})
#: Pipeline → the family by which its transformer's layers are named, whatever the base itself is called.
_NAMED_AS: Mapping[str, str] = {
    "FluxPipeline": "flux",
    "ChromaPipeline": "chroma",
    "Flux2KleinPipeline": "flux2",
    "StableDiffusion3Pipeline": "sd3",
    "ZImagePipeline": "z-image",
    "QwenImagePipeline": "qwen-image",
}


@dataclass(frozen=True, eq=False)
class Change:
    """What one patch of a file does, and to which rows of which layers."""

    delta: Delta
    places: tuple[Place, ...]
    #: The layers of the places.
    layers: tuple[LayerKey, ...] = field(init=False)
    #: Whether it is a change of one whole weight, and of nothing else.
    plain: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple((one.component, one.module) for one in self.places))
        plain = len(self.places) == 1 and self.places[0].rows is None and not self.delta.touches_bias
        object.__setattr__(self, "plain", plain)


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter file, read and checked for one base."""

    #: As the first note that used it called it, for messages.
    name: str
    key: FileKey
    changes: tuple[Change, ...]
    #: Names of tensors that have no place in the base.
    unused: tuple[str, ...]
    tensors: int
    #: All of its weights are zero.
    void: bool
    #: Memory that it holds.
    bytes: int
    _digests: Callable[[], Digests]
    #: Vectors for words of a prompt.
    embeddings: tuple[Learned, ...] = ()
    components: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        found = frozenset(one.component for change in self.changes for one in change.places)
        object.__setattr__(self, "components", found)

    @property
    def hashes(self) -> Digests:
        """Of the bytes that were read. May wait: they are computed behind what follows reading."""
        return self._digests()

    def touches(self, component: str) -> bool:
        """Whether it changes anything in this component."""
        return component in self.components


def names_of(base: Base) -> BaseNames:
    """The names of all layers of a base: worth keeping as long as the base."""
    return base_names(base.layers, naming_of(base))


def naming_of(base: Base) -> str:
    """The family by which the layers of its transformer are named."""
    return _NAMED_AS.get(base.drawer.pipeline, base.family)


def load_adapter(use: AdapterUse, base: Base, names: BaseNames | None = None) -> Adapter:
    """Reads the file of `use` for `base`; `names` as `names_of` gives them.

    Raises `UserError`: the file is gone, broken or another than the index says, holds NaN, or does not fit the base.
    """
    names = names or names_of(base)
    try:
        with open(use.path, "rb") as file:
            before = os.fstat(file.fileno())
            header = header_of(file)
            if weight_id(header, reader(file)) != use.weight_id:
                raise UserError(f"The file of the LoRA “{use.name}” is another one by now. Run the note again.")
            normal = without_lost_biases(place(header, names), base)
            if trouble := _trouble(use.name, header, normal, base):
                raise UserError(trouble)
            contents = Contents(file, header)
            after = os.stat(use.path)
        if _stamp(before) != _stamp(after):
            raise UserError(f"The file of the LoRA “{use.name}” changed while it was read. Run the note again.")
        changes = tuple(_change(patch, contents, names) for patch in normal.patches)
        learned = learned_in(header.tensors, contents.tensor, base)
    except BrokenFile as error:
        raise UserError(f"The LoRA “{use.name}” cannot be used: {error.message}.") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"The LoRA “{use.name}” cannot be read: {reason}. Is its drive there?") from error
    if not contents.surely_finite():
        _refuse_nan(use.name, changes, tuple(learned.values()))
    void = all(change.delta.is_zero() for change in changes)
    key = (use.weight_id, use.path, *_stamp(before))
    return Adapter(
        name=use.name,
        key=key,
        changes=changes,
        unused=tuple(name for name in normal.unused if name not in learned),
        tensors=len(header.tensors),
        void=void and not learned,
        bytes=contents.size,
        _digests=contents.digests,
        embeddings=tuple(learned.values()),
    )


def without_lost_biases(normal: Normal, base: Base) -> Normal:
    """Changes of a bias are unused where a layer can have none (T5's norms, embeddings)."""
    patches: list[Patch] = []
    lost: list[str] = []
    for patch in normal.patches:
        biases = _BIASES & patch.parts.keys()
        if biases and not all(_may_have_bias(base, one) for one in patch.places):
            lost += [patch.parts[part][0] for part in sorted(biases)]
            rest = {part: row for part, row in patch.parts.items() if part not in biases}
            if not rest.keys() - {"alpha"}:
                lost += [row[0] for row in rest.values()]
                continue
            patch = replace(patch, parts=rest)  # noqa: PLW2901
        patches.append(patch)
    return Normal(tuple(patches), (*normal.unused, *lost), normal.misfits) if lost else normal


def _may_have_bias(base: Base, one: Place) -> bool:
    return "bias" in base.modules[one.component, one.module]._parameters


def _change(patch: Patch, contents: Contents, names: BaseNames) -> Change:
    # Numbers are looked at later, so that all damaged modules are counted.
    delta = read_delta(patch, contents.tensor, check_numbers=False)
    if patch.algorithm == "ia3":  # whether inputs or outputs are meant stands in a tensor, not in the header
        shape = names.shape(patch.places)
        assert shape is not None
        delta.change(torch.empty(shape, device="meta"), 1.0)
    return Change(delta, patch.places)


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino


def _refuse_nan(name: str, changes: Sequence[Change], learned: Sequence[Learned]) -> None:
    bad = [change.delta.name for change in changes if not change.delta.finite()]
    bad += [one.words for one in learned if not bool(one.vectors.isfinite().all())]
    if bad:
        raise UserError(
            f"The LoRA “{name}” is damaged: {len(bad)} of its modules hold NaN or infinite numbers (first: "
            f"{bad[0]}), which would make every picture black. Get the file again."
        )


def _trouble(name: str, header: Header, normal: Normal, base: Base) -> str | None:
    """Why an adapter cannot be applied to this base, in one or two sentences; None if it can."""
    if normal.patches and not normal.misfits and not _mostly_lost(header, normal):
        return None
    try:
        seen = families.identify(header)
    except BrokenFile as error:
        return f"The LoRA “{name}” cannot be used: {error.message}."
    modules = keys.modules_of(header.tensors)
    misfits = normal.misfits
    if seen.family not in (base.family, "unknown"):
        count = f"{len(misfits)} of its {len(modules)} modules have other shapes" if misfits else "no module of it fits"
        if normal.patches and not misfits:
            count = f"{len(modules) - len(normal.patches)} of its {len(modules)} modules have no place there"
        return (
            f"The LoRA “{name}” is made for {seen.family}, the base “{base.name}” is {base.family}: {count}. "
            f"Choose a base of the family {seen.family}."
        )
    if misfits:
        return (
            f"The LoRA “{name}” does not fit the base “{base.name}”: {len(misfits)} of its {len(modules)} modules "
            f"are incomplete or have other shapes (first: {misfits[0]})."
        )
    if normal.patches:
        return None
    return f"No module of the LoRA “{name}” exists in the base “{base.name}” (first: {_first(header)})."


def _mostly_lost(header: Header, normal: Normal) -> bool:
    """Text encoders are the same in several families: an adapter of another one may fit there, and only there."""
    return 2 * len(normal.unused) > len(header.tensors)


def _first(header: Header) -> str:
    return next((key.module for name in header.tensors if (key := keys.split_name(name))), next(iter(header.tensors)))


def describe_unused(name: str, adapter: Adapter, base: Base) -> str | None:
    """The sentence about tensors that found no place."""
    if not adapter.unused:
        return None
    return (
        f"{len(adapter.unused)} of the {adapter.tensors} tensors of “{name}” have no place in the base “{base.name}” "
        f"and were not used (first: {adapter.unused[0]})."
    )


def file_key(use: AdapterUse) -> FileKey | None:
    """What tells whether a file is still the one that was read; None if it is gone."""
    try:
        return (use.weight_id, use.path, *_stamp(os.stat(use.path)))
    except OSError:
        return None


__all__ = [
    "Adapter",
    "Change",
    "FileKey",
    "LayerKey",
    "describe_unused",
    "file_key",
    "load_adapter",
    "names_of",
    "naming_of",
]
