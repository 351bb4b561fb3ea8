"""A header is read exactly, or the file is broken with a reason; nothing hostile costs time or memory."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from loravault.formats import safetensors_header as sh
from loravault.formats import tensor_table
from loravault.formats.pictures import embedded_picture
from tests.formats import headers


def read(data: bytes) -> sh.Header:
    """Through a real file, as its length counts."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return sh.header_of(file)


def reason(data: bytes) -> str:
    with pytest.raises(tensor_table.BrokenFile) as caught:
        read(data)
    return caught.value.message


def test_what_the_safetensors_library_writes_is_read_back(tmp_path: Path) -> None:
    tensors = {
        "b.weight": np.zeros((2, 3), np.float32),
        "a.weight": np.ones((4,), np.float16),
        "empty": np.zeros((0, 7)),
    }
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(tensors, path, metadata={"ss_output_name": "x", "ß": "∆"})
    header = sh.read_header(path)
    assert header.metadata == {"ss_output_name": "x", "ß": "∆"}
    assert {name: (info.dtype, info.shape) for name, info in header.tensors.items()} == {
        "b.weight": ("F32", (2, 3)),
        "a.weight": ("F16", (4,)),
        "empty": ("F64", (0, 7)),
    }
    assert header.file_length == path.stat().st_size
    assert header.data_start + max(info.end for info in header.tensors.values()) == header.file_length


GOOD = headers.adapter(headers.lora(), {"ss_network_dim": "4"})


def test_a_file_cut_anywhere_is_broken_and_never_ok() -> None:
    """Every cut inside the header, and a hundred in the data."""
    header_end = 8 + int.from_bytes(GOOD[:8], "little")
    cuts = [*range(header_end + 1), *range(header_end + 1, len(GOOD), max(1, (len(GOOD) - header_end) // 100))]
    for cut in cuts:
        assert reason(GOOD[:cut]), cut


def test_a_file_with_one_byte_too_many_is_broken() -> None:
    assert "1 bytes follow after its last tensor" in reason(GOOD + b"\0")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\0" * 4096, "zeros"),
        (b"abc", "3 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html><body>Log in</body></html>", "web page"),
        (b"\n <HTML><head></head></HTML>   ", "web page"),
        (b"PK\x03\x04" + b"\0" * 40, "pickles are never opened"),
        (b"\x80\x02}q\x00(X\x05\x00\x00\x00alpha" + b"\0" * 40, "pickles are never opened"),
        (b'{"error":"Unauthorized, please log in"}', "error message of a download"),
        (b"GGUF\x03\x00\x00\x00" + b"\0" * 40, "GGUF"),
        (b"just some text that somebody renamed", "not a safetensors file"),
        (headers.blob(b"{not json}"), "valid JSON"),
        (headers.blob(b'{"a":"\xff\xfe"}'), "UTF-8"),
        (headers.blob(b"{} {}"), "valid JSON"),
        (headers.blob(b'{"__metadata__":{"a":1}}'), "table of texts"),
        (headers.blob(b'{"__metadata__":[]}'), "table of texts"),
        (headers.blob(b'{"__metadata__":{"a":"x","a":"y"}}'), "twice"),
        (headers.blob(b'{"__metadata__":{"a":"\\ud800"}}'), "valid Unicode"),
        (headers.blob(b'{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"a":{"dtype":"F16"}}', b"ab"), "twice"),
        (headers.blob(b'{"a":{"dtype":"F16","shape":[1]}}', b"ab"), "incomplete"),
        (headers.blob(b'{"a":7}', b"ab"), "incomplete"),
        (headers.blob(b'{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,2]}}', b"ab"), "number format"),
        (headers.blob(b'{"a":{"dtype":"F16","shape":[-1],"data_offsets":[0,2]}}', b"ab"), "shape"),
        (headers.blob(b'{"a":{"dtype":"F16","shape":[true],"data_offsets":[0,2]}}', b"ab"), "shape"),
        (headers.blob(b'{"a":{"dtype":"F16","shape":[1.0],"data_offsets":[0,2]}}', b"ab"), "shape"),
        (headers.blob(b'{"a":{"dtype":"F16","shape":[NaN],"data_offsets":[0,2]}}', b"ab"), "valid JSON"),
        (headers.blob(b'{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2,3]}}', b"ab"), "offsets"),
        (headers.blob(b'{"a":{"dtype":"F16","shape":[9],"data_offsets":[0,2]}}', b"ab"), "contradict"),
        (headers.blob(b'{"a":{"dtype":"F16","shape":[1],"data_offsets":[2,4]}}', b"abcd"), "does not begin where"),
        (headers.blob(b'{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}', b"a"), "download is incomplete"),
        ((2**63).to_bytes(8, "little") + b"{" + b" " * 50, "claims"),
        (headers.blob(b'{"a":{"dtype":"F16","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,2]}}', b"ab"), "JSON"),
        (headers.blob(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "valid JSON"),
    ],
)
def test_each_kind_of_broken_file_is_told_in_words(data: bytes, words: str) -> None:
    assert words in reason(data)


def test_a_header_of_640_bytes_is_not_taken_for_a_pickle() -> None:
    """640 is 80 02 in the file, as pickles begin: the first check, by magic alone, called such a file a pickle."""
    for length in (0x0280, 0x0380, 0x0480, 0x0580):
        assert read(headers.blob(b"{}".ljust(length))).header_length == length


def test_half_a_byte_is_no_length_however_the_offsets_stand() -> None:
    """A tensor of one 4-bit number that ends before it begins passed the quick check, and its neighbour overlapped."""
    rows = {
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "b": {"dtype": "F4", "shape": [1], "data_offsets": [8, 7]},
        "c": {"dtype": "U8", "shape": [1], "data_offsets": [7, 8]},
    }
    raw = json.dumps(rows, separators=(",", ":")).encode()
    assert "contradict" in reason(len(raw).to_bytes(8, "little") + raw + bytes(8))


def test_two_tensors_on_the_same_bytes_are_refused() -> None:
    entry = b'{"dtype":"F16","shape":[1],"data_offsets":[0,2]}'
    assert "does not begin where" in reason(headers.blob(b'{"a":%b,"b":%b}' % (entry, entry), b"ab"))


def tensor_bomb() -> bytes:
    row = '"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return headers.blob(("{" + ",".join(row % index for index in range(250_000)) + "}").encode())


BOMBS = {
    "a million entries of nothing": tensor_bomb,
    "16 MB of short keys": lambda: headers.blob(b'{"a":' + b'{"b":0},"c":' * 1_300_000 + b"0}"),
    "16 MB of empty lists": lambda: headers.blob(b'{"a":[' + b"[]," * 5_000_000 + b"0]}"),
    "16 MB of escaped quotes in a string that never ends": lambda: headers.blob(b'{"a":"' + b'\\"' * 8_000_000),
    "16 MB of lists that claim to be pictures": lambda: headers.blob(
        b'{"__metadata__":{"x":"[\\"iVBORw0KGgoAAAANSUhEUg==\\"' + b",[]" * 5_000_000 + b']"}}', b"too many"
    ),
    "a header of 90 MB": lambda: (90_000_000).to_bytes(8, "little") + b"{" + b" " * 100,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_header_bomb_is_refused_quickly_and_without_memory(name: str) -> None:
    """Promised: 64 MiB and 50 ms each. The clock here is lenient, because test machines are slow and shared."""
    data = BOMBS[name]()
    tracemalloc.start()
    try:
        before = time.perf_counter()
        assert reason(data)
        took = time.perf_counter() - before
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20
    assert took < 2


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + os.urandom(5_000_000)


@pytest.mark.parametrize("first", [True, False])
def test_a_metadata_entry_that_is_too_long_costs_the_entry_and_not_the_file(first: bool) -> None:
    """A trainer that wrote 2 MB of captions made its whole file "broken", for one entry that nobody needs."""
    entries, size = headers.table(headers.lora())
    metadata = {"ss_captions": "ä" * 600_000, "ss_network_dim": "4", "fits": "x" * 2**20}
    table = {"__metadata__": metadata, **entries} if first else {**entries, "__metadata__": metadata}
    data = headers.blob(json.dumps(table, ensure_ascii=False).encode(), bytes(size))

    header = read(data)

    assert header.metadata == {"ss_network_dim": "4", "fits": "x" * 2**20}
    assert header.left_out == ("ss_captions",)
    assert len(header.tensors) == 3
    assert read_metadata(data) == header.metadata


@pytest.mark.parametrize("written", ["{}", "data:image/png;base64,{}", '["{}","{}"]'])
def test_an_embedded_cover_may_be_longer(written: str) -> None:
    value = written.replace("{}", base64.b64encode(PNG).decode(), 1).replace("{}", "x")
    data = headers.adapter(headers.lora(), {"ssmd_cover_images": value, "modelspec.thumbnail": "y" * 2_000_000})

    header = read(data)

    assert header.left_out == ("modelspec.thumbnail",)
    assert embedded_picture(header.metadata["ssmd_cover_images"]) == PNG
    assert embedded_picture(read_metadata(data)["ssmd_cover_images"]) == PNG


def test_a_cover_beyond_the_cap_of_embedded_pictures_is_left_out() -> None:
    value = base64.b64encode(PNG + bytes(2_000_000)).decode()
    assert read(headers.adapter(headers.lora(), {"cover": value})).left_out == ("cover",)


def test_a_large_but_honest_tag_table_is_read() -> None:
    """The structure limits must not hit what kohya really writes: JSON in a string, with tens of thousands of tags."""
    tags = json.dumps({"10_cat": {f"tag number {index}": index for index in range(30_000)}})
    header = read(headers.adapter(headers.lora(), {"ss_tag_frequency": tags}))
    assert header.metadata["ss_tag_frequency"] == tags


def read_metadata(data: bytes) -> dict[str, str]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return sh.read_metadata(file)


def test_the_quick_way_takes_what_tools_write(tmp_path: Path) -> None:
    """Otherwise every header would be parsed the slow way and nobody would see it but the clock."""
    tags = json.dumps({"10_cat": {'a "b"': 1, "日本": 2, "back\\slash": 3}})
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"a.weight": np.zeros((2, 3), np.float32)}, path, metadata={"ss_tag_frequency": tags})
    for data in (path.read_bytes(), GOOD, headers.adapter(headers.lora())):
        length = int.from_bytes(data[:8], "little")
        assert tensor_table._parse_quickly(data[8 : 8 + length], len(data) - 8 - length) is not None


ENTRY = '"t":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}'


@pytest.mark.parametrize(
    "text",
    [
        '{"__metadata__":{"a":"x","a":"y"},' + ENTRY + "}",
        '{"__metadata__":{"a":"x"},"__metadata__":{"a":"x"},' + ENTRY + "}",
        '{"t":{"dtype":"F16","dtype":"F16","shape":[1],"data_offsets":[0,2]}}',
        '{"t":{"dtype":"F16","shape":[1],"shape":[1],"data_offsets":[0,2]}}',
        '{"t":{"dtype":"F16","shape":[1],"data\\u005foffsets":[0,2],"data_offsets":[0,2]}}',
        "{" + ENTRY + "," + ENTRY + "}",
        "{" + ENTRY + ',"\\u0074":{"dtype":"F16","shape":[0],"data_offsets":[2,2]}}',
        '{"__metadata__":{"x":"\\\\","x":"\\\\"},' + ENTRY + "}",
    ],
)
def test_no_entry_that_stands_twice_slips_through_the_quick_way(text: str) -> None:
    """It decodes into dictionaries, where the second silently replaces the first; two readers then disagree."""
    assert "twice" in reason(headers.blob(text.encode(), b"ab"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"__metadata__":{"dtype":"x"},' + ENTRY + "}", {"dtype": "x"}),
        ("{" + ENTRY + ',"__metadata__":{"a":"b"}}', {"a": "b"}),
        ('{"__metadata__":{},' + ENTRY + "}", {}),
        ('{"__metadata__":{"a":"b"}}', {"a": "b"}),
        ("{" + ENTRY + "}", {}),
        ('{ "__metadata__" : {"a":"b, \\"dtype\\": c"} ,\n' + ENTRY + "}   ", {"a": 'b, "dtype": c'}),
        ('{"__metadata__":null,' + ENTRY + "}", {}),
    ],
)
def test_metadata_alone_is_what_the_whole_header_says_wherever_it_stands(text: str, words: dict[str, str]) -> None:
    data = headers.blob(text.encode(), b"ab" if ENTRY in text else b"")
    assert read_metadata(data) == read(data).metadata == words


def test_a_header_longer_than_the_first_read_is_read_to_its_end() -> None:
    tags = {f"tag {index}": "x" * 1000 for index in range(700)}
    data = headers.adapter(headers.lora(), tags)
    assert int.from_bytes(data[:8], "little") > sh.FIRST_READ_BYTES
    assert read(data).metadata == read_metadata(data) == tags


def test_both_ways_know_the_same_number_formats() -> None:
    for dtype in tensor_table.DTYPE_BITS:
        raw = b'{"t":{"dtype":"%s","shape":[0],"data_offsets":[0,0]}}' % dtype.encode()
        assert tensor_table._parse_quickly(raw, 0) == tensor_table._parse_thoroughly(raw, 0)[:2]


def test_a_directory_or_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(tensor_table.BrokenFile, match="ordinary file"):
        sh.read_header(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.safetensors")
        with pytest.raises(tensor_table.BrokenFile, match="ordinary file"):
            sh.read_header(tmp_path / "pipe.safetensors")


def test_the_reader_gives_exact_bytes_or_says_the_file_changed() -> None:
    class File(io.BytesIO):
        pass

    read_at = sh.reader(File(b"0123456789"))
    assert read_at(2, 3) == b"234"
    with pytest.raises(tensor_table.BrokenFile, match="changed"):
        read_at(8, 3)


@given(st.binary(max_size=300))
def test_any_bytes_are_either_a_header_or_a_broken_file(data: bytes) -> None:
    with contextlib.suppress(tensor_table.BrokenFile):
        assert read(data).file_length == len(data)


@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8))
def test_damage_anywhere_in_a_good_file_never_raises_anything_but_broken(at: int, patch: bytes) -> None:
    damaged = (GOOD[:at] + patch + GOOD[at + len(patch) :])[: len(GOOD)]
    try:
        header = read(damaged)
    except tensor_table.BrokenFile:
        return
    assert header.file_length == len(GOOD)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
texts = st.text(max_size=6) | st.sampled_from(["__metadata__", "dtype", '"dtype"', "\\\\", "t"])
dims = st.lists(st.integers(0, 3), max_size=3)


@st.composite
def almost_good(draw: st.DrawFn) -> tuple[bytes, int]:
    """A header as tools write it, then perhaps with one thing changed in its text."""
    entries: dict[str, object] = {}
    if draw(st.booleans()):
        entries["__metadata__"] = draw(st.dictionaries(texts, texts, max_size=3))
    end = 0
    for name in draw(st.lists(texts, max_size=3, unique=True)):
        shape = draw(dims)
        size = 2 * int(np.prod(shape))
        entries[name] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    compact = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :\n")]))
    text = json.dumps(entries, separators=compact, ensure_ascii=draw(st.booleans())).encode("utf-8", "replace")
    if draw(st.booleans()):
        at = draw(st.integers(0, len(text)))
        patch = draw(
            st.sampled_from(
                [b'"', b"\\", b"{", b"}", b",", b"0", b"-", b".", b"e", b"\0", b"\n", b"\xff", b"null", b""]
            )
        )
        text = text[:at] + patch + text[at + draw(st.integers(0, 2)) :]
    return text, end


@given(almost_good())
def test_the_quick_way_never_takes_what_the_thorough_way_refuses_or_reads_otherwise(case: tuple[bytes, int]) -> None:
    raw, area = case
    quick = tensor_table._parse_quickly(raw, area)
    if quick is not None:
        assert (*quick, ()) == tensor_table._parse_thoroughly(raw, area)


rows = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F16", "F32", 5]), "shape": json_values, "data_offsets": json_values}
)


@given(
    st.dictionaries(st.text(max_size=10) | st.just("__metadata__"), rows | json_values, max_size=4),
    st.binary(max_size=20),
)
def test_any_json_is_either_a_header_or_a_broken_file(table: dict[str, object], data: bytes) -> None:
    with contextlib.suppress(tensor_table.BrokenFile):
        assert all(
            info.end <= len(data) for info in read(headers.blob(json.dumps(table).encode(), data)).tensors.values()
        )
