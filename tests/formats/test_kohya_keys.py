"""The tables of kohya names: right for SD 1.x by its known numbers, and for the demo base by the file itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loravault.formats import kohya_keys
from loravault.formats.safetensors_header import read_header

DEMO = Path(__file__).parents[2] / "loravault" / "data" / "demo_base"


def sd1() -> dict[str, kohya_keys.Target]:
    return kohya_keys.sd_key_map(
        kohya_keys.unet_modules(kohya_keys.SD1_UNET), kohya_keys.clip_modules(kohya_keys.SD1_TEXT_ENCODER)
    )


def test_kohya_adapts_192_modules_of_sd1s_transformers_and_72_of_its_text_encoder() -> None:
    unet = kohya_keys.unet_modules(kohya_keys.SD1_UNET)
    assert sum(".attentions." in name for name in unet) == 192
    assert len(kohya_keys.clip_modules(kohya_keys.SD1_TEXT_ENCODER)) == 72
    assert len({name for name, shape in unet.items() if "attn2.to_k" in name and shape[1] == 768}) == 16


@pytest.mark.parametrize(
    ("kohya", "component", "module"),
    [
        (
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
            "unet",
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
        ),
        (
            "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj",
            "unet",
            "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
        ),
        ("lora_unet_up_blocks_1_attentions_2_proj_in", "unet", "up_blocks.1.attentions.2.proj_in"),
        ("lora_unet_down_blocks_3_resnets_1_time_emb_proj", "unet", "down_blocks.3.resnets.1.time_emb_proj"),
        ("lora_unet_down_blocks_2_downsamplers_0_conv", "unet", "down_blocks.2.downsamplers.0.conv"),
        (
            "lora_te_text_model_encoder_layers_11_self_attn_out_proj",
            "text_encoder",
            "text_model.encoder.layers.11.self_attn.out_proj",
        ),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1", "text_encoder", "text_model.encoder.layers.0.mlp.fc1"),
    ],
)
def test_names_that_trainers_write_lead_to_the_module(kohya: str, component: str, module: str) -> None:
    assert kohya_keys.module_path(kohya, sd1()) == kohya_keys.Target(component, module)


def test_a_module_the_model_does_not_have_is_none() -> None:
    assert kohya_keys.module_path("lora_unet_input_blocks_4_1_proj_in", sd1()) is None


def test_transformers_5_without_the_text_model_level_still_gets_kohyas_keys() -> None:
    names = kohya_keys.build_text_key_map(["encoder.layers.0.mlp.fc1"])
    assert names["lora_te_text_model_encoder_layers_0_mlp_fc1"] == "encoder.layers.0.mlp.fc1"
    assert names["lora_te1_encoder_layers_0_mlp_fc1"] == "encoder.layers.0.mlp.fc1"


def test_two_modules_with_one_kohya_name_are_refused_not_mixed_up() -> None:
    with pytest.raises(ValueError, match="both called"):
        kohya_keys.build_key_map(["a.b_c", "a_b.c"], "lora_unet")


def test_the_demo_bases_own_file_has_exactly_the_modules_the_table_predicts() -> None:
    """Every 2-D and 4-D weight of the shipped UNet, with its shape, comes out of the generator, and nothing else."""
    config = json.loads((DEMO / "unet" / "config.json").read_text("utf-8"))
    header = read_header(DEMO / "unet" / "diffusion_pytorch_model.safetensors")
    real = {
        name.removesuffix(".weight"): info.shape
        for name, info in header.tensors.items()
        if name.endswith(".weight") and len(info.shape) in (2, 4)
    }
    assert kohya_keys.unet_modules(config) == real


def test_the_demo_bases_text_encoder_has_the_modules_the_table_predicts() -> None:
    config = json.loads((DEMO / "text_encoder" / "config.json").read_text("utf-8"))
    header = read_header(DEMO / "text_encoder" / "model.safetensors")
    real = {
        name.removesuffix(".weight").removeprefix("text_model."): info.shape
        for name, info in header.tensors.items()
        if "encoder.layers" in name and name.endswith(".weight") and len(info.shape) == 2
    }
    predicted = {name.removeprefix("text_model."): shape for name, shape in kohya_keys.clip_modules(config).items()}
    assert predicted == real
