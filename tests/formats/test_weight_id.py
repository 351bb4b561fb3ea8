"""The weight id is what the weights are: golden values, what changes it and what does not."""

from __future__ import annotations

import hashlib
import itertools
import struct
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from loravault.formats.safetensors_header import header_of, read_header, reader
from loravault.formats.weight_id import WINDOW_BYTES, is_weight_id, weight_id, windows
from tests.formats import headers


def of(path: Path) -> str:
    with path.open("rb") as file:
        return weight_id(header_of(file), reader(file))


def test_the_documented_layout_gives_the_id(tmp_path: Path) -> None:
    """Written out by hand from docs/note-format.md: if this fails, every weight id in every vault has changed."""
    path = headers.write(tmp_path / "a.safetensors", headers.adapter({"b": (2,), "a": (1, 1)}, fill=7))
    data = bytes([7]) * 6
    table = struct.pack("<I", 2)
    table += struct.pack("<I", 1) + b"a" + b"\x03F16" + struct.pack("<BQQ", 2, 1, 1)
    table += struct.pack("<I", 1) + b"b" + b"\x03F16" + struct.pack("<BQ", 1, 2)
    expected = hashlib.blake2b(
        table + struct.pack("<Q", 6) + 16 * data, digest_size=8, person=b"loravault-w1"
    ).hexdigest()
    assert of(path) == f"w1-{expected}"
    assert of(path) == "w1-a61ca0ad78c3a0df"


def test_metadata_and_table_order_do_not_change_it(tmp_path: Path) -> None:
    shapes = headers.lora()
    plain = headers.write(tmp_path / "a.safetensors", headers.adapter(shapes))
    edited = headers.write(
        tmp_path / "b.safetensors", headers.adapter(shapes, {"ss_output_name": "other", "x": "y" * 999})
    )
    assert of(plain) == of(edited)
    assert is_weight_id(of(plain))


def test_other_weights_shapes_or_names_change_it(tmp_path: Path) -> None:
    files = [
        headers.adapter(headers.lora()),
        headers.adapter(headers.lora(), fill=2),
        headers.adapter(headers.lora(rank=8)),
        headers.adapter(headers.lora(module="attn2_to_v")),
        headers.adapter(headers.lora(), dtype="BF16"),
    ]
    ids = {of(headers.write(tmp_path / f"{index}.safetensors", data)) for index, data in enumerate(files)}
    assert len(ids) == len(files)


def test_a_change_in_the_very_first_or_last_byte_of_the_weights_is_seen(tmp_path: Path) -> None:
    """Windows at fixed fractions include both ends, where an appended or cut training would show."""
    data = headers.adapter({"w": (500_000,)})
    begin = 8 + int.from_bytes(data[:8], "little")
    ids = {of(headers.write(tmp_path / "a.safetensors", data))}
    for at in (begin, len(data) - 1):
        changed = bytearray(data)
        changed[at] ^= 0xFF
        ids.add(of(headers.write(tmp_path / "a.safetensors", bytes(changed))))
    assert len(ids) == 3


def test_at_most_64_kib_of_weights_are_read(tmp_path: Path) -> None:
    path = headers.write(tmp_path / "a.safetensors", headers.adapter({"w": (1_000_000,)}))
    total = 0
    with path.open("rb") as file:
        read_at = reader(file)

        def counted(offset: int, length: int) -> bytes:
            nonlocal total
            total += length
            return read_at(offset, length)

        weight_id(read_header(path), counted)
    assert total == 16 * 4096


@given(st.integers(0, 10**13))
def test_windows_lie_inside_the_area_and_touch_both_ends(area: int) -> None:
    found = windows(area)
    assert all(offset >= 0 and offset + length <= area for offset, length in found)
    if area:
        assert found[0][0] == 0
        assert sum(found[-1]) == area
        assert len(found) == 16
    if 0 < area <= 16 * WINDOW_BYTES:
        assert all(after[0] <= sum(before) for before, after in itertools.pairwise(found))


def test_what_a_weight_id_looks_like() -> None:
    assert is_weight_id("w1-0123456789abcdef")
    assert not any(
        map(is_weight_id, ("w1-0123456789ABCDEF", "w2-0123456789abcdef", "w1-0123456789abcde", "w1-0123456789abcdef\n"))
    )
