"""Which layers of a base are trained: those that kohya's scripts train, found as they find them.

That is, by the class of the block that a layer is part of. Every linear layer and 1×1 convolution of the attention
blocks, the whole block of a transformer, attention and MLP of a CLIP; with a rank for convolutions, also the residual
blocks and samplers of a UNet. (sd-scripts' `lora.py`, `lora_sd3.py`, `lora_flux.py`; musubi-tuner for the rest.)
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from loravault.engine.bases import Base, ModuleKey

#: Blocks of a UNet or transformer all of whose linear layers and 1×1 convolutions are trained.
BLOCKS = frozenset(
    {
        "Transformer2DModel",
        "JointTransformerBlock",
        "FluxTransformerBlock",
        "FluxSingleTransformerBlock",
        "ChromaTransformerBlock",
        "ChromaSingleTransformerBlock",
        "Flux2TransformerBlock",
        "Flux2SingleTransformerBlock",
        "ZImageTransformerBlock",
        "QwenImageTransformerBlock",
    }
)
#: What of a UNet is trained too where convolutions have a rank; their linear layers and 1×1 convolutions included.
CONVOLUTIONS = frozenset({"ResnetBlock2D", "Downsample2D", "Upsample2D"})
#: What of a block is its attention.
_ATTENTION = re.compile(r"(^|\.)(attn|attn1|attn2|attention|self_attn)\.")
_TEXT = frozenset({"CLIPAttention", "CLIPMLP"})
#: Class of a transformer → what is left alone in its blocks: musubi-tuner found modulations to do harm there.
_LEFT_ALONE: Mapping[str, re.Pattern[str]] = {
    "QwenImageTransformer2DModel": re.compile(r"_mod\."),
    "ZImageTransformer2DModel": re.compile(r"_modulation|_refiner"),
}
#: What an IA3 multiplies: keys and values as they come out, and what the second layer of an MLP reads.
_IA3_OUTPUT = re.compile(r"(^|\.)(to_k|to_v|add_k_proj|add_v_proj|k_proj|v_proj)$")
_IA3_INPUT = re.compile(r"(^|\.)(net\.2|fc2|w2|linear_out)$")


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer that can be adapted."""

    component: str
    #: As `named_modules()` of the component has it.
    path: str
    #: `Linear` and what stands in for it in a base of fewer bits, or `Conv2d`.
    module: Any
    #: (out, in) of a linear layer, (out, in, height, width) of a convolution; whatever form the weight is kept in.
    shape: tuple[int, ...]

    @property
    def key(self) -> ModuleKey:
        """Component and path."""
        return self.component, self.path

    @property
    def convolution(self) -> bool:
        """Whether it is a `Conv2d`."""
        return len(self.shape) > 2

    @property
    def wide(self) -> bool:
        """Whether its kernel is larger than one pixel."""
        return any(size > 1 for size in self.shape[2:])

    @property
    def whole(self) -> bool:
        """Whether its weight is there in numbers that can be counted with, and not packed into four or eight bits."""
        weight = self.module._parameters.get("weight")
        return weight is not None and weight.is_floating_point() and tuple(weight.shape) == self.shape


def targets(
    base: Base,
    *,
    denoiser: bool = True,
    text: bool = False,
    convolutions: bool = False,
    attention: bool = False,
    ia3: bool = False,
) -> list[Layer]:
    """The layers of a base that are trained, in the order the models have them.

    `convolutions`: those of a UNet too; `attention`: nothing but the attention; `ia3`: the few that this algorithm
    multiplies.
    """
    found: list[Layer] = []
    for component in base.drawer.models:
        model = getattr(base.pipe, component, None)
        if model is None:
            continue
        if component == base.drawer.denoiser:
            blocks = BLOCKS | CONVOLUTIONS if convolutions else BLOCKS
            found += layers_in(component, model, blocks) if denoiser else ()
        elif text:
            found += layers_in(component, model, _TEXT)
    if attention:
        found = [layer for layer in found if _ATTENTION.search(layer.path)]
    return [layer for layer in found if on_input(layer) is not None] if ia3 else found


def layers_in(component: str, model: nn.Module, blocks: Collection[str]) -> Iterator[Layer]:
    """The linear layers and convolutions inside blocks of these classes."""
    left_alone = _LEFT_ALONE.get(type(model).__name__)
    inside: tuple[str, ...] = ()
    for path, module in model.named_modules():
        if type(module).__name__ in blocks:
            inside += (f"{path}.",)
        if not path.startswith(inside) or (left_alone and left_alone.search(path)):
            continue
        shape = shape_of(module)
        if shape is not None:
            yield Layer(component, path, module, shape)


def shape_of(module: nn.Module) -> tuple[int, ...] | None:
    """The shape of the weight of a linear layer or convolution; None for anything else, and what cannot be adapted."""
    if isinstance(module, nn.Conv2d):
        plain = module.groups == 1 and module.padding_mode == "zeros"
        return (module.out_channels, module.in_channels, *module.kernel_size) if plain else None
    into, out = getattr(module, "in_features", None), getattr(module, "out_features", None)
    return (out, into) if isinstance(into, int) and isinstance(out, int) else None


def on_input(layer: Layer) -> bool | None:
    """Whether an IA3 multiplies what this layer reads (True) or gives (False); None: it leaves it alone."""
    if layer.convolution:
        return None
    if _IA3_INPUT.search(layer.path):
        return True
    return False if _IA3_OUTPUT.search(layer.path) else None
