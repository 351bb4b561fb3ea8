"""What the normaliser lets through can be applied: the algorithms take every patch it makes, for the layer it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from loravault.formats.normal import BaseNames, Patch, base_names, place
from tests.formats import derived
from tests.formats.normal.test_parts import _IDS, CASES

if TYPE_CHECKING:
    from torch import Tensor

    from loravault.formats.tensor_table import TensorInfo

pytestmark = pytest.mark.engine
Shape = tuple[int, ...]


def one_layer(shape: Shape) -> BaseNames:
    return base_names({("unet", "layer"): shape}, "tiny")


def change(patch: Patch, names: BaseNames) -> Tensor:
    """What a patch of small random numbers does to a random weight."""
    import torch

    from loravault.engine.deltas import read_delta

    generator = torch.Generator().manual_seed(1)

    def read(info: TensorInfo) -> Tensor:
        if not info.shape:  # no alpha, and factors of the outputs
            return torch.zeros((), dtype=torch.float16)
        return (torch.randn(info.shape, generator=generator) / 8).to(torch.float16)

    shape = names.shape(patch.places)
    assert shape is not None
    w0 = torch.randn(shape, generator=generator)
    delta = read_delta(patch, read)
    result = delta.change(w0, 0.5)
    bias = delta.bias(0.5, torch.zeros(shape[0]))
    assert bias is None or bias.shape == (shape[0],)
    return result


@pytest.mark.parametrize(("algorithm", "make", "layer"), CASES, ids=_IDS)
def test_every_algorithm_is_applied_to_the_layer_it_was_placed_in(
    algorithm: str, make: Callable[[Shape], derived.Parts], layer: Shape
) -> None:
    if make.__name__ == "_ia3_input":
        pytest.skip("whether inputs are meant is in the value of `on_input`")
    names = one_layer(layer)
    normal = place(derived.header({f"lora_unet_layer.{part}": shape for part, shape in make(layer).items()}), names)
    (patch,) = normal.patches
    assert normal.unused == ()
    result = change(patch, names)
    assert result.shape == layer
    assert bool(result.any()) or algorithm == "ia3"


@pytest.mark.parametrize("algorithm", derived.ALGORITHMS)
def test_every_algorithm_is_applied_to_a_fused_layer_whose_pieces_the_base_has(algorithm: str) -> None:
    at = "transformer_blocks.0.attn"
    names = base_names({("transformer", f"{at}.to_{name}"): (32, 32) for name in "qkv"}, "flux")
    parts = derived.ALGORITHMS[algorithm]((96, 32))
    shapes = {f"lora_unet_double_blocks_0_img_attn_qkv.{part}": shape for part, shape in parts.items()}
    (patch,) = place(derived.header(shapes), names).patches
    assert len(patch.places) == 3
    assert change(patch, names).shape == (96, 32)


_PARTS = sorted({part for _, make, shape in CASES for part in make(shape)} - {"on_input"})
_SIZES = st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16, 24])


@st.composite
def _nearly(draw: st.DrawFn) -> tuple[Mapping[str, Shape], Shape]:
    """Parts of a real patch, some of them changed, and its layer."""
    _, make, _ = draw(st.sampled_from(CASES))
    layer = draw(st.sampled_from([(16, 8), (8, 16), (16, 16), (16, 8, 3, 3), (24, 8, 1, 1), (16,)]))
    try:
        shapes = make(layer)
    except (ValueError, IndexError):
        shapes = {}
    assume(shapes)
    extra = draw(st.dictionaries(st.sampled_from(_PARTS), st.lists(_SIZES, max_size=4).map(tuple), max_size=2))
    gone = draw(st.sets(st.sampled_from(sorted(shapes)), max_size=1))
    return {part: shape for part, shape in {**shapes, **extra}.items() if part not in gone}, layer


@settings(max_examples=150)
@given(_nearly())
def test_what_passes_the_check_of_shapes_can_be_applied(case: tuple[Mapping[str, Shape], Shape]) -> None:
    """No file that a stranger builds gets past the header and then breaks in the middle of a picture."""
    shapes, layer = case
    names = one_layer(layer)
    normal = place(derived.header({f"lora_unet_layer.{part}": shape for part, shape in shapes.items()}), names)
    for patch in normal.patches:
        assume(patch.algorithm != "ia3")  # its sides are told by a value
        assert change(patch, names).shape == layer
