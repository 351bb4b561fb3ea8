"""The JSON of a `.safetensors` header: metadata and the table of tensors, or in words why it cannot be used. Pure.

Everything is checked before memory is spent on it: the caps first, then the JSON, then that the table covers the file
exactly.

A header is parsed twice over only if need be. The quick way takes what tools really write and accepts nothing that the
thorough way would refuse; whatever it does not take goes the thorough way, which decides and finds the words.
"""

from __future__ import annotations

import contextlib
import json
import math
from typing import Annotated, Any, Literal

import msgspec

from loravault.errors import UserError
from loravault.formats.pictures import is_large_picture

#: No real adapter comes near these; what is above them is made to exhaust memory.
MAX_HEADER_BYTES = 16 * 1024 * 1024
MAX_TENSORS = 20_000
#: A longer entry is left out and told, unless it is an embedded picture: no text of a trainer's is so long.
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

# The keys of `DTYPE_BITS` (a test compares them).
_Dtype = Literal[
    "BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "BF16", "F32", "F64", "C64", "C128",
    "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F6_E2M3", "F6_E3M2", "F4",
]  # fmt: skip
_Count = Annotated[int, msgspec.Meta(ge=0, le=_MAX_DIMENSION)]

#: Up to this length the quick way cannot be made to build more than some 30 MB of objects.
_QUICK_BYTES = 4 * 1024 * 1024
#: Marks of strings in one row of the table: its name, three keys, the number format.
_QUOTES_OF_A_TENSOR = 10


class BrokenFile(UserError):  # noqa: N818 - named after the thing, as the state in the library is
    """A model file that cannot be used; the message is the reason, in words that fit after its name and a colon."""


class TensorInfo(msgspec.Struct, frozen=True, gc=False):
    """One row of the tensor table, with the names of its JSON."""

    dtype: _Dtype
    shape: Annotated[tuple[_Count, ...], msgspec.Meta(max_length=MAX_DIMENSIONS)]
    #: First byte, and the one after the last, counted from the beginning of the tensor area.
    data_offsets: tuple[_Count, _Count]

    @property
    def start(self) -> int:
        """First byte."""
        return self.data_offsets[0]

    @property
    def end(self) -> int:
        """The byte after the last."""
        return self.data_offsets[1]


class _Top(msgspec.Struct, forbid_unknown_fields=True):
    """The beginning of a header up to its first tensor."""

    metadata: dict[str, str] = msgspec.field(default_factory=dict, name="__metadata__")


_read_table = msgspec.json.Decoder(dict[str, TensorInfo]).decode
_read_top = msgspec.json.Decoder(_Top).decode
_NOT_QUICK = (msgspec.MsgspecError, ValueError, RecursionError)


def parse(raw: bytes, area: int) -> tuple[dict[str, str], dict[str, TensorInfo], tuple[str, ...]]:
    """Metadata, tensor table and what was left out of the metadata. `area`: bytes that follow the header.

    Raises `BrokenFile` with the reason.
    """
    quick = _parse_quickly(raw, area)
    return (*quick, ()) if quick is not None else _parse_thoroughly(raw, area)


def parse_metadata(raw: bytes, area: int) -> dict[str, str]:
    """Only `__metadata__`: a sixth of the work where it stands first. What stands behind it is not looked at then."""
    cut = _first_row(raw)
    if cut > 1:
        with contextlib.suppress(*_NOT_QUICK):
            metadata = _read_top(raw[: cut - 1] + b"}").metadata
            if _small(metadata):
                return metadata
    elif cut == 1 and b'"__metadata__"' not in raw:
        return {}
    return _parse_thoroughly(raw, area)[0]


def _parse_quickly(raw: bytes, area: int) -> tuple[dict[str, str], dict[str, TensorInfo]] | None:
    """As `_parse_thoroughly`, or None where that has to decide.

    The table is decoded straight into its rows. A name that stands twice leaves no trace in them, but its quotation
    marks are in the text: so the marks are counted. (With a backslash among them the count is not exact.)
    """
    cut = _first_row(raw)
    if not 0 < cut < _QUICK_BYTES or len(raw) > _QUICK_BYTES:
        return None
    head, table = raw[: cut - 1] + b"}", b"{" + raw[cut:]
    try:
        metadata = _read_top(head).metadata if cut > 1 else {}
        tensors = _read_table(table)
    except _NOT_QUICK:
        return None
    if "__metadata__" in tensors:  # not first, and written as if it were a tensor
        return None
    if cut > 1 and (_quotes(head) != 4 * len(metadata) + 2 or not _small(metadata)):
        return None
    if b"\\" in table or table.count(b'"') != _QUOTES_OF_A_TENSOR * len(tensors) or len(tensors) > MAX_TENSORS:
        return None
    return (metadata, tensors) if _covers(tensors, area) else None


def _first_row(raw: bytes) -> int:
    """Where the row of the first tensor begins if metadata or nothing stands before it; 0 if that cannot be told.

    It is found by its `"dtype"`. If that stood elsewhere, what is before the cut is no complete object and not parsed.
    """
    if raw[:2] != b'{"':
        return 0
    if not raw.startswith(b'{"__metadata__"'):
        return 1
    key = raw.find(b'"dtype"')
    name_end = raw.rfind(b'"', 0, max(key, 0))
    return raw.rfind(b",", 0, max(raw.rfind(b'"', 0, max(name_end, 0)), 0)) + 1


def _covers(tensors: dict[str, TensorInfo], area: int) -> bool:
    """Whether the rows, in the order they stand in, fill the area exactly, each with the length its shape needs."""
    sizes = _BYTES
    if len(sizes) > _REMEMBERED_SIZES:
        sizes.clear()
    position = 0
    for info in tensors.values():
        start, end = info.data_offsets
        if start != position or end - start != sizes[info.dtype, info.shape]:
            return False
        position = end
    return position == area


def _quotes(text: bytes) -> int:
    """How many marks in a JSON text begin or end a string."""
    escaped = text.count(b'\\"')
    if escaped != text.count(b"\\"):  # other escapes too: a pair of backslashes before a mark does not escape it
        text = text.replace(b"\\\\", b"")
        escaped = text.count(b'\\"')
    return text.count(b'"') - escaped


def _small(metadata: dict[str, str]) -> bool:
    limit = MAX_METADATA_VALUE_BYTES // 4  # of UTF-8 in the worst case
    return not metadata or max(map(len, metadata.values())) <= limit


#: What no two offsets have between them, in either order.
_NO_LENGTH = -(2**64)


class _Sizes(dict[tuple[str, tuple[int, ...]], int]):
    """(dtype, shape) → bytes, as far as it was needed; `_NO_LENGTH` if that is none. Few shapes make many."""

    def __missing__(self, key: tuple[str, tuple[int, ...]]) -> int:
        bits = DTYPE_BITS[key[0]] * math.prod(key[1])
        self[key] = size = _NO_LENGTH if bits % 8 else bits // 8
        return size


_BYTES, _REMEMBERED_SIZES = _Sizes(), 50_000


def _parse_thoroughly(raw: bytes, area: int) -> tuple[dict[str, str], dict[str, TensorInfo], tuple[str, ...]]:
    """Metadata, tensor table and what was left out of the metadata; `BrokenFile` with the reason.

    `area`: bytes that follow the header.
    """
    _check_structure(raw)
    try:
        table = json.loads(raw.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise BrokenFile("its header is not valid UTF-8 text") from None
    except (ValueError, RecursionError):
        raise BrokenFile("its header is not valid JSON") from None
    if not isinstance(table, dict):
        raise BrokenFile("its header is not a table of tensors")
    metadata, left_out = _metadata(table.pop("__metadata__", None))
    tensors = {_text(name): _tensor(name, entry) for name, entry in table.items()}
    _check_cover(tensors, area)
    return metadata, tensors, left_out


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


def _metadata(entry: Any) -> tuple[dict[str, str], tuple[str, ...]]:
    """The entries, and the names of those that are too long to be of use. The cap of the header bounds all of them."""
    if entry is None:
        return {}, ()
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise BrokenFile("its metadata is not a table of texts")
    for key in entry:
        _text(key)
    long = [key for key, value in entry.items() if len(_text(value).encode()) > MAX_METADATA_VALUE_BYTES]
    left_out = tuple(key for key in long if not is_large_picture(entry[key]))
    for key in left_out:
        del entry[key]
    return entry, left_out


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
    return TensorInfo(dtype, tuple(shape), (offsets[0], offsets[1]))  # type: ignore[arg-type]


def _check_cover(tensors: dict[str, TensorInfo], area: int) -> None:
    """The tensors must fill the rest of the file: with holes or overlaps two readers would see two different files."""
    position = 0
    for name, info in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        if info.start != position:
            raise BrokenFile(f"tensor {name[:80]!r} does not begin where the one before it ends")
        position = info.end
    if position > area:
        missing = f"{position - area:,} of {position:,} bytes of its tensors are missing"
        raise BrokenFile(f"{missing}: the download is incomplete")
    if position < area:
        raise BrokenFile(f"{area - position:,} bytes follow after its last tensor: it is damaged, or not one file only")
