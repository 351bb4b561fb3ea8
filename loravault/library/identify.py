"""What an adapter file and its sidecars tell: read once, from its header and 64 KiB of its weights."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import msgspec

from loravault.errors import UserError
from loravault.formats import families
from loravault.formats.hashes import FileHashes, file_hashes
from loravault.formats.plain import cut_line, one_line
from loravault.formats.safetensors_header import Header, ReadAt, header_of, reader
from loravault.formats.tensor_table import MAX_METADATA_VALUE_BYTES
from loravault.formats.weight_id import is_hollow, weight_id
from loravault.library.facts import AdapterFacts, encode
from loravault.library.previews import preview_of
from loravault.library.sidecars import read_facts
from loravault.vault.walk import key_of

#: Files up to this size are hashed at once; larger ones have the hash they claim until the worker reads them whole.
HASH_AT_ONCE_BYTES = 1024 * 1024
#: Smaller files are copied in a moment; their zeros are their own.
HOLLOW_FROM_BYTES = 1024 * 1024
HOLLOW = "much of its weights is still zeros; it is probably being copied"
#: What the reason of a file says whose end is not there yet.
INCOMPLETE = "the download is incomplete"


@dataclass(frozen=True)
class AdapterRecord:
    """One adapter file at one place."""

    #: None if the file is broken.
    weight_id: str | None
    root: str
    rel: str
    #: File name without its ending, in NFC.
    name: str
    #: `ss_output_name`, where it differs from the name.
    alias: str | None
    #: Bytes.
    size: int
    mtime_ns: int
    family: str
    variant: str | None
    network: str
    rank: int | None
    alpha: float | None
    trigger_words: tuple[str, ...]
    title: str | None
    #: Path inside the root of a picture beside the file.
    preview: str | None
    #: `ok`, `incomplete` or `broken`.
    state: str
    #: Why it is broken, in words that fit after its name and a colon.
    reason: str | None
    #: Field -> where it was found.
    sources: Mapping[str, str] = field(default_factory=dict)
    #: JSON of `AdapterFacts`.
    facts: str = "{}"
    #: The hashes were measured, because the file is small enough to be hashed at once.
    hashed: bool = False
    #: Much of its weights is zeros: perhaps its room is only reserved.
    hollow: bool = False
    sha256: str | None = None
    autov1: str | None = None
    #: First 10 digits of the file's SHA256.
    autov2: str | None = None
    #: First 12 digits of the SHA256 of the weights; a claim of the header's where the file was not hashed.
    autov3: str | None = None
    blake3: str | None = None
    crc32: str | None = None


def read_adapter(path: Path, root: str, rel: str, beside: Sequence[str] | None = None) -> AdapterRecord:
    """Look at one file and what stands beside it. Never raises for a bad one: its record says what is wrong.

    `beside`: the names in its folder that belong to it, if the caller has them.
    """
    size = mtime_ns = 0
    try:
        status = os.stat(path)
        size, mtime_ns, *_ = key_of(status)
        with open(path, "rb") as file:
            header = header_of(file)
            facts = with_left_out(read_facts(path, rel, header.metadata, beside, size), header)
            identity = identify_with(facts, header, reader(file), rel)
            samples = _Samples(reader(file))
            identifier = weight_id(header, samples)
    except UserError as error:
        return _broken(root, rel, size=size, mtime_ns=mtime_ns, reason=error.message)
    except OSError as error:
        reason = f"it cannot be read ({error.strerror or error})"
        return _broken(root, rel, size=size, mtime_ns=mtime_ns, reason=reason)
    hashes = _hashes(path, header)
    preview = preview_of(facts)
    name, alias = _name(rel), one_line(header.metadata.get("ss_output_name", ""))
    return AdapterRecord(
        weight_id=identifier,
        root=root,
        rel=rel,
        name=name,
        alias=alias if alias and alias != name else None,
        size=size,
        mtime_ns=mtime_ns,
        family=identity.family,
        variant=identity.variant,
        network=identity.network,
        rank=identity.rank,
        alpha=identity.alpha,
        trigger_words=facts.trigger_words,
        title=facts.title,
        preview=preview.rel if preview else None,
        state="ok",
        reason=None,
        sources={**facts.sources, **identity.sources},
        facts=encode(facts),
        hashed=hashes is not None,
        hollow=header.data_length >= HOLLOW_FROM_BYTES and is_hollow(samples.read),
        sha256=hashes.sha256 if hashes else None,
        autov1=hashes.autov1 if hashes else None,
        autov2=hashes.autov2 if hashes else None,
        autov3=hashes.autov3[:12] if hashes else facts.hashes.get("autov3", "")[:12] or None,
        blake3=hashes.blake3 if hashes else None,
        crc32=hashes.crc32 if hashes else None,
    )


class _Samples:
    """Reads, and keeps what was read."""

    def __init__(self, read_at: ReadAt) -> None:
        self._read_at = read_at
        self.read: list[bytes] = []

    def __call__(self, offset: int, length: int) -> bytes:
        data = self._read_at(offset, length)
        self.read.append(data)
        return data


def not_yet(record: AdapterRecord) -> AdapterRecord:
    """A hollow file for as long as it may still be filled: its weights are not known, so there is no adapter yet."""
    empty = _broken(record.root, record.rel, size=record.size, mtime_ns=record.mtime_ns, reason=HOLLOW)
    return replace(empty, state="incomplete")


def with_left_out(facts: AdapterFacts, header: Header) -> AdapterFacts:
    """The facts with a warning for every metadata entry that is too long to be read."""
    told = [
        f"The metadata entry {cut_line(key, 60) or '?'} is larger than {MAX_METADATA_VALUE_BYTES >> 20} MiB "
        "and was not read."
        for key in header.left_out
    ]
    return msgspec.structs.replace(facts, warnings=(*facts.warnings, *told)) if told else facts


def identify_with(facts: AdapterFacts, header: Header, read_at: ReadAt, rel: str) -> families.Identity:
    """What the adapter is, by its shapes first, then by what other tools say of it, its metadata and its name."""
    told = [(facts.sources.get("base_model", "base model"), facts.base_model)] if facts.base_model else []
    folder = PurePosixPath(rel).parent.name
    return families.identify(header, read_at, name=_name(rel), folder=folder, base_models=told)


def _name(rel: str) -> str:
    return unicodedata.normalize("NFC", PurePosixPath(rel).stem)


def _broken(root: str, rel: str, *, size: int, mtime_ns: int, reason: str) -> AdapterRecord:
    return AdapterRecord(
        weight_id=None, root=root, rel=rel, name=_name(rel), alias=None, size=size, mtime_ns=mtime_ns, family="unknown",
        variant=None, network="unknown", rank=None, alpha=None, trigger_words=(), title=None, preview=None,
        state="incomplete" if INCOMPLETE in reason else "broken", reason=reason,
    )  # fmt: skip


def _hashes(path: Path, header: Header) -> FileHashes | None:
    """All hashes, where that is cheap; else they come later."""
    if header.file_length > HASH_AT_ONCE_BYTES:
        return None
    try:
        return file_hashes(path)
    except (OSError, UserError):
        return None
