"""What a file tells about itself; a bad one tells what is wrong with it."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from loravault.formats.hashes import POISON
from loravault.formats.weight_id import is_weight_id
from loravault.library import identify
from loravault.library.bare import read_bare
from loravault.library.facts import decode
from loravault.library.identify import read_adapter
from tests.formats import headers


def test_a_good_file(tmp_path: Path) -> None:
    metadata = {
        "ss_output_name": "ink v2",
        "modelspec.title": "Ink\noutline",
        "modelspec.trigger_phrase": "ink outline, sks",
        "ss_base_model_version": "loravault_demo_v1",
        "ss_network_alpha": "4",
    }
    path = headers.write(tmp_path / "Styles" / "ink.safetensors", headers.adapter(headers.lora(), metadata, fill=0))
    headers.write(tmp_path / "Styles" / "ink.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 32)
    record = read_adapter(path, "main", "Styles/ink.safetensors")
    assert record.state == "ok"
    assert record.weight_id
    assert is_weight_id(record.weight_id)
    assert (record.name, record.alias, record.title) == ("ink", "ink v2", "Ink outline")
    assert (record.family, record.network, record.rank, record.alpha) == ("demo", "lora", 4, 0.0)
    assert record.trigger_words == ("ink outline", "sks")
    assert record.preview == "Styles/ink.png"
    assert (record.size, record.mtime_ns) == (path.stat().st_size, path.stat().st_mtime_ns)
    assert record.autov2
    assert record.autov3
    assert (len(record.autov2), len(record.autov3)) == (10, 12)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (headers.adapter(headers.lora())[:-5], "incomplete"),
        (headers.adapter({"model.embed.weight": (4, 4)}), "not a LoRA"),
        (headers.blob(b"{}"), "no tensors"),
    ],
)
def test_a_bad_file_is_broken_with_a_reason(tmp_path: Path, data: bytes, words: str) -> None:
    record = read_adapter(headers.write(tmp_path / "x.safetensors", data), "main", "x.safetensors")
    state = "incomplete" if words == "incomplete" else "broken"
    assert (record.state, record.weight_id, record.size) == (state, None, len(data))
    assert record.reason
    assert words in record.reason


def test_a_metadata_entry_that_is_too_long_is_a_warning(tmp_path: Path) -> None:
    metadata = {"ss_captions\x1b[2J": "x" * (2**20 + 1), "modelspec.title": "Ink"}
    path = headers.write(tmp_path / "x.safetensors", headers.adapter(headers.lora(), metadata))

    record = read_adapter(path, "main", "x.safetensors")

    assert (record.state, record.title) == ("ok", "Ink")
    warnings = ("The metadata entry ss_captions[2J is larger than 1 MiB and was not read.",)
    assert decode(record.facts).warnings == read_bare(path).warnings == warnings


def test_a_file_that_is_gone_is_broken_not_an_error(tmp_path: Path) -> None:
    record = read_adapter(tmp_path / "x.safetensors", "main", "x.safetensors")
    assert record.reason == "it cannot be read (No such file or directory)"


def test_names_are_nfc_and_only_the_last_ending_is_removed(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFD", "é.v2.safetensors")
    record = read_adapter(headers.write(tmp_path / name, headers.adapter(headers.lora())), "main", name)
    assert (record.name, record.rel) == ("é.v2", name)


def test_a_large_file_has_only_the_hash_it_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identify, "HASH_AT_ONCE_BYTES", 10)

    def autov3(claim: str) -> str | None:
        data = headers.adapter(headers.lora(), {"sshs_model_hash": claim})
        return read_adapter(headers.write(tmp_path / "x.safetensors", data), "main", "x.safetensors").autov3

    assert autov3("AB" * 32) == "abababababab"
    assert autov3("0x" + "ab" * 32) == "abababababab"
    for bad in ("", "None", "ab", POISON, "zz" * 32):
        assert autov3(bad) is None


def test_sidecars_are_read_with_it_and_a_broken_one_is_a_warning(tmp_path: Path) -> None:
    path = headers.write(tmp_path / "a" / "ink.safetensors", headers.adapter(headers.lora()))
    headers.write(tmp_path / "a" / "ink.json", b'{"activation text": "sks style", "preferred weight": 0.8}')
    headers.write(tmp_path / "a" / "ink.civitai.info", b'{"name": ')
    record = read_adapter(path, "main", "a/ink.safetensors")
    facts = decode(record.facts)
    assert (record.state, record.trigger_words, facts.weight) == ("ok", ("sks style",), 0.8)
    assert record.sources["trigger_words"] == "ink.json"
    assert len(facts.warnings) == 1
    assert "ink.civitai.info" in facts.warnings[0]
    alone = read_adapter(path, "main", "a/ink.safetensors", ())
    assert (alone.trigger_words, decode(alone.facts).warnings) == ((), ())


def test_a_file_with_the_longest_name_has_no_preview_and_is_no_error(tmp_path: Path) -> None:
    """`<250 letters>.preview.webp` is too long for the file system: Path.is_file raised, and the daemon ended."""
    name = f"{'x' * 243}.safetensors"
    path = headers.write(tmp_path / name, headers.adapter(headers.lora()))
    assert read_adapter(path, "main", name).state == "ok"


def test_a_first_look_at_a_large_library_hashes_next_to_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of up to 16 MiB were read whole at the start, before the daemon answered anything."""
    hashed: list[Path] = []
    real = identify.file_hashes
    monkeypatch.setattr(identify, "file_hashes", lambda path: hashed.append(path) or real(path))
    small = headers.write(tmp_path / "small.safetensors", headers.adapter(headers.lora()))
    large = headers.write(tmp_path / "large.safetensors", headers.adapter(headers.lora(width=4096, rank=64, out=8192)))
    assert large.stat().st_size > 1024 * 1024
    assert read_adapter(small, "main", small.name).autov2
    assert read_adapter(large, "main", large.name).autov2 is None
    assert hashed == [small]
