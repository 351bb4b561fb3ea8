"""What lies beside an adapter, read from a folder and put together with its header."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from loravault.formats.sidecars import MAX_BYTES, NOTE_ENDING, READERS, TEXT_ENDINGS
from loravault.library import sidecars
from loravault.library.facts import AdapterFacts, decode, encode
from loravault.library.sidecars import ORDER, read_facts
from tests.formats import samples
from tests.formats.samples import AUTOV3, SHA256, encoded

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def library(folder: Path, files: dict[str, Any], metadata: dict[str, str] | None = None, **more: Any) -> AdapterFacts:
    """The facts of `Styles/ink.safetensors` with these files beside it."""
    home = folder / "Styles"
    home.mkdir(exist_ok=True)
    path = home / "ink.safetensors"
    path.touch()
    for name, content in files.items():
        (home / name).write_bytes(content if isinstance(content, bytes) else encoded(content))
    facts = read_facts(path, "Styles/ink.safetensors", metadata or {}, **more)
    assert decode(encode(facts)) == facts
    return facts


def test_every_kind_has_its_place_in_the_order() -> None:
    assert sorted(ORDER) == sorted({*READERS, NOTE_ENDING, *TEXT_ENDINGS})


def test_all_tools_at_once(tmp_path: Path) -> None:
    """User fields above fetched ones, sidecars above the header, the header above its own training."""
    facts = library(
        tmp_path,
        {
            "ink.civitai.info": samples.version(),
            "ink.json": samples.a1111(),
            "ink.metadata.json": samples.lora_manager(),
            "ink.swarm.json": {"modelspec.author": "me"},
            "ink.cm-info.json": samples.stability_matrix(),
            "ink.safetensors.rgthree-info.json": samples.rgthree(),
            "ink.md": samples.NOTE.encode(),
            "ink.txt": b"only if nobody else says anything",
            "ink.preview.png": PNG,
        },
        {**samples.KOHYA, "modelspec.title": "from the header", "modelspec.license": "CC0", "modelspec.tags": "deep"},
        size=4096,
    )
    assert facts.warnings == ()
    assert (facts.title, facts.version, facts.author) == ("Ink for covers", "v2 sharp", "me")
    assert facts.description == "my ink style"
    assert facts.trigger_words == ("sks woman", "ink outline")
    assert (facts.weight, facts.weight_min, facts.weight_max) == (0.75, 0.4, 0.9)
    assert (facts.negative, facts.clip_skip, facts.nsfw, facts.favourite) == ("colour, photo", 2, 4, True)
    assert facts.notes == "best at dusk\n\nkeep the weight low\n\nfrom rgthree"
    assert (facts.base_model, facts.base_name) == ("Pony", "ponyDiffusionV6XL.safetensors")
    assert (facts.civitai_model, facts.civitai_version) == (12345, 67890)
    assert facts.topics == ("mine", "style", "ink", "line art", "deep")
    assert facts.license == "credit the author; commercial use: Image, Rent; merges allowed; same licence"
    assert facts.sample_prompts[0] == "my own picture of sks woman"
    assert facts.captions == (("sks woman", 42), ("1girl", 42), ("hat", 12))
    assert facts.training is not None
    assert facts.training.steps == 2000
    assert (facts.hashes["sha256"], facts.hashes["autov3"]) == (SHA256, AUTOV3 + "0" * 52)
    assert facts.stills == ("Styles/ink.preview.png",)
    assert facts.sources["trigger_words"] == "ink.json"
    assert facts.sources["title"] == "ink.cm-info.json"
    assert facts.sources["base_model"] == "ink.metadata.json"
    assert facts.sources["base_name"] == "ss_sd_model_name"


def test_a_header_alone(tmp_path: Path) -> None:
    facts = library(tmp_path, {}, samples.KOHYA)
    assert facts.trigger_words == ("sks woman",)
    assert facts.sources["trigger_words"] == "ss_tag_frequency"
    assert facts.clip_skip == 2
    assert library(tmp_path, {}) == AdapterFacts()


def test_broken_sidecars_are_warnings_and_the_rest_is_read(tmp_path: Path) -> None:
    """Another manager leaves out the whole model if one of its sidecars does not parse."""
    facts = library(
        tmp_path,
        {
            "ink.civitai.info": b'{"id": 1,',
            "ink.json": b"[" * 100_000,
            "ink.metadata.json": b"[]",
            "ink.swarm.json": b"",
            "ink.cm-info.json": b" " * (MAX_BYTES + 10),
            "ink.md": b"---\na: [\n---\ntext",
            "ink.txt": b"\xff\xfe\x00",
        },
        {"modelspec.title": "Ink"},
    )
    assert facts.title == "Ink"
    assert [warning.partition(" ")[0] for warning in facts.warnings] == [
        "ink.json", "ink.metadata.json", "ink.swarm.json", "ink.civitai.info", "ink.cm-info.json", "ink.md",
    ]  # fmt: skip
    assert facts.warnings[0] == "ink.json cannot be read: it is not valid JSON."
    assert all(warning.endswith(".") for warning in facts.warnings)


def test_sidecars_of_another_stem_are_not_read(tmp_path: Path) -> None:
    facts = library(tmp_path, {"ink.v2.json": samples.a1111(), "in.json": samples.a1111(), "ink2.txt": b"x"})
    assert facts == AdapterFacts()


def test_a_sidecar_in_other_case_is_read(tmp_path: Path) -> None:
    assert library(tmp_path, {"INK.Civitai.Info": samples.version()}).title == "Ink & Outline"


def test_only_what_the_listing_names_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty candidates times ten thousand adapters on a network drive would be minutes."""
    asked: list[str] = []
    real = os.lstat
    monkeypatch.setattr(sidecars.os, "lstat", lambda path: asked.append(os.fspath(path)) or real(path))
    monkeypatch.setattr(sidecars.os, "listdir", lambda path: pytest.fail("the listing is known"))
    library(tmp_path, {"ink.json": samples.a1111()}, beside=["ink.json", "ink.safetensors", "other.json"])
    assert [os.path.basename(path) for path in asked] == ["ink.json"]
    # What went away between listing and reading is nobody's problem.
    assert library(tmp_path, {}, beside=["ink.txt", "ink.png"]) == AdapterFacts()


def test_an_adapter_at_the_top_of_its_root(tmp_path: Path) -> None:
    (tmp_path / "ink.png").write_bytes(PNG)
    assert read_facts(tmp_path / "ink.safetensors", "ink.safetensors", {}).stills == ("ink.png",)


def test_a_missing_folder_is_no_error(tmp_path: Path) -> None:
    assert read_facts(tmp_path / "gone" / "ink.safetensors", "gone/ink.safetensors", {}) == AdapterFacts()


def test_names_of_strangers_are_shown_on_one_line(tmp_path: Path) -> None:
    for name, data in (("a\nb.json", b"{"), ("a\nb.txt", b"text")):
        (tmp_path / name).write_bytes(data)
    facts = read_facts(tmp_path / "a\nb.safetensors", "a\nb.safetensors", {})
    assert facts.warnings == ("a b.json cannot be read: it is not valid JSON.",)
    assert facts.sources == {"description": "a b.txt"}


def test_names_that_are_no_text_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "Styles").mkdir()
    name = os.fsencode(tmp_path / "Styles") + b"/ink.example.1.png"
    with open(name.replace(b".1.", b".\xff."), "wb") as file:
        file.write(PNG)
    assert library(tmp_path, {}) == AdapterFacts()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_does_not_stop_the_daemon(tmp_path: Path) -> None:
    (tmp_path / "Styles").mkdir()
    os.mkfifo(tmp_path / "Styles" / "ink.json")
    os.mkfifo(tmp_path / "Styles" / "ink.png")
    (tmp_path / "Styles" / "ink.txt").mkdir()
    assert library(tmp_path, {}) == AdapterFacts()


def test_a_link_brings_no_text_from_elsewhere_into_a_note(tmp_path: Path) -> None:
    """An archive from a stranger may hold `ink.txt -> ~/.ssh/id_ed25519`; the description is written into the vault."""
    secret = tmp_path / "secret"
    secret.write_text("do not tell")
    root = tmp_path / "root"
    (root / "Styles").mkdir(parents=True)
    (root / "Styles" / "ink.txt").symlink_to(secret)
    (root / "shared.json").write_bytes(encoded(samples.a1111()))
    (root / "Styles" / "ink.json").symlink_to(root / "shared.json")
    facts = library(root, {})
    assert facts.description == "my ink style"
    assert "do not tell" not in encode(facts)


def test_links_beside_a_linked_adapter_are_followed(tmp_path: Path) -> None:
    """People link model folders together, file by file."""
    store, root = tmp_path / "store", tmp_path / "root"
    for folder in (store, root):
        folder.mkdir()
    (store / "ink.safetensors").touch()
    (store / "ink.json").write_bytes(encoded(samples.a1111()))
    for name in ("ink.safetensors", "ink.json"):
        (root / name).symlink_to(store / name)
    assert read_facts(root / "ink.safetensors", "ink.safetensors", {}).weight == 0.75


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_sidecar_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "Styles").mkdir()
    (tmp_path / "Styles" / "ink.json").touch(mode=0)
    assert library(tmp_path, {}).warnings == ("ink.json cannot be read (Permission denied).",)


def test_an_adapter_with_sidecars_is_read_in_milliseconds(tmp_path: Path) -> None:
    for name, content in {"ink.civitai.info": samples.version(), "ink.metadata.json": samples.lora_manager()}.items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "ink.png").write_bytes(PNG)
    names = ["ink.civitai.info", "ink.metadata.json", "ink.png"]
    started = time.perf_counter()
    for _ in range(100):
        read_facts(tmp_path / "ink.safetensors", "ink.safetensors", samples.KOHYA, names)
    assert (time.perf_counter() - started) / 100 < 0.01  # generous: machines are busy
