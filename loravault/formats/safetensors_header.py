"""The header of a `.safetensors` file, read with plain bounded reads, and in words why a file is not one.

The daemon never maps these files: truncating a mapped file kills the process that has it open. Everything is checked
before memory is spent on it: the caps first, then the JSON, then that the table of tensors covers the file exactly.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from loravault.errors import UserError

#: No real adapter comes near these; a header above them is made to exhaust memory.
MAX_HEADER_BYTES = 16 * 1024 * 1024
MAX_TENSORS = 20_000
MAX_METADATA_VALUE_BYTES = 1024 * 1024
MAX_DIMENSIONS = 16
_MAX_DIMENSION = 2**63 - 1
# A tensor entry has five strings, two lists and an object; metadata entries two strings. Twice that is generous.
_MAX_STRINGS = 12 * MAX_TENSORS
_MAX_STRUCTURE = 30 * MAX_TENSORS

#: Bits per element.
DTYPE_BITS: dict[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64, "C128": 128,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip

ReadAt = Callable[[int, int], bytes]


class BrokenFile(UserError):  # noqa: N818 - named after the thing, as the state in the library is
    """A model file that cannot be used; the message is the reason, in words that fit after its name and a colon."""


@dataclass(frozen=True)
class TensorInfo:
    """One row of the tensor table. `start` and `end` count bytes from the beginning of the tensor area."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a `.safetensors` file says about itself."""

    metadata: dict[str, str]
    tensors: dict[str, TensorInfo]
    #: Bytes of JSON, padding included.
    header_length: int
    file_length: int
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
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    start = file.read(64)
    length = _header_length(start, size)
    file.seek(8)
    raw = file.read(length)
    if len(raw) != length:
        raise BrokenFile("it changed while it was read; it will be looked at again")
    metadata, tensors = _parse_table(raw)
    _check_cover(tensors, size - 8 - length)
    return Header(metadata, tensors, length, size)


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
            f"its header claims {length:,} bytes; no real adapter needs more than {MAX_HEADER_BYTES // 2**20} MiB"
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
    ((b"gguf",), "it is a GGUF file, which is not read as an adapter"),
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


def _parse_table(raw: bytes) -> tuple[dict[str, str], dict[str, TensorInfo]]:
    _check_structure(raw)
    try:
        table = json.loads(raw.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise BrokenFile("its header is not valid UTF-8 text") from None
    except (ValueError, RecursionError):
        raise BrokenFile("its header is not valid JSON") from None
    if not isinstance(table, dict):
        raise BrokenFile("its header is not a table of tensors")
    metadata = _metadata(table.pop("__metadata__", None))
    return metadata, {_text(name): _tensor(name, entry) for name, entry in table.items()}


def _check_structure(raw: bytes) -> None:
    """Refuse header bombs by counting, before a parser builds objects from them."""
    if raw.count(b'"data_offsets"') > MAX_TENSORS:
        raise BrokenFile(f"it lists more than {MAX_TENSORS:,} tensors")
    unescaped = raw.replace(b"\\\\", b"").replace(b'\\"', b"")  # what is left of quotes delimits strings
    if unescaped.count(b'"') > 2 * _MAX_STRINGS:
        raise BrokenFile("its header holds too many entries")
    bare = b"".join(unescaped.split(b'"')[::2])
    if bare.count(b"{") + bare.count(b"[") + bare.count(b",") > _MAX_STRUCTURE:
        raise BrokenFile("its header holds too many entries")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise BrokenFile("its header names the same entry twice, so that readers would disagree on what it holds")
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _text(value: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise BrokenFile("its header holds text that is not valid Unicode") from None
    return value


def _metadata(entry: Any) -> dict[str, str]:
    if entry is None:
        return {}
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise BrokenFile("its metadata is not a table of texts")
    for key, value in entry.items():
        if len(value) > MAX_METADATA_VALUE_BYTES or len(_text(value).encode()) > MAX_METADATA_VALUE_BYTES:
            raise BrokenFile(f"its metadata entry {_text(key)[:60]!r} is larger than 1 MiB")
        _text(key)
    return entry


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_DIMENSION


def _tensor(name: str, entry: Any) -> TensorInfo:
    label = repr(name[:80])
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise BrokenFile(f"the entry of tensor {label} is incomplete")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise BrokenFile(f"tensor {label} has a number format that is not known here: {str(dtype)[:20]!r}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(map(_is_count, shape)):
        raise BrokenFile(f"tensor {label} has an impossible shape")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise BrokenFile(f"tensor {label} has impossible offsets")
    bits = DTYPE_BITS[dtype]
    for size in shape:
        bits *= size
    if bits % 8 or offsets[1] - offsets[0] != bits // 8:
        raise BrokenFile(f"the shape and the length of tensor {label} contradict each other")
    return TensorInfo(dtype, tuple(shape), offsets[0], offsets[1])


def _check_cover(tensors: dict[str, TensorInfo], area: int) -> None:
    """The tensors must fill the rest of the file: with holes or overlaps two readers would see two different files."""
    position = 0
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start != position:
            raise BrokenFile(f"tensor {name[:80]!r} does not begin where the one before it ends")
        position = info.end
    if position > area:
        missing = f"{position - area:,} of {position:,} bytes of its tensors are missing"
        raise BrokenFile(f"{missing}: the download is incomplete")
    if position < area:
        raise BrokenFile(f"{area - position:,} bytes follow after its last tensor: it is damaged, or not one file only")
