"""The hashes by which other tools name model files, all from one sequential read.

Let the file be bytes `[0, L)` and N the length of its safetensors header: SHA256, BLAKE3 and CRC32 cover everything,
AutoV2 is the beginning of SHA256, AutoV3 is SHA256 of `[8+N, L)` (the weights without the metadata), AutoV1 is SHA256
of the 64 KiB at 1 MiB and exists from 2 MiB on. Texts here are lower case.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BufferedReader

from blake3 import blake3

from loravault.formats.safetensors_header import header_of

#: Bytes per read. Half a mebibyte stays in a core's own cache while four states take it in; measured best of 64 KiB …
#: 16 MiB (`benchmarks/hashing.py`).
CHUNK = 512 * 1024
_V1_START, _V1_END, _V1_MINIMUM = 0x100000, 0x110000, 0x200000
#: SHA256 of nothing; some trainers wrote it as the hash of their model, so it names no file at all.
POISON = hashlib.sha256().hexdigest()
#: BLAKE3 of nothing, for the same reason.
POISON_BLAKE3 = blake3().hexdigest()
#: Shorter texts than this are never looked up: too many files would match.
MIN_LOOKUP = 8
_DIGITS = "0123456789abcdef"


@dataclass(frozen=True)
class FileHashes:
    """Hashes of one safetensors file, in lower-case hex."""

    sha256: str
    #: First 10 digits of SHA256, as in A1111's `Model hash` and Civitai's `Hashes`.
    autov2: str
    #: All 64 digits; A1111's `Lora hashes` and Civitai keep the first 12.
    autov3: str
    #: None below 2 MiB.
    autov1: str | None
    #: The CRC-32 as Civitai prints it: its bytes in little-endian order.
    crc32: str
    blake3: str

    @property
    def lookup(self) -> tuple[str, ...]:
        """The texts whose beginnings other tools use as names of this file; for `names_file`."""
        return lookup_texts(
            sha256=self.sha256, autov3=self.autov3, blake3=self.blake3, autov1=self.autov1, crc32=self.crc32
        )


def file_hashes(path: str | os.PathLike[str], on_read: Callable[[int], None] | None = None) -> FileHashes:
    """Hash a safetensors file in one pass. Raises `BrokenFile`, `OSError`.

    `on_read(bytes)` is called after each chunk, for progress, to yield the processor, or to stop by raising.
    """
    with open(path, "rb") as file:
        return hashes_of(file, on_read)


def hashes_of(file: BufferedReader, on_read: Callable[[int], None] | None = None) -> FileHashes:
    """As `file_hashes`, of an open file, so that its owner may give the kernel hints and watch it for changes."""
    header = header_of(file)
    whole, weights, window, tree = hashlib.sha256(), hashlib.sha256(), hashlib.sha256(), blake3()
    checksum = position = 0
    buffer = bytearray(max(1, min(CHUNK, header.file_length)))
    view = memoryview(buffer)
    file.seek(0)
    while length := file.readinto(buffer):
        chunk = view[:length]
        whole.update(chunk)
        tree.update(chunk)
        checksum = zlib.crc32(chunk, checksum)
        weights.update(chunk[max(0, header.data_start - position) :])
        if position < _V1_END and position + length > _V1_START:
            window.update(chunk[max(0, _V1_START - position) : _V1_END - position])
        position += length
        if on_read:
            on_read(length)
    sha256 = whole.hexdigest()
    return FileHashes(
        sha256=sha256,
        autov2=sha256[:10],
        autov3=weights.hexdigest(),
        autov1=window.hexdigest()[:8] if position >= _V1_MINIMUM else None,
        crc32=checksum.to_bytes(4, "little").hex(),
        blake3=tree.hexdigest(),
    )


def lookup_texts(
    *,
    sha256: str | None = None,
    autov2: str | None = None,
    autov3: str | None = None,
    blake3: str | None = None,
    autov1: str | None = None,
    crc32: str | None = None,
    claimed: Iterable[str] = (),
) -> tuple[str, ...]:
    """All texts that may name an adapter: those measured of its file, then those claimed by its header or sidecars.

    Lower case, each once; what cannot name a file (`clean_hash`) is left out.
    """
    given = (sha256, autov2, autov3, blake3, autov1, crc32, *claimed)
    return tuple(dict.fromkeys(clean for text in given if text and (clean := clean_hash(text))))


def clean_hash(text: str) -> str | None:
    """A hash as tools write it (`0x…`, `blake3:…`, capitals) in plain lower-case hex; None if it can name no file.

    That is: shorter than 8 digits, not hex, or the hash of nothing.
    """
    plain = text.strip().lower().rpartition(":")[2].removeprefix("0x")
    if len(plain) < MIN_LOOKUP or len(plain) > 64 or plain.strip(_DIGITS):
        return None
    return None if POISON.startswith(plain) or POISON_BLAKE3.startswith(plain) else plain


def names_file(text: str, known: Iterable[str]) -> bool:
    """Whether a hash as found in an image's text names the file whose hashes (whole or shortened) are `known`.

    Tools shorten differently (8, 10, 12 or all digits), some prepend `0x` or `blake3:`, some write capitals: a
    beginning is a match.
    """
    wanted = clean_hash(text)
    if wanted is None:
        return False
    candidates = [text.lower() for text in known if len(text) >= MIN_LOOKUP]
    return any(text.startswith(wanted) or wanted.startswith(text) for text in candidates)
