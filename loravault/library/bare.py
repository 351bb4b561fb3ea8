"""One adapter file by itself, without a vault: what its header and the files beside it tell."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loravault.errors import UserError
from loravault.formats.safetensors_header import Header, ReadAt, header_of, reader
from loravault.formats.weight_id import weight_id
from loravault.library.identify import INCOMPLETE, identify_with, with_left_out
from loravault.library.previews import preview_of
from loravault.library.scan import PICKLE_SUFFIXES
from loravault.library.sidecars import read_facts


@dataclass(frozen=True)
class BareFile:
    """What one file tells; the order of the fields is that of `show --json`."""

    name: str
    title: str | None = None
    root: str = ""
    #: The name of the file.
    rel: str = ""
    #: Bytes.
    size: int = 0
    weight_id: str | None = None
    family: str = "unknown"
    variant: str | None = None
    #: The families that the shapes allow, if they are several.
    possible: tuple[str, ...] = ()
    #: `high` or `low`, for one of the two experts of Wan 2.2.
    expert: str | None = None
    network: str = "unknown"
    #: Weight-decomposed, whatever the network type is.
    dora: bool = False
    rank: int | None = None
    #: Rank -> modules that have it, if there are several.
    ranks: dict[int, int] = field(default_factory=dict)
    alpha: float | None = None
    modules: int = 0
    tensors: int = 0
    text_encoder: bool = False
    trigger_words: tuple[str, ...] = ()
    #: In the words of the site or tool that says so.
    base_model: str | None = None
    #: The picture beside it.
    preview: str | None = None
    #: `ok`, `incomplete` or `broken`.
    state: str = "ok"
    reason: str | None = None
    #: Field -> where it was found: `shapes`, `name`, a metadata entry, or a file beside this one.
    source: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_bare(path: Path) -> BareFile:
    """Look at one file. Never raises for a bad one: `state` and `reason` say what is wrong, the rest what is known."""
    size, header = 0, None
    try:
        if path.suffix.lower() in PICKLE_SUFFIXES:
            kind = f"files of this kind ({path.suffix}) can run code when they are opened, so it was not"
            return _broken(path, path.stat().st_size, None, f"{kind}: get it as .safetensors, or convert it")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            header = header_of(file)
            return _whole(path, header, reader(file))
    except UserError as error:
        return _broken(path, size, header, error.message)
    except OSError as error:
        return _broken(path, size, header, f"it cannot be read ({error.strerror or error})")


def _name(path: Path) -> str:
    return unicodedata.normalize("NFC", path.stem)


def _whole(path: Path, header: Header, read_at: ReadAt) -> BareFile:
    facts = with_left_out(read_facts(path, path.name, header.metadata, None, header.file_length), header)
    absolute = path.absolute()
    identity = identify_with(facts, header, read_at, f"{absolute.parent.name}/{absolute.name}")
    preview = preview_of(facts)
    return BareFile(
        name=_name(path), title=facts.title, rel=path.name, size=header.file_length,
        weight_id=weight_id(header, read_at), family=identity.family, variant=identity.variant,
        possible=identity.possible if len(identity.possible) > 1 else (), expert=identity.expert,
        network=identity.network, dora=identity.dora, rank=identity.rank,
        ranks=identity.ranks if len(identity.ranks) > 1 else {}, alpha=identity.alpha, modules=identity.modules,
        tensors=len(header.tensors), text_encoder=identity.text_encoder, trigger_words=facts.trigger_words,
        base_model=facts.base_model, preview=preview.rel if preview else None,
        source={**facts.sources, **identity.sources, "weight_id": "tensors"}, warnings=facts.warnings,
        metadata=header.metadata,
    )  # fmt: skip


def _broken(path: Path, size: int, header: Header | None, reason: str) -> BareFile:
    return BareFile(
        name=_name(path), rel=path.name, size=size, tensors=len(header.tensors) if header else 0,
        state="incomplete" if INCOMPLETE in reason else "broken", reason=reason,
        metadata=header.metadata if header else {},
    )  # fmt: skip
