"""Write the demo base into the package: diffusers layout, fp16, with its vocabulary and licence note."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from demo import words
from demo.model import IMAGE_SIZE, new_scheduler

LIMIT_BYTES = 16_000_000
LICENCE = """The demo base of loravault (loravault_demo_v1)

Every training picture was drawn by the code in demo/ of the loravault repository; no other picture, text or weight
went into it. The weights, the adapters in ../demo_adapters and the pictures beside them are under the licence of
loravault itself (MIT).
"""


def vocabulary_json() -> dict[str, Any]:
    """What the base knows, for messages such as "the demo base does not know: moon"."""
    return {
        "v": 1,
        "base": "loravault_demo_v1",
        "words": list(words.vocabulary()),
        "subjects": list(words.SUBJECTS),
        "colours": list(words.COLOURS),
        "places": {name: list(ways) for name, ways in words.PLACES.items()},
        "sizes": {k: [w for w in v if w] for k, v in words.SIZE_WORDS.items() if v[0]},
        "positions": {k: list(v) for k, v in words.POSITION_WORDS.items()},
        "image_size": IMAGE_SIZE,
        "defaults": {"sampler": "DPM++ 2M Karras", "steps": 20, "cfg": 5.0, "size": f"{IMAGE_SIZE}x{IMAGE_SIZE}"},
    }


def export(
    folder: Path, vae: AutoencoderKL, text_encoder: CLIPTextModel, unet: UNet2DConditionModel, tokenizer: CLIPTokenizer
) -> int:
    """Save everything into `folder` as fp16; returns the size in bytes and refuses more than 16 MB."""
    pipe = StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=new_scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.to(torch.float16).save_pretrained(str(folder), safe_serialization=True)
    _load_as_float32(folder / "text_encoder" / "config.json")
    for config in folder.glob("*/config.json"):
        _forget_origin(config)
    for name in ("vocab.json", "merges.txt"):  # the classic pair, beside transformers' tokenizer.json
        (folder / "tokenizer" / name).write_text(_tokenizer_file(tokenizer, name), encoding="utf-8")
    text = json.dumps(vocabulary_json(), indent=1, ensure_ascii=False)
    (folder / "vocabulary.json").write_text(text + "\n", encoding="utf-8")
    (folder / "LICENSE.txt").write_text(LICENCE, encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > LIMIT_BYTES:
        raise SystemExit(f"the exported base has {size} bytes, more than {LIMIT_BYTES}")
    return size


def _tokenizer_file(tokenizer: CLIPTokenizer, name: str) -> str:
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    if name == "vocab.json":
        return json.dumps(model["vocab"], ensure_ascii=False)
    return "\n".join(["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]) + "\n"


def _forget_origin(config: Path) -> None:
    """diffusers records the folder that a part was loaded from: nobody's business."""
    settings = json.loads(config.read_text(encoding="utf-8"))
    settings.pop("_name_or_path", None)
    config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _load_as_float32(config: Path) -> None:
    """transformers 5 loads in the recorded dtype, diffusers in float32: a plain from_pretrained would mix both."""
    settings = json.loads(config.read_text(encoding="utf-8"))
    settings["dtype"] = "float32"
    config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
