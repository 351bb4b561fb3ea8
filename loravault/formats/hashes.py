"""The hashes by which other tools name model files, all from one sequential read.

Let the file be bytes `[0, L)` and N the length of its safetensors header: SHA256 and CRC32 cover everything, AutoV2 is
the beginning of SHA256, AutoV3 is SHA256 of `[8+N, L)` (the weights without the metadata), AutoV1 is SHA256 of the
64 KiB at 1 MiB and exists from 2 MiB on. Texts here are lower case.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from loravault.formats.safetensors_header import header_of

_CHUNK = 1024 * 1024
_V1_START, _V1_END, _V1_MINIMUM = 0x100000, 0x110000, 0x200000
#: SHA256 of nothing; some trainers wrote it as the hash of their model, so it names no file at all.
POISON = hashlib.sha256().hexdigest()
#: Shorter texts than this are never looked up: too many files would match.
MIN_LOOKUP = 8


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

    @property
    def lookup(self) -> tuple[str, ...]:
        """The texts whose beginnings other tools use as names of this file; for `names_file`."""
        return tuple(text for text in (self.sha256, self.autov3, self.autov1, self.crc32) if text)


def file_hashes(path: str | os.PathLike[str], on_read: Callable[[int], None] | None = None) -> FileHashes:
    """Hash a safetensors file in one pass. Raises `BrokenFile`, `OSError`.

    `on_read(bytes)` is called after each chunk, for progress, to yield the processor, or to stop by raising.
    """
    whole, weights, window = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    checksum = position = 0
    with open(path, "rb") as file:
        data_start = header_of(file).data_start
        file.seek(0)
        while chunk := file.read(_CHUNK):
            whole.update(chunk)
            checksum = zlib.crc32(chunk, checksum)
            weights.update(chunk[max(0, data_start - position) :])
            window.update(chunk[max(0, _V1_START - position) : max(0, _V1_END - position)])
            position += len(chunk)
            if on_read:
                on_read(len(chunk))
    sha256 = whole.hexdigest()
    autov1 = window.hexdigest()[:8] if position >= _V1_MINIMUM else None
    return FileHashes(sha256, sha256[:10], weights.hexdigest(), autov1, checksum.to_bytes(4, "little").hex())


def names_file(text: str, known: Iterable[str]) -> bool:
    """Whether a hash as found in an image's text names the file whose hashes (whole or shortened) are `known`.

    Tools shorten differently (8, 10, 12 or all digits), some prepend `0x`, some write capitals; a beginning is a match.
    """
    wanted = text.strip().lower().removeprefix("0x")
    if (
        len(wanted) < MIN_LOOKUP
        or POISON.startswith(wanted)
        or not all(digit in "0123456789abcdef" for digit in wanted)
    ):
        return False
    candidates = [text.lower() for text in known if len(text) >= MIN_LOOKUP]
    return any(text.startswith(wanted) or wanted.startswith(text) for text in candidates)
