"""The names of the original UNet of Stable Diffusion, which kohya writes for SDXL, from the modules diffusers has.

There the blocks of all levels are counted through, residual block and attention in one, and samplers are blocks of
their own on the way down but parts of the last block of a level on the way up.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_PATH = re.compile(
    r"(?P<side>down_blocks|up_blocks|mid_block)\.(?:(?P<level>\d+)\.)?"
    r"(?P<kind>resnets|attentions|downsamplers|upsamplers)\.(?P<number>\d+)\.(?P<rest>.+)"
)


def sgm_names(modules: Collection[str]) -> Iterator[tuple[str, str]]:
    """(name in the original code, module path) for every module of a `UNet2DConditionModel` that it has too."""
    down = _per_level(modules, "down_blocks") + 1  # with the sampler
    up = _per_level(modules, "up_blocks")
    attended = {match[1] for path in modules if (match := re.match(r"up_blocks\.(\d+)\.attentions\.", path))}
    for path in modules:
        if path in _OUTSIDE:
            yield _OUTSIDE[path], path
        elif match := _PATH.fullmatch(path):
            level, number = int(match["level"] or 0), int(match["number"])
            rest = _RESNET.get(match["rest"], match["rest"])
            attention = match["kind"] == "attentions"
            if match["side"] == "mid_block":
                name = f"middle_block.{1 if attention else 2 * number}.{rest}"
            elif match["kind"] == "downsamplers":
                name = f"input_blocks.{down * level + down}.0.op"
            elif match["kind"] == "upsamplers":
                place = 2 if match["level"] in attended else 1
                name = f"output_blocks.{up * level + up - 1}.{place}.{rest}"
            elif match["side"] == "down_blocks":
                name = f"input_blocks.{down * level + number + 1}.{int(attention)}.{rest}"
            else:
                name = f"output_blocks.{up * level + number}.{int(attention)}.{rest}"
            yield name, path


def _per_level(modules: Collection[str], side: str) -> int:
    """How many residual blocks each level has on one side; the levels of one UNet are alike."""
    numbers = [int(match[1]) for path in modules if (match := re.match(rf"{side}\.0\.resnets\.(\d+)\.", path))]
    return max(numbers, default=-1) + 1
