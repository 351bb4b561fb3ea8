"""Prints what kohya's own scripts call the modules they train: `python -m tests.engine.training.sd_scripts DIR FAMILY`.

DIR is a checkout of kohya-ss/sd-scripts. What it imports and does not need for names is put aside. JSON on stdout.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import sys
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock


class _Aside(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for packages that are not installed, and are not used for names."""

    NAMES = frozenset(
        ["torchvision", "einops", "cv2", "toml", "voluptuous", "imagesize", "lycoris", "open_clip", "ftfy"]
    )

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        aside = name.partition(".")[0] in self.NAMES
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if aside else None

    def create_module(self, spec: Any) -> ModuleType:
        made: Any = MagicMock(name=spec.name)
        made.__path__, made.__spec__, made.__name__ = [], spec, spec.name
        return made  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        """Nothing."""


def names(family: str) -> list[str]:
    """The module names, text encoders not included."""
    import torch

    with torch.device("meta"):
        if family in ("sd15", "sd15 with convolutions"):
            from library.original_unet import UNet2DConditionModel
            from networks.lora import LoRANetwork

            network = LoRANetwork([], UNet2DConditionModel(64, 8, 768), **_conv(family))
        elif family in ("sdxl", "sdxl with convolutions"):
            from library.sdxl_original_unet import SdxlUNet2DConditionModel
            from networks.lora import LoRANetwork

            network = LoRANetwork([], SdxlUNet2DConditionModel(), is_sdxl=True, **_conv(family))
        elif family == "flux":
            from library import flux_models
            from networks.lora_flux import LoRANetwork

            network = LoRANetwork([], flux_models.Flux(flux_models.configs["dev"].params))
        else:
            from library import sd3_models
            from networks.lora_sd3 import LoRANetwork

            network = LoRANetwork([], sd3_models.create_sd3_mmdit(_sd3(family, sd3_models)))
    return sorted(one.lora_name for one in network.unet_loras)


def _conv(family: str) -> dict[str, Any]:
    return {"conv_lora_dim": 4, "conv_alpha": 1} if "with" in family else {}


def _sd3(family: str, models: Any) -> Any:
    depth = 38 if "large" in family else 24
    dual = list(range(13)) if family == "sd3 3.5-medium" else []
    return models.SD3Params(
        patch_size=2, depth=depth, num_patches=192**2, pos_embed_max_size=192, adm_in_channels=2048,
        qk_norm="rms" if "3.5" in family else None, x_block_self_attn_layers=dual, context_embedder_in_features=4096,
        context_embedder_out_features=depth * 64, model_type=family,
    )  # fmt: skip


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    import diffusers
    import transformers

    # Looked up before anything is put aside: they ask whether packages are there.
    _ = (diffusers.AutoencoderKL, diffusers.StableDiffusionPipeline, transformers.CLIPTextModel)
    sys.meta_path.insert(0, _Aside())
    sys.stdout, out = sys.stderr, sys.stdout
    out.write(json.dumps(names(sys.argv[2])))
