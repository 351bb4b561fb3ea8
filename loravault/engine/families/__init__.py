"""How each family of bases reads prompts and draws: one module per family, chosen by the pipeline class."""

from __future__ import annotations

from collections.abc import Mapping

from loravault.engine.families.common import Encoded, Family, Part
from loravault.engine.families.flux import Chroma, Flux
from loravault.engine.families.flux2 import Flux2Klein
from loravault.engine.families.qwen_image import QwenImage
from loravault.engine.families.stable_diffusion import StableDiffusion
from loravault.engine.families.stable_diffusion_3 import StableDiffusion3
from loravault.engine.families.stable_diffusion_xl import StableDiffusionXL
from loravault.engine.families.z_image import ZImage

__all__ = ["FAMILIES", "Encoded", "Family", "Part"]

#: Class of the pipeline → how it is used.
FAMILIES: Mapping[str, Family] = {
    family.pipeline: family
    for family in (
        StableDiffusion(),
        StableDiffusionXL(),
        StableDiffusion3(),
        Flux(),
        Chroma(),
        Flux2Klein(),
        ZImage(),
        QwenImage(),
    )
}
