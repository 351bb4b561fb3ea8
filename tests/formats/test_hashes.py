"""Hashes as Civitai, A1111 and others compute them, on two files whose values are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from loravault.formats.hashes import POISON, FileHashes, file_hashes, names_file
from loravault.formats.safetensors_header import BrokenFile
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


@pytest.mark.parametrize("text", ["", "54f985", "54f9857eaff6", POISON, POISON[:12], "vae", "54f9857g"])
def test_poison_short_and_foreign_texts_name_nothing(text: str) -> None:
    assert not names_file(text, (*KNOWN, POISON))
