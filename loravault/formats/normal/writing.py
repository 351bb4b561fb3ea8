"""How kohya's scripts call the layers of a base: the way back from `names`, for files that we write.

One name for each layer. Where the models' own code has one layer and diffusers has several, the name is that of the
one, and its places are those of the several; the rows of the file's layer are those of the places, in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from loravault.formats.normal.names import DENOISERS, original_names
from loravault.formats.normal.patches import LayerKey, Place, Shape
from loravault.formats.normal.sgm import sgm_names

_TEXT_MODEL = "text_model."
#: Component → what a key begins with, where there are several text encoders.
_ENCODERS: Mapping[str, str] = {"text_encoder": "lora_te1", "text_encoder_2": "lora_te2", "text_encoder_3": "lora_te3"}


@dataclass(frozen=True)
class Spelling:
    """One module of a file to be written."""

    #: All of a key up to its part: `lora_unet_double_blocks_0_img_attn_qkv`.
    name: str
    places: tuple[Place, ...]


def kohya_spellings(layers: Mapping[LayerKey, Shape], family: str, *, fused: bool = True) -> list[Spelling]:
    """The name of every layer with two dimensions or more, as kohya's scripts write it for this base.

    `layers` as `normalise` takes them, `family` as the layers of its transformer are named. Without `fused`, each layer
    of a transformer that others fuse stands by itself, under the name that SimpleTuner gives it: `lycoris_` and the
    path in diffusers. The large readers know those, too.
    """
    components: dict[str, dict[str, Shape]] = {}
    for (component, module), shape in layers.items():
        if len(shape) > 1:
            components.setdefault(component, {})[module] = shape
    result: list[Spelling] = []
    for component, modules in components.items():
        if component in DENOISERS:
            result += _denoiser(component, modules, family, fused=fused)
        else:
            result += _text_encoder(component, modules, single="unet" in components and len(components) == 2)
    return result


def _denoiser(component: str, modules: Mapping[str, Shape], family: str, *, fused: bool) -> Iterator[Spelling]:
    if "add_embedding.linear_1" in modules:  # SDXL: kohya's names are made of its own code's
        named = {module: name for name, module in sgm_names(modules.keys())}
        for module in modules:
            yield _spelling("lora_unet", named.get(module, module), Place(component, module))
        return
    originals = list(original_names(component, modules, family))
    taken = {place.module for _, places in originals for place in places}
    if fused:
        for name, places in originals:
            yield _spelling("lora_unet", name, *places)
    prefix = "lora_unet" if fused or not originals else "lycoris"
    for module in modules:
        if not fused or module not in taken:
            yield _spelling(prefix, module, Place(component, module))


def _text_encoder(component: str, modules: Mapping[str, Shape], *, single: bool) -> Iterator[Spelling]:
    """With the level `text_model`, which every reader expects, whether the installed transformers has it or not."""
    prefix = "lora_te" if single else _ENCODERS.get(component, f"lora_{component}")
    for module in modules:
        yield _spelling(prefix, _TEXT_MODEL + module.removeprefix(_TEXT_MODEL), Place(component, module))


def _spelling(prefix: str, name: str, *places: Place) -> Spelling:
    return Spelling(f"{prefix}_{name.replace('.', '_')}", places)
