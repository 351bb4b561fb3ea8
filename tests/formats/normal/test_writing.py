"""kohya's names for every layer, as published; and that the way back finds the layers again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loravault.formats.normal import Place, base_names, kohya_spellings
from tests.formats.normal import bases
from tests.formats.normal.derive import BASES

_HEADERS = Path(__file__).parents[4] / "shared" / "fixtures" / "headers"
#: Base → layers and what kohya's scripts call them.
PUBLISHED = {
    "sd15": {
        "unet/down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q":
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        "unet/up_blocks.1.upsamplers.0.conv": "lora_unet_up_blocks_1_upsamplers_0_conv",
        "text_encoder/encoder.layers.0.self_attn.q_proj": "lora_te_text_model_encoder_layers_0_self_attn_q_proj",
    },
    "sdxl": {
        "unet/down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q":
            "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
        "unet/down_blocks.0.downsamplers.0.conv": "lora_unet_input_blocks_3_0_op",
        "unet/up_blocks.0.upsamplers.0.conv": "lora_unet_output_blocks_2_2_conv",
        "unet/add_embedding.linear_2": "lora_unet_label_emb_0_2",
        "text_encoder/encoder.layers.11.mlp.fc2": "lora_te1_text_model_encoder_layers_11_mlp_fc2",
        "text_encoder_2/text_model.encoder.layers.31.mlp.fc1": "lora_te2_text_model_encoder_layers_31_mlp_fc1",
    },
    "sd3 medium": {
        "transformer/transformer_blocks.0.attn.add_k_proj": "lora_unet_joint_blocks_0_context_block_attn_qkv",
        "transformer/transformer_blocks.23.norm1_context.linear":
            "lora_unet_joint_blocks_23_context_block_adaLN_modulation_1",
    },
    "flux": {
        "transformer/transformer_blocks.18.attn.to_v": "lora_unet_double_blocks_18_img_attn_qkv",
        "transformer/transformer_blocks.0.norm1_context.linear": "lora_unet_double_blocks_0_txt_mod_lin",
        "transformer/single_transformer_blocks.37.proj_mlp": "lora_unet_single_blocks_37_linear1",
        "text_encoder/encoder.layers.0.mlp.fc1": "lora_te1_text_model_encoder_layers_0_mlp_fc1",
    },
    "flux2 klein-4b": {
        "transformer/transformer_blocks.0.attn.add_q_proj": "lora_unet_double_blocks_0_txt_attn_qkv",
    },
    "qwen-image": {
        "transformer/transformer_blocks.0.attn.to_q": "lora_unet_transformer_blocks_0_attn_to_q",
    },
    "z-image": {"transformer/layers.0.attention.to_out.0": "lora_unet_layers_0_attention_to_out_0"},
}  # fmt: skip


@pytest.mark.parametrize("base", PUBLISHED)
def test_published_names(base: str) -> None:
    names = {
        f"{place.component}/{place.module}": one.name
        for one in kohya_spellings(bases.layers(base), bases.family(base))
        for place in one.places
    }
    assert {layer: names.get(layer) for layer in PUBLISHED[base]} == PUBLISHED[base]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("base", BASES)
def test_each_layer_once_and_found_again(base: str, fused: bool) -> None:
    """No two layers have one name, none has two, and the reader finds the very places under every name."""
    layers, family = bases.layers(base), bases.family(base)
    spellings = kohya_spellings(layers, family, fused=fused)
    assert len({one.name for one in spellings}) == len(spellings)
    covered = [(place.component, place.module, place.rows) for one in spellings for place in one.places]
    assert len(set(covered)) == len(covered)
    assert {key[:2] for key in covered} == {key for key, shape in layers.items() if len(shape) > 1}
    names = base_names(layers, family)
    for one in spellings:
        if one.name.startswith(("lora_te3", "lora_text_encoder")):
            continue  # never trained
        component = one.places[0].component
        prefix = next(
            p for p in ("lora_unet_", "lycoris_", "lora_te1_", "lora_te2_", "lora_te_") if one.name.startswith(p)
        )
        assert names.find(component, one.name.removeprefix(prefix)) == one.places, one.name


def test_apart_only_what_others_fuse_is_called_otherwise() -> None:
    """Transformers without fused layers keep their names; a UNet and CLIPs always do."""
    for base in ("sd15", "sdxl", "z-image", "qwen-image"):
        whole, apart = (kohya_spellings(bases.layers(base), bases.family(base), fused=fused) for fused in (True, False))
        assert whole == apart
    apart = kohya_spellings(bases.layers("flux"), "flux", fused=False)
    assert {one.name for one in apart} >= {"lycoris_transformer_blocks_0_attn_to_q", "lycoris_x_embedder"}
    assert all(len(one.places) == 1 for one in apart)


def test_swapped_halves_stay_swapped() -> None:
    """The last modulation of the text in SD 3 has its halves the other way round."""
    spellings = {one.name: one for one in kohya_spellings(bases.layers("sd3 medium"), "sd3")}
    last = spellings["lora_unet_joint_blocks_23_context_block_adaLN_modulation_1"].places
    module = "transformer_blocks.23.norm1_context.linear"
    assert last == (Place("transformer", module, (1536, 3072)), Place("transformer", module, (0, 1536)))


@pytest.mark.skipif(not _HEADERS.is_dir(), reason="no folder of real headers beside this checkout")
@pytest.mark.parametrize("name", ["flux_lora_kohya_format", "flux_lora_kohya_with_te1_format"])
def test_real_files_of_kohya_have_no_other_names(name: str) -> None:
    tensors = json.loads((_HEADERS / f"{name}.json").read_text("utf-8"))
    known = {one.name for one in kohya_spellings(bases.layers("flux"), "flux")}
    assert {tensor.split(".", maxsplit=1)[0] for tensor in tensors} <= known
