"""What the modules of a base are called in its own code, and in which rows: written down apart from the tables tested.

The names come from `tests/formats/original_names.py`; here is the order of what is fused, and what is swapped.
"""

from __future__ import annotations

from loravault.formats.normal import Place
from tests.formats.normal import bases
from tests.formats.original_names import ORIGINAL, renamed, sgm

_ORDER = ("to_q", "add_q_proj", "to_k", "add_k_proj", "to_v", "add_v_proj", "proj_mlp")
#: Families whose last modulation has shift before scale, where diffusers has scale before shift.
_SWAPPED = ("flux", "flux2", "sd3")


def originals(base: str) -> dict[str, tuple[Place, ...]]:
    """Name in the original code → the places whose rows it has, for the linear layers and convolutions of a base."""
    component, family = bases.denoiser(base), bases.family(base)
    modules = bases.trainable(base, component)
    if component == "unet":
        numbered = {path: (number,) for number, path in enumerate(modules)}
        paths = list(modules)
        return {name: (Place(component, paths[number]),) for name, (number, *_) in sgm(numbered).items()}
    result: dict[str, list[str]] = {}
    for path, shape in modules.items():
        for name in renamed({path: shape}, ORIGINAL.get(family, ((r"(.*)", r"\1"),))):
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
