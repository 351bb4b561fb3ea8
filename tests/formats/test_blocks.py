"""Strengths per block: which layers a block has, and which vectors are understood."""

from __future__ import annotations

from collections import Counter

import pytest

from loravault.formats.blocks import GROUPS, NAMES, VECTORS, blocks_of, group_of, lengths, read_vector
from loravault.formats.safetensors_header import header_of
from loravault.resources import demo_base
from tests.formats.normal import bases


def found(base: str) -> dict[str, str]:
    component = bases.denoiser(base)
    return blocks_of(component, [module for of, module in bases.layers(base) if of == component])


@pytest.mark.parametrize("base", ["sd15", "sd2", "sdxl", "flux", "chroma", "sd3 3.5-large", "qwen-image", "z-image"])
def test_a_real_base_has_exactly_the_blocks_of_its_family(base: str) -> None:
    assert set(found(base).values()) | {"BASE"} == set(NAMES[base.partition(" ")[0]])


@pytest.mark.parametrize("base", ["sd3 medium", "sd3 3.5-medium", "flux2 klein-4b"])
def test_a_smaller_model_of_a_family_has_no_other_blocks(base: str) -> None:
    assert set(found(base).values()) < set(NAMES[base.partition(" ")[0]])


def test_the_demo_base_has_the_blocks_of_its_table() -> None:
    with open(demo_base() / "unet" / "diffusion_pytorch_model.safetensors", "rb") as file:
        modules = {name.rpartition(".")[0] for name in header_of(file).tensors}
    assert {"BASE", *blocks_of("unet", modules).values()} == set(NAMES["demo"])


def test_lengths_are_those_that_people_paste() -> None:
    found = {family: [len(names) for names in vectors] for family, vectors in VECTORS.items()}
    assert found == {"demo": [10], "sd15": [26, 17], "sd2": [26, 17], "sdxl": [20, 12], "flux": [57], "chroma": [57]}
    assert lengths("flux") == "61 or 57"
    assert lengths("sd3") == ""


def test_every_block_belongs_to_a_group() -> None:
    assert {group_of(block) for names in NAMES.values() for block in names} == set(GROUPS)


def test_blocks_are_those_of_the_original_code() -> None:
    """Counted through all levels, samplers included: the third level of SD 1 begins with the seventh block."""
    sd, sdxl, flux = found("sd15"), found("sdxl"), found("flux")
    assert sd["conv_in"] == "IN00"
    assert sd["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"] == "IN01"
    assert sd["down_blocks.0.downsamplers.0.conv"] == "IN03"
    assert sd["down_blocks.2.resnets.0.conv1"] == "IN07"
    assert sd["mid_block.attentions.0.proj_in"] == "M00"
    assert sd["up_blocks.1.attentions.0.proj_in"] == "OUT03"
    assert "time_embedding.linear_1" not in sd
    assert sdxl["up_blocks.0.attentions.2.proj_in"] == "OUT02"
    assert flux["transformer_blocks.3.attn.to_q"] == "D03"
    assert flux["single_transformer_blocks.37.proj_mlp"] == "S37"
    assert (flux["x_embedder"], flux["norm_out.linear"], flux["proj_out"]) == ("IN", "OUT", "OUT")
    assert blocks_of("text_encoder_2", ["text_projection"]) == {"text_projection": "BASE"}


def test_what_a_short_vector_passes_over_is_off() -> None:
    short = read_vector("sd15", [1.0] * 17)
    attended = Counter(short.values())
    assert attended == {1.0: 17, 0.0: 9}
    assert short["IN00"] == 0.0
    assert read_vector("flux", [0.5] * 57)["S37"] == 0.5


def test_the_vector_of_all_of_flux_begins_with_both_text_encoders_and_ends_behind_the_blocks() -> None:
    numbers = [0.5, 0.5, 0.4, *(n / 100 for n in range(57)), 0.3]
    read = read_vector("flux", numbers)
    assert (read["BASE"], read["IN"], read["D00"], read["D18"], read["S00"], read["S37"], read["OUT"]) == (
        0.5, 0.4, 0.0, 0.18, 0.19, 0.56, 0.3,
    )  # fmt: skip
    with pytest.raises(ValueError, match="must be the same"):
        read_vector("flux", [1.0, 0.5, *numbers[2:]])


@pytest.mark.parametrize(
    ("family", "count", "words"),
    [("sdxl", 17, "sdxl has 20 or 12 strengths per block, not 17"), ("qwen-image", 12, "not known for qwen-image")],
)
def test_another_length_is_refused_in_words(family: str, count: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_vector(family, [1.0] * count)
