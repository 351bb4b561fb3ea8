"""A captioner's folder: what is one, what is none, and when it is another one. Nothing is loaded for that."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from loravault.dataset.captioner import read_captioner
from loravault.errors import UserError
from tests.fakes.adapter_file import adapter_bytes
from tests.fakes.captioner_folder import make_captioner

INDEX = "model.safetensors.index.json"


def shards(folder: Path, *names: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": {str(n): name for n, name in enumerate(names)}}))


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({}, "BlipForConditionalGeneration"),
        ({"architectures": None}, "BlipForConditionalGeneration"),
        ({"model_type": "vision-encoder-decoder", "architectures": []}, "VisionEncoderDecoderModel"),
    ],
)
def test_both_kinds_are_told_by_what_the_configuration_says(
    tmp_path: Path, config: dict[str, object], kind: str
) -> None:
    found = read_captioner(make_captioner(tmp_path / "blip base", **config))
    assert (found.name, found.kind) == ("blip base", kind)
    assert [name for name, _ in found.sizes] == [
        "config.json", "model.safetensors", "preprocessor_config.json", "vocab.txt",
    ]  # fmt: skip


def test_weights_in_several_files_are_as_good(tmp_path: Path) -> None:
    folder = make_captioner(tmp_path / "m")
    shards(folder, "a.safetensors", "b.safetensors")
    for name in ("a", "b"):
        (folder / f"{name}.safetensors").write_bytes(adapter_bytes(32, 2, {}))
    assert read_captioner(folder).kind == "BlipForConditionalGeneration"


def test_another_file_is_another_captioner_and_a_read_me_is_not(tmp_path: Path) -> None:
    folder = make_captioner(tmp_path / "m")
    first = read_captioner(folder)
    (folder / "README.md").write_text("more")
    assert read_captioner(folder) == first
    os.utime(folder / "vocab.txt", ns=(1, 1))
    touched = read_captioner(folder)
    assert touched.signature != first.signature
    assert touched.sizes == first.sizes, "a copy is as large as what it was copied from"
    (folder / "vocab.txt").write_text("a\nb\n")
    assert read_captioner(folder).sizes != first.sizes


def only_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


PROBLEMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no configuration": (lambda m: (m / "config.json").unlink(), "config.json is missing"),
    "no JSON": (lambda m: (m / "config.json").write_text("{"), "config.json holds no JSON object"),
    "no object": (lambda m: (m / "config.json").write_text("[1]"), "config.json holds no JSON object"),
    "no text": (lambda m: (m / "config.json").write_bytes(b"\xff\xfe\x00"), "config.json holds no JSON object"),
    "deep": (lambda m: (m / "config.json").write_text("[" * 100_000), "config.json holds no JSON object"),
    "a pickle": (only_a_pickle, "never opened because it can run programs"),
    "no weights": (lambda m: (m / "model.safetensors").unlink(), "model.safetensors is missing"),
    "cut short": (lambda m: os.truncate(m / "model.safetensors", 40), "incomplete"),
    "a pointer": (
        lambda m: (m / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull",
    ),
    "a part is missing": (lambda m: shards(m, "a.safetensors"), "a.safetensors is missing"),
    "an adapter": (lambda m: (m / "adapter_config.json").write_text("{}"), "it is an adapter for a model"),
    "no parts": (shards, "names no file"),
    "a part elsewhere": (lambda m: shards(m, "../../x.safetensors"), "no file of the folder"),
    "a part that is a pickle": (lambda m: shards(m, "a.bin"), "no file of the folder"),
    "no words": (lambda m: (m / "vocab.txt").unlink(), "its tokenizer"),
    "no preparing": (lambda m: (m / "preprocessor_config.json").unlink(), "how pictures are prepared"),
}  # fmt: skip


@pytest.mark.parametrize("case", PROBLEMS)
def test_what_is_wrong_is_one_sentence_with_the_folders_name(tmp_path: Path, case: str) -> None:
    folder = make_captioner(tmp_path / "blip")
    spoil, words = PROBLEMS[case]
    spoil(folder)
    with pytest.raises(UserError) as caught:
        read_captioner(folder)
    said = caught.value.message
    assert said.startswith("The captioner “blip” cannot be used: ")
    assert words in said
    assert said.endswith(".")
    assert not said.endswith("..")
    assert "\n" not in said


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "clip", "architectures": ["CLIPModel"]},
        {"architectures": ["BlipForQuestionAnswering"]},
        {"model_type": None, "architectures": None},
        {"model_type": "x" * 9000, "architectures": None},
    ],
)
def test_a_model_that_describes_nothing_is_refused_with_what_it_is(tmp_path: Path, config: dict[str, object]) -> None:
    with pytest.raises(UserError, match="are described with BlipForConditionalGeneration or Vision") as caught:
        read_captioner(make_captioner(tmp_path / "m", **config))
    assert len(caught.value.message) < 300


def test_a_folder_that_is_not_there_may_be_on_a_drive_that_is_not(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="plug its drive in"):
        read_captioner(tmp_path / "gone")


def test_a_file_in_place_of_the_folder_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("x")
    with pytest.raises(UserError, match="there is no folder"):
        read_captioner(tmp_path / "m")
