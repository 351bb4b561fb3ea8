"""What ships: sizes, keys, shapes and metadata, read from the files' headers alone (no torch)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from demo import words

DATA = Path(__file__).resolve().parents[2] / "loravault" / "data"
BASE, ADAPTERS = DATA / "demo_base", DATA / "demo_adapters"
NAMES = ("ink_outline", "ghost_friend")


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(length))
    return header


def test_base_is_small_and_half_precision() -> None:
    """At most 16 MB, all weights fp16."""
    assert sum(path.stat().st_size for path in BASE.rglob("*") if path.is_file()) <= 16_000_000
    for path in BASE.rglob("*.safetensors"):
        kinds = {entry["dtype"] for name, entry in _header(path).items() if name != "__metadata__"}
        assert kinds <= {"F16", "I64"}, path


def test_family_is_recognisable_by_its_width() -> None:
    """Cross-attention of width 160, in the config and in the weights."""
    assert json.loads((BASE / "unet" / "config.json").read_text())["cross_attention_dim"] == 160
    header = _header(BASE / "unet" / "diffusion_pytorch_model.safetensors")
    widths = {entry["shape"][1] for name, entry in header.items() if name.endswith("attn2.to_k.weight")}
    assert widths == {160}


def test_vocabulary_is_that_of_the_captions() -> None:
    """The exported list, the tokenizer and demo/words.py agree."""
    exported = json.loads((BASE / "vocabulary.json").read_text(encoding="utf-8"))
    assert exported["words"] == list(words.vocabulary())
    tokens = json.loads((BASE / "tokenizer" / "vocab.json").read_text(encoding="utf-8"))
    assert all(f"{word}</w>" in tokens for word in exported["words"])
    assert not {f"{word}</w>" for word in words.WITHHELD_SUBJECTS} & set(tokens)
    assert len([token for token in tokens if len(token.removesuffix("</w>")) == 1]) == 512


@pytest.mark.parametrize("name", NAMES)
def test_adapter_file(name: str) -> None:
    """At most 1 MB, kohya keys in threes, metadata that readers act on, a preview beside it."""
    path = ADAPTERS / f"{name}.safetensors"
    assert path.stat().st_size <= 1_000_000
    header = _header(path)
    metadata = header.pop("__metadata__")
    modules = {key.split(".")[0] for key in header}
    assert {key.split(".", 1)[1] for key in header} == {"lora_down.weight", "lora_up.weight", "alpha"}
    assert len(header) == 3 * len(modules)
    assert any(module.startswith("lora_te_text_model_encoder_layers_0_") for module in modules)
    assert any(module.startswith("lora_unet_down_blocks_0_attentions_0_") for module in modules)
    assert metadata["ss_base_model_version"] == "loravault_demo_v1"
    assert metadata["ss_output_name"] == name
    assert metadata["modelspec.trigger_phrase"] in metadata["ss_tag_frequency"]
    assert "lora_adapter_metadata" not in metadata
    assert all("/work" not in value and "/home" not in value for value in metadata.values())
    with Image.open(ADAPTERS / f"{name}.preview.png") as preview:
        assert min(preview.size) >= 128


def test_no_file_tells_where_it_was_made() -> None:
    """diffusers writes the folder that a part was loaded from into its config.json."""
    for path in BASE.rglob("*.json"):
        if path.parent.name != "tokenizer":
            assert '"_name_or_path"' not in path.read_text(encoding="utf-8"), path
