"""How a tensor name is taken apart; what becomes of whole files is asked in `test_derived.py` and `normal/`."""

from __future__ import annotations

import pytest

from loravault.formats.keys import Key, split_key, split_name


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (
            "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight",
            Key("lora_unet_", "unet", "lora_unet_mid_block_attentions_0_proj_in", "mid_block_attentions_0_proj_in",
                "lora_down"),
        ),
        (
            "base_model.model.transformer.x.to_q.lora_A.style.weight",
            Key("base_model.model.transformer.", "unet", "base_model.model.transformer.x.to_q", "x_to_q", "lora_A"),
        ),
        (
            "unet.x.attn1.processor.to_out_lora.up.weight",
            Key("unet.", "unet", "unet.x.attn1.processor.to_out", "x_attn1_to_out", "lora.up"),
        ),
        (
            "double_blocks.0.processor.qkv_lora2.down.weight",
            Key("", "unet", "double_blocks.0.processor.qkv_lora2", "double_blocks_0_processor_qkv_2", "lora.down"),
        ),
        (
            "single_blocks.0.processor.qkv_lora.up.weight",
            Key("", "unet", "single_blocks.0.processor.qkv", "single_blocks_0_processor_qkv", "lora.up"),
        ),
        (
            "clip_g.text_model.encoder.layers.1.mlp.fc1.alpha",
            Key("clip_g.", "te2", "clip_g.text_model.encoder.layers.1.mlp.fc1", "text_model_encoder_layers_1_mlp_fc1",
                "alpha"),
        ),
        ("img_in.lora_B.bias", Key("", "unet", "img_in", "img_in", "lora_B.bias")),
    ],
)  # fmt: skip
def test_a_name_is_prefix_path_and_part(name: str, key: Key) -> None:
    assert split_name(name) == key
    assert split_key(name) == (key.component, key.path, key.part)


@pytest.mark.parametrize("name", ["", "weight", "lora_unet_x", "bundle_emb.sks.string_to_param.*"])
def test_what_ends_in_no_part_belongs_to_no_module(name: str) -> None:
    assert split_name(name) is None
    assert split_key(name) is None
