"""Writes `bases.json`: every layer with a weight of the bases the engine draws with, from diffusers and transformers.

    python -m tests.formats.normal.derive

As `tests/formats/derive.py` does, but with norms, embeddings and text encoders, for adapters change them too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.formats.derive import MODELS, fold

OUT = Path(__file__).with_name("bases.json")

_CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
_CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
_T5 = {"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 24, "vocab_size": 32128,
       "feed_forward_proj": "gated-gelu"}  # fmt: skip

#: Name of a text encoder → class, class of its config, numbers.
TEXT_ENCODERS: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "clip-l": ("CLIPTextModel", "CLIPTextConfig", _CLIP_L),
    "clip-l projected": ("CLIPTextModelWithProjection", "CLIPTextConfig", {**_CLIP_L, "projection_dim": 768}),
    "clip-h": ("CLIPTextModel", "CLIPTextConfig", _CLIP_H),
    "clip-g": ("CLIPTextModelWithProjection", "CLIPTextConfig", {**_CLIP_G, "projection_dim": 1280}),
    "t5-xxl": ("T5EncoderModel", "T5Config", _T5),
}
#: Base → model of `derive.MODELS`, and what reads its prompts.
BASES: Mapping[str, tuple[tuple[str, str | None], tuple[str, ...]]] = {
    "sd15": (("sd15", None), ("clip-l",)),
    "sd2": (("sd2", None), ("clip-h",)),
    "sdxl": (("sdxl", None), ("clip-l", "clip-g")),
    "sd3 medium": (("sd3", "medium"), ("clip-l projected", "clip-g", "t5-xxl")),
    "sd3 3.5-medium": (("sd3", "3.5-medium"), ("clip-l projected", "clip-g", "t5-xxl")),
    "sd3 3.5-large": (("sd3", "3.5-large"), ("clip-l projected", "clip-g", "t5-xxl")),
    "flux": (("flux", None), ("clip-l", "t5-xxl")),
    "flux2 klein-4b": (("flux2", "klein-4b"), ()),
    "chroma": (("chroma", None), ("t5-xxl",)),
    "z-image": (("z-image", None), ()),
    "qwen-image": (("qwen-image", None), ()),
    "anima 2b": (("anima", "2b"), ()),
}


#: What the published configs say that `derive.MODELS` leaves out, as it changes no linear layer.
_MORE: Mapping[tuple[str, str | None], dict[str, Any]] = {
    ("sd3", "3.5-medium"): {"qk_norm": "rms_norm"},
    ("sd3", "3.5-large"): {"qk_norm": "rms_norm"},
}


def weights_of(model: Any) -> dict[str, tuple[int, ...]]:
    """Path → shape of the weight of every module that has one."""
    import torch

    return {
        name: tuple(module.weight.shape)
        for name, module in model.named_modules()
        if isinstance(getattr(module, "weight", None), torch.nn.Parameter)
    }


def models() -> dict[str, dict[str, tuple[int, ...]]]:
    """Name of a denoiser or text encoder → its weights, built on the meta device."""
    import diffusers
    import torch
    import transformers

    result = {}
    with torch.device("meta"):
        for family, variant in {model for model, _ in BASES.values()}:
            class_name, numbers = MODELS[family, variant]
            numbers = numbers | _MORE.get((family, variant), {})
            result[f"{family} {variant or ''}".strip()] = weights_of(getattr(diffusers, class_name)(**numbers))
        for name, (class_name, config, numbers) in TEXT_ENCODERS.items():
            built = getattr(transformers, class_name)(getattr(transformers, config)(**numbers))
            result[name] = weights_of(built)
    return result


def main() -> None:
    """Build every model, and write what they are made of."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = ",\n".join(
        f"{json.dumps(name)}: {{\n"
        + ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in fold(found).items())
        + "\n}"
        for name, found in sorted(models().items())
    )
    OUT.write_text("{\n" + rows + "\n}\n", "utf-8")


if __name__ == "__main__":
    main()
