"""A captioner's folder as far as it is looked at before it is loaded, made without torch."""

from __future__ import annotations

import json
from pathlib import Path

from tests.fakes.adapter_file import adapter_bytes


def make_captioner(folder: Path, **config: object) -> Path:
    """A BLIP in all but its weights; `config` goes into its `config.json`."""
    folder.mkdir(parents=True)
    told = {"model_type": "blip", "architectures": ["BlipForConditionalGeneration"], **config}
    (folder / "config.json").write_text(json.dumps(told))
    (folder / "model.safetensors").write_bytes(adapter_bytes(32, 2, {}))
    (folder / "preprocessor_config.json").write_text("{}")
    (folder / "vocab.txt").write_text("a\n")
    (folder / "README.md").write_text("read me")
    return folder
