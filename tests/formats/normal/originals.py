"""What the modules of a base are called in its own code, and in which rows: written down apart from the tables tested.

The names come from `tests/formats/original_names.py`; here is the order of what is fused, and what is swapped.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from loravault.formats.normal import Place
from tests.formats.normal import bases
from tests.formats.original_names import ORIGINAL, Rules, renamed, sgm

_ORDER = ("to_q", "add_q_proj", "to_k", "add_k_proj", "to_v", "add_v_proj", "proj_mlp")
#: Families whose last modulation has shift before scale, where diffusers has scale before shift.
_SWAPPED = ("flux", "flux2", "sd3")
# What is outside of the blocks, where the rules of `original_names.py` leave it out.
_SD3: Rules = (
    (r"pos_embed\.proj", "x_embedder.proj"),
    (r"context_embedder", "context_embedder"),
    (r"time_text_embed\.timestep_embedder\.linear_1", "t_embedder.mlp.0"),
    (r"time_text_embed\.timestep_embedder\.linear_2", "t_embedder.mlp.2"),
    (r"time_text_embed\.text_embedder\.linear_1", "y_embedder.mlp.0"),
    (r"time_text_embed\.text_embedder\.linear_2", "y_embedder.mlp.2"),
    (r"norm_out\.linear", "final_layer.adaLN_modulation.1"),
    (r"proj_out", "final_layer.linear"),
)
_CHROMA: Rules = (
    (r"distilled_guidance_layer\.layers\.(\d+)\.linear_1", r"distilled_guidance_layer.layers.\1.in_layer"),
    (r"distilled_guidance_layer\.layers\.(\d+)\.linear_2", r"distilled_guidance_layer.layers.\1.out_layer"),
)
_Z_IMAGE: Rules = (
    (r"all_x_embedder\.2-1", "x_embedder"),
    (r"all_final_layer\.2-1\.(.*)", r"final_layer.\1"),
    (r"(cap_embedder\..*|t_embedder\..*)", r"\1"),
)
_COSMOS: Rules = (
    (r"patch_embed\.proj", "x_embedder.proj.1"),
    (r"time_embed\.t_embedder\.(.*)", r"t_embedder.1.\1"),
    (r"proj_out", "final_layer.linear"),
)
_MORE: Mapping[str, Rules] = {"sd3": _SD3, "chroma": _CHROMA, "z-image": _Z_IMAGE, "anima": _COSMOS}


@cache
def originals(base: str) -> dict[str, tuple[Place, ...]]:
    """Name in the original code → the places whose rows it has, for the linear layers and convolutions of a base."""
    component, family = bases.denoiser(base), bases.family(base)
    modules = bases.trainable(base, component)
    if component == "unet":
        numbered = {path: (number,) for number, path in enumerate(modules)}
        paths = list(modules)
        return {name: (Place(component, paths[number]),) for name, (number, *_) in sgm(numbered).items()}
    result: dict[str, list[str]] = {}
    rules = _MORE.get(family, ()) + ORIGINAL.get(family, ((r"(.*)", r"\1"),))
    for path, shape in modules.items():
        for name in renamed({path: shape}, rules):
            result.setdefault(name, []).append(path)
    return {name: _places(base, name, sorted(paths, key=_order)) for name, paths in result.items()}


def _order(path: str) -> int:
    return next((number for number, tail in enumerate(_ORDER) if path.endswith(tail)), 0)


def _places(base: str, name: str, paths: list[str]) -> tuple[Place, ...]:
    component = bases.denoiser(base)
    if bases.family(base) in _SWAPPED and (name.startswith("final_layer.adaLN") or name == last_of_the_text(base)):
        (path,) = paths
        width = bases.layers(base)[component, path][1]
        return (Place(component, path, (width, 2 * width)), Place(component, path, (0, width)))
    return tuple(Place(component, path) for path in paths)


def last_of_the_text(base: str) -> str:
    """SD 3's last block only reads the text: its modulation is that of a final layer."""
    numbers = [int(path.split(".")[1]) for _, path in bases.layers(base) if path.startswith("transformer_blocks.")]
    return f"joint_blocks.{max(numbers, default=0)}.context_block.adaLN_modulation.1"
