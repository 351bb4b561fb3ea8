"""A file by itself: what is known of it without a vault, and in words why it is nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loravault.library.bare import read_bare
from loravault.library.identify import read_adapter
from tests.formats import headers


def sdxl(**metadata: str) -> bytes:
    name = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    shapes = {f"{name}.alpha": (), f"{name}.lora_down.weight": (4, 2048), f"{name}.lora_up.weight": (640, 4)}
    return headers.adapter(shapes, metadata, fill=0x44)


def test_every_field_says_where_it_came_from(tmp_path: Path) -> None:
    path = headers.write(tmp_path / "x.safetensors", sdxl(ss_sd_model_name="ponyDiffusionV6XL.safetensors"))
    found = read_bare(path)
    assert (found.family, found.variant, found.network, found.rank, found.state) == ("sdxl", "pony", "lora", 4, "ok")
    assert {key: found.source[key] for key in ("family", "variant", "rank", "alpha")} == {
        "family": "shapes", "variant": "ss_sd_model_name", "rank": "shapes", "alpha": "tensors",
    }  # fmt: skip
    assert found.weight_id is not None
    assert found.metadata == {"ss_sd_model_name": "ponyDiffusionV6XL.safetensors"}


def test_what_a_site_calls_the_base_model_comes_before_the_metadata(tmp_path: Path) -> None:
    path = headers.write(tmp_path / "x.safetensors", sdxl(ss_sd_model_name="ponyDiffusionV6XL.safetensors"))
    (tmp_path / "x.civitai.info").write_text(json.dumps({"baseModel": "Illustrious", "id": 7}))
    found = read_bare(path)
    assert (found.variant, found.source["variant"], found.base_model) == (
        "illustrious",
        "x.civitai.info",
        "Illustrious",
    )


def test_names_are_the_last_resort(tmp_path: Path) -> None:
    assert read_bare(headers.write(tmp_path / "my pony style.safetensors", sdxl())).source["variant"] == "name"
    assert read_bare(headers.write(tmp_path / "Illustrious" / "x.safetensors", sdxl())).source["variant"] == "folder"
    assert read_bare(headers.write(tmp_path / "x" / "illness.safetensors", sdxl())).variant is None


def test_a_file_that_is_no_adapter_still_shows_its_metadata(tmp_path: Path) -> None:
    data = headers.adapter({"emb_params": (2, 768)}, {"modelspec.title": "a word"})
    found = read_bare(headers.write(tmp_path / "x.safetensors", data))
    assert (found.state, found.tensors, found.metadata) == ("broken", 1, {"modelspec.title": "a word"})
    assert "it is an embedding" in str(found.reason)


def test_an_unfinished_download_is_incomplete_and_a_missing_file_is_told(tmp_path: Path) -> None:
    assert read_bare(headers.write(tmp_path / "x.safetensors", sdxl()[:-2])).state == "incomplete"
    gone = read_bare(tmp_path / "gone.safetensors")
    assert (gone.state, gone.reason) == ("broken", "it cannot be read (No such file or directory)")


def test_a_pickle_is_not_opened_even_if_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`show old.ckpt` read its first bytes and called it "a pickle under another name"."""
    old = headers.write(tmp_path / "old.CKPT", b"\x80\x02}q\x00.")
    monkeypatch.setattr("builtins.open", lambda *_: pytest.fail("it was opened"))
    found = read_bare(old)
    assert (found.name, found.size, found.state) == ("old", 6, "broken")
    assert str(found.reason).startswith("files of this kind (.CKPT) can run code when they are opened, so it was not")


def test_the_index_knows_what_a_site_and_a_name_say_too(tmp_path: Path) -> None:
    path = headers.write(tmp_path / "Kolors" / "x.safetensors", sdxl())
    assert read_adapter(path, "loras", "Kolors/x.safetensors").family == "kolors"
    (path.parent / "x.civitai.info").write_text(json.dumps({"baseModel": "Pony"}))
    record = read_adapter(path, "loras", "Kolors/x.safetensors")
    assert (record.family, record.variant, record.sources["variant"]) == ("sdxl", "pony", "x.civitai.info")
