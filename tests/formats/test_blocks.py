"""Strengths per block: which layers a block has, and which vectors are understood."""

from __future__ import annotations

from collections import Counter

import pytest

from loravault.formats.blocks import VECTORS, blocks_of, read_vector
from tests.formats.normal import bases


def found(base: str) -> dict[str, str]:
    component = bases.denoiser(base)
    return blocks_of(component, [module for of, module in bases.layers(base) if of == component])


@pytest.mark.parametrize(("base", "family"), [("sd15", "sd15"), ("sdxl", "sdxl"), ("flux", "flux")])
def test_a_real_base_has_exactly_the_blocks_of_its_longest_vector(base: str, family: str) -> None:
    assert set(found(base).values()) | {"BASE"} == {*VECTORS[family][0], "BASE"}


def test_lengths_are_those_that_people_paste() -> None:
    lengths = {family: [len(names) for names in vectors] for family, vectors in VECTORS.items()}
    assert lengths == {"sd15": [26, 17], "sd2": [26, 17], "sdxl": [20, 12], "flux": [57]}


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
    assert "x_embedder" not in flux
    assert blocks_of("text_encoder_2", ["text_projection"]) == {"text_projection": "BASE"}


def test_what_a_short_vector_passes_over_is_off() -> None:
    short = read_vector("sd15", [1.0] * 17)
    attended = Counter(short.values())
    assert attended == {1.0: 17, 0.0: 9}
    assert short["IN00"] == 0.0
    assert read_vector("flux", [0.5] * 57)["S37"] == 0.5


@pytest.mark.parametrize(
    ("family", "count", "words"),
    [("sdxl", 17, "sdxl has 20 or 12 strengths per block, not 17"), ("qwen-image", 12, "not known for qwen-image")],
)
def test_another_length_is_refused_in_words(family: str, count: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_vector(family, [1.0] * count)
