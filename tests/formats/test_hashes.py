"""Hashes as Civitai, A1111 and others compute them, on two files whose values are known."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from loravault.formats import hashes
from loravault.formats.hashes import (
    POISON,
    POISON_BLAKE3,
    FileHashes,
    clean_hash,
    file_hashes,
    lookup_texts,
    names_file,
)
from loravault.formats.tensor_table import BrokenFile
from tests.formats import headers

ROW = (
    '{"__metadata__":{"ss_network_dim":"4"},'
    '"lora_unet_x.lora_down.weight":{"dtype":"F16","shape":%s,"data_offsets":[0,%d]}}'
)


def file_a() -> bytes:
    return headers.blob((ROW % ("[4,8]", 64) + " " * 6).encode(), bytes(range(64)))


def file_b() -> bytes:
    data = bytes((7 * index + (index >> 8)) & 255 for index in range(2_097_152))
    return headers.blob((ROW % ("[1024,1024]", 2_097_152) + " " * 3).encode(), data)


def test_a_small_file_has_no_autov1(tmp_path: Path) -> None:
    assert file_hashes(headers.write(tmp_path / "a", file_a())) == FileHashes(
        sha256="3f4e3918574c51e8a3d742dc40810e30a0b0ac952ad8b21ae59400724abb9fd4",
        autov2="3f4e391857",
        autov3=file_hashes(tmp_path / "a").autov3,
        autov1=None,
        crc32="0a7c2d29",
        blake3="9d655e3cdeaef840592b841365a945a3da88eb35562ff17e6b14ec3d47228921",
    )
    assert file_hashes(tmp_path / "a").autov3.startswith("fdeab9acf371")


def test_a_file_over_two_mebibytes_has_all_of_them(tmp_path: Path) -> None:
    read = []
    assert file_hashes(headers.write(tmp_path / "b", file_b()), read.append) == FileHashes(
        sha256="a87f5cdc93b9d9319ab8bdba2b9c30f6f607c200bc18f25937979732d4270df5",
        autov2="a87f5cdc93",
        autov3="54f9857eaff55a19d826bf585116adc7d83c9bd6625aec85b31ae7bf688a6308",
        autov1="31d18fc0",
        crc32="87f66b5d",
        blake3="8439474ab59770d427d99fb16608310b8135a8cf89307ba9cf780e2b61b5042d",
    )
    assert sum(read) == 2_097_296


def test_what_is_no_safetensors_file_has_no_hashes(tmp_path: Path) -> None:
    with pytest.raises(BrokenFile):
        file_hashes(headers.write(tmp_path / "x", b"hello world"))


KNOWN = ("54f9857eaff55a19d826bf585116adc7d83c9bd6625aec85b31ae7bf688a6308", "a87f5cdc93b9d9", "31d18fc0")


@pytest.mark.parametrize(
    "text",
    ["54f9857eaff5", "54F9857EAFF5", "0x54f9857eaff5", "54f9857e", "a87f5cdc93", "a87f5cdc93b9d9319ab8", " 31d18fc0 "],
)
def test_the_shortened_forms_of_other_tools_name_the_file(text: str) -> None:
    assert names_file(text, KNOWN)


def test_the_checksum_is_printed_as_civitai_prints_it(tmp_path: Path) -> None:
    """Of "hello world" Civitai says 85114A0D: the bytes of the value in little-endian order, not the number."""
    assert zlib.crc32(b"hello world").to_bytes(4, "little").hex() == "85114a0d"
    blob = headers.adapter(headers.lora())
    found = file_hashes(headers.write(tmp_path / "x", blob))
    assert int.from_bytes(bytes.fromhex(found.crc32), "little") == zlib.crc32(blob)


@pytest.mark.parametrize("chunk", [1, 7, 4096, 0xFFFFF, 0x100000, 0x110000, 0x110001])
def test_the_hashes_do_not_depend_on_how_the_file_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    data = file_a() if chunk < 4096 else file_b()
    expected = file_hashes(headers.write(tmp_path / "x", data))
    monkeypatch.setattr(hashes, "CHUNK", chunk)
    assert file_hashes(tmp_path / "x") == expected


@given(size=st.integers(0, 3000), tail=st.integers(0, 40), cut=st.integers(1, 700))
def test_each_hash_is_that_of_its_bytes(
    tmp_path_factory: pytest.TempPathFactory, size: int, tail: int, cut: int
) -> None:
    """Against the plain definitions, for any length of header and weights and any size of the reads."""
    row = json.dumps({"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode() + b" " * tail
    data = headers.blob(row, bytes(index * 31 & 255 for index in range(size)))
    path = headers.write(tmp_path_factory.getbasetemp() / "hashed", data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashes, "CHUNK", cut)
        found = file_hashes(path)
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert found.autov3 == hashlib.sha256(data[8 + len(row) :]).hexdigest()
    assert found.blake3 == blake3(data).hexdigest()


def test_a_file_of_exactly_two_mebibytes_has_an_autov1_and_one_byte_less_has_none(tmp_path: Path) -> None:
    for length, has_one in ((0x200000, True), (0x1FFFFF, False)):
        row = '{"x":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}'
        size = length - 8 - len(row % (1000000, 1000000))
        data = headers.blob((row % (size, size)).encode(), bytes(size))
        assert len(data) == length
        assert (file_hashes(headers.write(tmp_path / "x", data)).autov1 is not None) == has_one


def test_all_that_may_name_an_adapter_measured_and_claimed(tmp_path: Path) -> None:
    """Each text once, and none that names nothing."""
    found = file_hashes(headers.write(tmp_path / "b", file_b()))
    assert found.lookup == (found.sha256, found.autov3, found.blake3, found.autov1, found.crc32)
    claim = "AB" * 32
    texts = lookup_texts(
        autov2=found.autov2, sha256=found.sha256, claimed=("0x" + claim, "", POISON, "sha256:" + claim)
    )
    assert texts == (found.sha256, found.autov2, claim.lower())
    assert lookup_texts(autov2="0123456789", autov3="abcdef012345") == ("0123456789", "abcdef012345")


@given(st.text())
def test_no_text_is_too_strange_to_be_asked_for(text: str) -> None:
    clean = clean_hash(text)
    assert clean is None or clean_hash(clean) == clean
    assert isinstance(names_file(text, KNOWN), bool)


def test_invoke_writes_which_hash_it_means() -> None:
    assert names_file("blake3:8439474ab59770d427d99fb16608310b8135a8cf89307ba9cf780e2b61b5042d", ["8439474ab59770d4"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "54f985",
        POISON_BLAKE3,
        f"blake3:{POISON_BLAKE3[:10]}",
        "54f9857eaff6",
        POISON,
        POISON[:12],
        "vae",
        "54f9857g",
    ],
)
def test_poison_short_and_foreign_texts_name_nothing(text: str) -> None:
    assert not names_file(text, (*KNOWN, POISON))
