"""The header of a `.safetensors` file, read with plain bounded reads, and in words why a file is not one.

The daemon never maps these files: truncating a mapped file kills the process that has it open. What the bytes of the
header say is read in `tensor_table`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from loravault.formats.tensor_table import MAX_HEADER_BYTES, BrokenFile, TensorInfo, parse, parse_metadata

#: One read of this length holds the header of nearly every adapter: 2.6 times faster than its length first, then it.
FIRST_READ_BYTES = 512 * 1024
ReadAt = Callable[[int, int], bytes]


@dataclass(frozen=True)
class Header:
    """What a `.safetensors` file says about itself."""

    metadata: dict[str, str]
    tensors: dict[str, TensorInfo]
    #: Bytes of JSON, padding included.
    header_length: int
    file_length: int
    #: Metadata entries that were left out because they are too long.
    left_out: tuple[str, ...] = ()
    #: First bytes of the tensor area in the file.
    data_start: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "data_start", 8 + self.header_length)

    @property
    def data_length(self) -> int:
        """Bytes of the tensor area."""
        return self.file_length - self.data_start


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and check the header. Raises `BrokenFile` with the reason; `OSError` if the file cannot be opened at all."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a named pipe would wait for ever
        raise BrokenFile("it is not an ordinary file")
    with open(path, "rb") as file:
        return header_of(file)


def header_of(file: BinaryIO) -> Header:
    """As `read_header`, of an open file, so that the header and further bytes come from the same one."""
    raw, size = _raw_header(file)
    metadata, tensors, left_out = parse(raw, size - 8 - len(raw))
    return Header(metadata, tensors, len(raw), size, left_out)


def read_metadata(file: BinaryIO) -> dict[str, str]:
    """Only what an open file says about itself in `__metadata__`: a sixth of the work where it stands first.

    Nothing else is looked at then: a header that is damaged further on, or names an entry twice, shows in `header_of`.
    """
    raw, size = _raw_header(file)
    return parse_metadata(raw, size - 8 - len(raw))


def _raw_header(file: BinaryIO) -> tuple[bytes, int]:
    """The bytes of JSON, padding included, and the length of the file."""
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    first = file.read(FIRST_READ_BYTES)
    length = _header_length(first[:64], size)
    raw = first[8 : 8 + length]
    if len(raw) < length:
        raw += file.read(length - len(raw))
    if len(raw) != length:
        raise BrokenFile("it changed while it was read; it will be looked at again")
    return raw, size


def reader(file: BinaryIO) -> ReadAt:
    """`read_at(offset, length)` on an open file: absolute offset, exactly `length` bytes, else `BrokenFile`."""

    def read_at(offset: int, length: int) -> bytes:
        file.seek(offset)
        data = file.read(length)
        if len(data) != length:
            raise BrokenFile("it changed while it was read; it will be looked at again")
        return data

    return read_at


def _header_length(start: bytes, size: int) -> int:
    """The length that the first eight bytes declare; refused, with what the file really is, if it cannot be true."""
    if size == 0:
        raise BrokenFile("it is empty (a download that has not begun, or failed)")
    length = int.from_bytes(start[:8], "little")
    plausible = start[8:9] == b"{" and length <= MAX_HEADER_BYTES
    # Only then ask what else it is: a header of 640 bytes begins like a pickle does (80 02).
    if not plausible and (foreign := _foreign(start)):
        raise BrokenFile(foreign)
    if size < 10:
        raise BrokenFile(f"it is only {size} bytes long: not a safetensors file")
    if start[8:9] != b"{":
        raise BrokenFile("it is not a safetensors file (no table of tensors at its beginning)")
    if length > MAX_HEADER_BYTES:
        raise BrokenFile(
            f"its header claims {length:,} bytes; no real LoRA needs more than {MAX_HEADER_BYTES // 2**20} MiB"
        )
    if 8 + length > size:
        raise BrokenFile(f"it ends inside its header, after {size:,} bytes: the download is incomplete")
    return length


# What really ends up under the name of a model: beginnings (without blanks, lower case) and what to say.
_FOREIGN: tuple[tuple[tuple[bytes, ...], str], ...] = (
    (
        (b"version https://git-lfs",),
        "it is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository",
    ),
    (
        (b"<!doctype", b"<html", b"<?xml", b"<head"),
        "it is a web page: the download got an error page or a login instead of the file",
    ),
    (
        (b"pk\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
        "it is a pickle or zip archive under another name; pickles are never opened: convert it to safetensors",
    ),
    ((b"gguf",), "it is a GGUF file, which is not read as a LoRA"),
    (
        (b'{"error', b'{"message', b'{"detail', b"access denied", b"entry not found", b"invalid username"),
        "it is the error message of a download, not the file",
    ),
)


def _foreign(start: bytes) -> str | None:
    """What the file is instead of a safetensors file, if its first bytes tell."""
    if len(start) >= 10 and not start.strip(b"\0"):
        return "it begins with nothing but zeros: space that a download reserved and has not filled"
    lowered = start.lstrip().lower()
    return next((words for beginnings, words in _FOREIGN if lowered.startswith(beginnings)), None)
