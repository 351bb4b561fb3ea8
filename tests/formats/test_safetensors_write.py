"""What we write as a safetensors file is one, to its own library and to our reader, and always the same bytes."""

from __future__ import annotations

import hashlib
import struct
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from loravault.formats.safetensors_header import read_header
from loravault.formats.safetensors_write import head, layout, sshs_hashes

_NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12).filter(
    lambda name: name != "__metadata__"
)
_SHAPES = st.dictionaries(
    _NAMES, st.tuples(st.sampled_from(["F32", "F16", "BF16", "I64"]), st.tuples(st.integers(1, 4), st.integers(1, 4))),
    min_size=1, max_size=6,
)  # fmt: skip


@given(shapes=_SHAPES, metadata=st.dictionaries(_NAMES, st.text(st.characters(exclude_categories=("Cs",)))))
def test_our_reader_reads_it(shapes: dict[str, tuple[str, tuple[int, ...]]], metadata: dict[str, str]) -> None:
    """Names, formats, shapes, metadata; each tensor begins at a multiple of its width; order is ours."""
    table = layout(shapes)
    assert list(table.items()) == list(layout(dict(reversed(shapes.items()))).items())
    widths = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8}
    assert all(info.start % widths[info.dtype] == 0 for info in table.values())
    first = head(metadata, table)
    assert len(first) % 8 == 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        path.write_bytes(first + bytes(max(info.end for info in table.values())))
        header = read_header(path)
    assert header.metadata == metadata
    assert {name: (info.dtype, info.shape) for name, info in header.tensors.items()} == shapes


def test_the_hashes_of_sd_webui() -> None:
    """The whole area, and 64 KiB at 1 MiB of the file as it is with nothing but `ss_*`."""
    table = layout({"a": ("F32", (300_000,)), "b": ("F16", (100_000,))})
    numbers = struct.pack("<300000f", *range(300_000))
    area = numbers + bytes(range(256)) * 781 + bytes(64)
    metadata = {"ss_seed": "1", "modelspec.title": "not counted", "sshs_model_hash": "nor this"}
    whole = head({"ss_seed": "1"}, table) + area
    wanted = {
        "sshs_model_hash": hashlib.sha256(area).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(whole[0x100000:0x110000]).hexdigest()[:8],
    }
    for step in (1 << 12, 1 << 16, 1 << 20, len(area)):
        assert sshs_hashes(metadata, table, [area[at : at + step] for at in range(0, len(area), step)]) == wanted


def test_a_small_file_has_the_hash_of_nothing_as_the_old_one() -> None:
    table = layout({"a": ("F32", (2,))})
    assert sshs_hashes({}, table, [bytes(8)])["sshs_legacy_hash"] == "e3b0c442"
