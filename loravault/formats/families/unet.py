"""Stable Diffusion 1, 2, XL, Kolors and our demo: one UNet in five sizes, in two ways of naming its modules.

The layers are not written down one by one but come out of the numbers in a model's config. Pony, Illustrious, NoobAI
and all the others are exactly SDXL, and the UNet of Kolors too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from loravault.formats.families.table import Family, Model

#: Cross-attention width of the demo base; nobody else uses it.
DEMO_WIDTH = 160


@dataclass(frozen=True)
class UNet:
    """The numbers of a `UNet2DConditionModel`."""

    channels: tuple[int, ...]
    #: Transformer blocks in each attention of a level; 0 where the level has none. The last is that of the middle.
    depth: tuple[int, ...]
    #: Width of the text it reads.
    cross: int
    #: Whether its attentions are entered through a linear layer instead of a 1×1 convolution.
    linear: bool = False
    #: Attentions and residual blocks on each level on the way down; one more on the way up.
    layers: int = 2
    #: Width of what is added to the time: pooled text and picture sizes.
    added: int | None = None

    @property
    def time(self) -> int:
        """Width of the time embedding."""
        return 4 * self.channels[0]


def diffusers_layers(unet: UNet) -> str:
    """The layers with the names of diffusers."""
    lines = [
        f"conv_in * {unet.channels[0]} 3",
        f"conv_out {unet.channels[0]} * 3",
        f"time_embedding.linear_1 {unet.channels[0]} {unet.time}",
        f"time_embedding.linear_2 {unet.time} {unet.time}",
        f"time_embedding.cond_proj * {unet.channels[0]}",
    ]
    if unet.added:
        lines += [f"add_embedding.linear_1 {unet.added} {unet.time}", f"add_embedding.linear_2 {unet.time} {unet.time}"]
    last = len(unet.channels) - 1
    for level, width in enumerate(unet.channels):
        down, up = f"down_blocks.{level}", f"up_blocks.{last - level}"
        for block, count in ((down, unet.layers), (up, unet.layers + 1)):
            lines += _resnet(f"{block}.resnets.[0-{count - 1}]", width, unet.time)
            lines += _attention(f"{block}.attentions.[0-{count - 1}]", width, unet.depth[level], unet)
        if level < last:
            lines.append(f"{down}.downsamplers.0.conv {width} {width} 3")
        if level > 0:
            lines.append(f"{up}.upsamplers.0.conv {width} {width} 3")
    lines += _resnet("mid_block.resnets.[0-1]", unet.channels[-1], unet.time)
    lines += _attention("mid_block.attentions.0", unet.channels[-1], unet.depth[-1], unet)
    return "\n".join(lines)


def original_layers(unet: UNet) -> str:
    """The same with the names of the original code, which kohya writes for SDXL."""
    lines = [
        f"input_blocks.0.0 * {unet.channels[0]} 3",
        f"out.2 {unet.channels[0]} * 3",
        f"time_embed.0 {unet.channels[0]} {unet.time}",
        f"time_embed.2 {unet.time} {unet.time}",
    ]
    if unet.added:
        lines += [f"label_emb.0.0 {unet.added} {unet.time}", f"label_emb.0.2 {unet.time} {unet.time}"]
    last = len(unet.channels) - 1
    per = unet.layers + 1
    for level, width in enumerate(unet.channels):
        depth = unet.depth[level]
        first = per * level + 1
        lines += _original_block(f"input_blocks.[{first}-{first + unet.layers - 1}]", width, depth, unet)
        if level < last:
            lines.append(f"input_blocks.{first + unet.layers}.0.op {width} {width} 3")
        begin = per * (last - level)
        lines += _original_block(f"output_blocks.[{begin}-{begin + per - 1}]", width, depth, unet)
        if level > 0:
            lines.append(f"output_blocks.{begin + per - 1}.{2 if depth else 1}.conv {width} {width} 3")
    width = unet.channels[-1]
    lines += _original_resnet("middle_block.{0,2}", width, unet.time)
    lines += _attention("middle_block.1", width, unet.depth[-1], unet)
    return "\n".join(lines)


def _original_block(path: str, width: int, depth: int, unet: UNet) -> Iterator[str]:
    yield from _original_resnet(f"{path}.0", width, unet.time)
    yield from _attention(f"{path}.1", width, depth, unet)


def _resnet(path: str, width: int, time: int) -> Iterator[str]:
    yield f"{path}.conv1 * {width} 3"  # what it reads depends on the skip connections
    yield f"{path}.conv2 {width} {width} 3"
    yield f"{path}.time_emb_proj {time} {width}"
    yield f"{path}.conv_shortcut * {width} 1"


def _original_resnet(path: str, width: int, time: int) -> Iterator[str]:
    yield f"{path}.in_layers.2 * {width} 3"
    yield f"{path}.out_layers.3 {width} {width} 3"
    yield f"{path}.emb_layers.1 {time} {width}"
    yield f"{path}.skip_connection * {width} 1"


def _attention(path: str, width: int, depth: int, unet: UNet) -> Iterator[str]:
    if not depth:
        return
    yield f"{path}.{{proj_in,proj_out}} {width} {width} {0 if unet.linear else 1}"
    block = f"{path}.transformer_blocks.[0-{depth - 1}]"
    yield f"{block}.attn1.{{to_q,to_k,to_v,to_out.0}} {width} {width}"
    yield f"{block}.attn2.{{to_q,to_out.0}} {width} {width}"
    yield f"{block}.attn2.{{to_k,to_v}} {unet.cross} {width}"
    yield f"{block}.ff.net.0.proj {width} {8 * width}"
    yield f"{block}.ff.net.2 {4 * width} {width}"


_WIDE = (320, 640, 1280, 1280)
DEMO = UNet((96, 128), (1, 1, 1), DEMO_WIDTH, layers=1)
SD15 = UNet(_WIDE, (1, 1, 1, 0, 1), 768)
SD2 = UNet(_WIDE, (1, 1, 1, 0, 1), 1024, linear=True)
SDXL = UNet((320, 640, 1280), (0, 2, 10, 10), 2048, linear=True, added=2816)
KOLORS = UNet((320, 640, 1280), (0, 2, 10, 10), 2048, linear=True, added=5632)

#: Cross-attention width → family, for everything with a Stable Diffusion UNet.
WIDTHS = {DEMO.cross: "demo", SD15.cross: "sd15", SD2.cross: "sd2", SDXL.cross: "sdxl"}

#: Modules that read the text, in any UNet.
CROSS = re.compile(r"^(?:down_blocks|mid_block|up_blocks|input_blocks|middle_block|output_blocks)_.*attn2_to_[kv]$")


def _models(unet: UNet) -> tuple[Model, ...]:
    return (Model(None, (diffusers_layers(unet), original_layers(unet))),)


FAMILIES = (
    Family(
        "demo", "loravault demo", _models(DEMO), names_settle=False, text={"te": "clip-demo", "te1": "clip-demo"},
        claims=("loravaultdemo",),
    ),
    Family(
        "sd15",
        "Stable Diffusion 1",
        _models(SD15),
        names_settle=False,
        text={"te": "clip-l", "te1": "clip-l"},
        claims=("sdv1", "sd15", "sd1", "stablediffusionv1"),
        words=("sd15", "sd1", "sd14"),
    ),
    Family(
        "sd2",
        "Stable Diffusion 2",
        _models(SD2),
        names_settle=False,
        text={"te": "clip-h", "te1": "clip-h"},
        claims=("sdv2", "sd21", "sd20", "sd2", "stablediffusionv2"),
        variants={"768v": "v-prediction", "sdv2v": "v-prediction"},
        words=("sd2", "sd21"),
    ),
    Family(
        "sdxl",
        "SDXL",
        _models(SDXL),
        names_settle=False,
        text={"te1": "clip-l", "te2": "clip-g"},
        claims=("sdxl", "stablediffusionxl", "xlbase", "ssd", "vega"),
        variants={
            "pony": "pony", "pdxl": "pony", "illustrious": "illustrious", "ilxl": "illustrious", "noob": "noobai",
            "animagine": "animagine", "playground": "playground",
        },
        words=("sdxl", "xl", "pony", "pdxl", "illustrious", "ilxl", "noob", "noobai"),
    ),
    Family(
        "kolors",
        "Kolors",
        _models(KOLORS),
        rarer_than=("sdxl",),
        names_settle=False,
        claims=("kolors",),
        words=("kolors",),
    ),
)  # fmt: skip
