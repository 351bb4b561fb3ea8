"""What an adapter file tells about itself: read once per file, from its header and 64 KiB of its weights."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from loravault.errors import UserError
from loravault.formats import families
from loravault.formats.hashes import POISON, file_hashes
from loravault.formats.safetensors_header import Header, header_of, reader
from loravault.formats.weight_id import weight_id
from loravault.vault.walk import key_of

#: Files up to this size are hashed at once; larger ones have the hash they claim until the worker reads them whole.
HASH_AT_ONCE_BYTES = 1024 * 1024
#: What the reason of a file says whose end is not there yet.
INCOMPLETE = "the download is incomplete"
MAX_WORDS = 8
MAX_WORD_LENGTH = 100
# In the order they are looked for beside `x.safetensors`.
PREVIEW_MARKS = (".preview", "", ".thumb")
PREVIEW_SUFFIXES = (".webp", ".png", ".jpg", ".jpeg")

# What covers every picture of a set without being what it was trained for.
_COMMON_TAGS = frozenset(
    {"1girl", "1boy", "solo", "looking_at_viewer", "simple_background", "best_quality", "masterpiece", "highres"}
)
_PLAIN_FOLDERS = frozenset(
    {"img", "image", "images", "train", "training", "data", "dataset", "lora", "input", "default"}
)


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
    sha256: str | None = None
    autov1: str | None = None
    #: First 10 digits of the file's SHA256.
    autov2: str | None = None
    #: First 12 digits of the SHA256 of the weights; a claim of the header's where the file was not hashed.
    autov3: str | None = None
    blake3: str | None = None
    crc32: str | None = None


def read_adapter(path: Path, root: str, rel: str) -> AdapterRecord:
    """Look at one file. Never raises for a bad one: its record says what is wrong."""
    name = _name(rel)
    size = mtime_ns = 0
    try:
        status = os.stat(path)
        size, mtime_ns, *_ = key_of(status)
        with open(path, "rb") as file:
            header = header_of(file)
            identity = families.identify(header, reader(file))
            identifier = weight_id(header, reader(file))
    except UserError as error:
        return _broken(root, rel, size=size, mtime_ns=mtime_ns, reason=error.message)
    except OSError as error:
        reason = f"it cannot be read ({error.strerror or error})"
        return _broken(root, rel, size=size, mtime_ns=mtime_ns, reason=reason)
    autov2, autov3 = _hashes(path, header)
    alias = _line(header.metadata.get("ss_output_name", ""))
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
        trigger_words=trigger_words(header.metadata),
        title=_line(header.metadata.get("modelspec.title", "") or header.metadata.get("ssmd_display_name", "")),
        preview=find_preview(path, rel),
        state="ok",
        reason=None,
        sources=identity.sources,
        autov2=autov2,
        autov3=autov3,
    )


def _name(rel: str) -> str:
    return unicodedata.normalize("NFC", PurePosixPath(rel).stem)


def _broken(root: str, rel: str, *, size: int, mtime_ns: int, reason: str) -> AdapterRecord:
    return AdapterRecord(
        weight_id=None, root=root, rel=rel, name=_name(rel), alias=None, size=size, mtime_ns=mtime_ns, family="unknown",
        variant=None, network="unknown", rank=None, alpha=None, trigger_words=(), title=None, preview=None,
        state="incomplete" if INCOMPLETE in reason else "broken", reason=reason,
    )  # fmt: skip


def _hashes(path: Path, header: Header) -> tuple[str | None, str | None]:
    """(AutoV2, AutoV3[:12]): of the bytes where that is cheap, else what the header claims about its weights."""
    if header.file_length <= HASH_AT_ONCE_BYTES:
        try:
            found = file_hashes(path)
        except (OSError, UserError):
            return None, None
        return found.autov2, found.autov3[:12]
    claim = header.metadata.get("sshs_model_hash", "").strip().lower().removeprefix("0x")
    good = re.fullmatch(r"[0-9a-f]{64}", claim) and claim != POISON
    return None, claim[:12] if good else None


def find_preview(path: Path, rel: str) -> str | None:
    """The picture that other tools show for this file: `x.preview.png` before `x.png` before `x.thumb.png`."""
    folder = PurePosixPath(rel).parent
    for mark in PREVIEW_MARKS:
        for suffix in PREVIEW_SUFFIXES:
            beside = path.with_name(f"{path.stem}{mark}{suffix}")
            if os.path.isfile(beside):  # Path.is_file raises where the longer name is too long for the file system
                return str(folder / beside.name) if str(folder) != "." else beside.name
    return None


def trigger_words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The words a file was trained on: the phrase it declares, else the tags that cover every picture of a folder."""
    declared = metadata.get("modelspec.trigger_phrase", "")
    words = [part for part in (_line(piece) for piece in declared.split(",")) if part]
    if not words:
        covering = list(dict.fromkeys(_covering(metadata)))
        special = [word for word in covering if word.replace(" ", "_") not in _COMMON_TAGS]
        words = special or covering
    return tuple(dict.fromkeys(words))[:MAX_WORDS]


def _covering(metadata: Mapping[str, str]) -> Iterator[str]:
    """Tags that no picture of their folder lacks; of a folder without captions, the text after its repeats.

    Only folders with few such tags count: captions that are all alike tell nothing about which word matters.
    """
    counts = _json(metadata.get("ss_tag_frequency"))
    images = _image_counts(metadata)
    for folder, tags in counts.items():
        class_words = re.sub(r"^\d+_", "", str(folder)).strip()
        if not isinstance(tags, Mapping):
            continue
        if not tags:
            if class_words and class_words.casefold() not in _PLAIN_FOLDERS and not class_words.isdigit():
                yield _line(class_words) or class_words
            continue
        numbers = {str(tag).strip(): count for tag, count in tags.items() if isinstance(count, int)}
        total = images.get(str(folder)) or max(numbers.values(), default=0)
        found = [word for tag, count in numbers.items() if count >= total > 0 and (word := _line(tag))]
        if len(found) <= MAX_WORDS:
            yield from found


def _image_counts(metadata: Mapping[str, str]) -> dict[str, int]:
    """Folder → how many pictures it holds, from `ss_dataset_dirs`."""
    folders = _json(metadata.get("ss_dataset_dirs"))
    return {
        str(name): entry["img_count"]
        for name, entry in folders.items()
        if isinstance(entry, Mapping) and isinstance(entry.get("img_count"), int)
    }


def _json(text: str | None) -> dict[Any, Any]:
    """A JSON object in a metadata text; whatever else is there counts as nothing."""
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _line(text: str) -> str | None:
    """A stranger's text as one short line; None if nothing is left, or if it is too long to be a name or a word."""
    visible = "".join(" " if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") else char for char in text)
    clean = " ".join(visible.split())
    return clean if 0 < len(clean) <= MAX_WORD_LENGTH and clean != "None" else None
