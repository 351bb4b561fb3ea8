"""Families and network types from real headers (names and shapes only) and from headers written here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loravault.formats import families, keys
from loravault.formats.safetensors_header import Header, read_header, reader
from loravault.formats.tensor_table import BrokenFile, TensorInfo
from tests.formats import headers

REAL = Path(__file__).parents[3] / "shared" / "fixtures" / "headers"


def header(shapes: dict[str, tuple[int, ...]], metadata: dict[str, str] | None = None) -> Header:
    entries, size = headers.table(shapes)
    tensors = {
        name: TensorInfo(row["dtype"], tuple(row["shape"]), tuple(row["data_offsets"])) for name, row in entries.items()
    }
    return Header(metadata or {}, tensors, 100, 108 + size)


@pytest.mark.parametrize(
    ("file", "family"),
    [
        ("anima_lora_kohya_format", "anima"),
        ("anima_lora_peft_format", "anima"),
        ("flux_control_lora_format", "flux"),
        ("flux_lora_aitoolkit_format", "flux"),
        ("flux_lora_diffusers_format", "flux"),
        ("flux_lora_kohya_format", "flux"),
        ("flux_lora_kohya_with_te1_format", "flux"),
        ("qwen_image_lora_diffusers_format", "qwen-image"),
    ],
)
def test_headers_of_real_files_are_recognised_from_shapes_alone(file: str, family: str) -> None:
    path = REAL / f"{file}.json"
    if not path.exists():
        pytest.skip("the fixtures of real headers are not part of the repository")
    shapes = {name: tuple(shape) for name, shape in json.loads(path.read_text("utf-8")).items()}
    found = families.identify(header(shapes))
    network = "control-lora" if "control" in file else "lora"
    assert (found.family, found.sources["family"], found.network) == (family, "shapes", network)


@pytest.mark.parametrize(("width", "family"), [(160, "demo"), (768, "sd15"), (1024, "sd2"), (2048, "sdxl")])
def test_the_cross_attention_width_settles_the_family_of_a_unet(width: int, family: str) -> None:
    assert families.identify(header(headers.lora(width))).family == family


def test_an_unknown_cross_attention_width_is_not_called_by_the_nearest_name() -> None:
    assert families.identify(header(headers.lora(1280), {"ss_base_model_version": "sd_v1"})).family == "unknown"


def test_shapes_overrule_metadata_that_contradicts_them() -> None:
    found = families.identify(header(headers.lora(2048), {"ss_base_model_version": "sd_v1"}))
    assert (found.family, found.sources["family"]) == ("sdxl", "shapes")


def test_metadata_decides_only_between_what_shapes_allow() -> None:
    """Self-attention of width 320 exists in SD 1 and SD 2; a claim of SDXL beside it is not believed."""
    shapes = headers.lora(320, module="attn1_to_q", out=320)
    assert families.identify(header(shapes)).family == "unknown"
    assert families.identify(header(shapes, {"ss_base_model_version": "sd_v2"})).family == "sd2"
    assert families.identify(header(shapes, {"ss_base_model_version": "sdxl_base_v1-0"})).family == "unknown"


def test_a_demo_adapter_without_cross_attention_is_known_by_its_metadata_or_text_encoder() -> None:
    shapes = headers.lora(96, module="attn1_to_q")
    assert families.identify(header(shapes, {"ss_base_model_version": "loravault_demo_v1"})).family == "demo"
    text = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    shapes |= {f"{text}.lora_down.weight": (4, 160), f"{text}.lora_up.weight": (160, 4)}
    assert families.identify(header(shapes)).family == "demo"


@pytest.mark.parametrize(
    ("metadata", "variant"),
    [
        ({"ss_sd_model_name": "ponyDiffusionV6XL_v6.safetensors"}, "pony"),
        ({"ss_sd_model_name": "Illustrious-XL-v0.1.safetensors"}, "illustrious"),
        ({"ss_sd_model_name": "sd_xl_base_1.0.safetensors"}, None),
    ],
)
def test_the_variant_of_sdxl_is_told_by_the_name_of_its_base_or_left_blank(
    metadata: dict[str, str], variant: str | None
) -> None:
    assert families.identify(header(headers.lora(2048), metadata)).variant == variant


M = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"


@pytest.mark.parametrize(
    ("network", "shapes"),
    [
        ("lora", {"lora_down.weight": (4, 768), "lora_up.weight": (320, 4), "alpha": ()}),
        ("lora", {"lora_down.weight": (4, 768, 1, 1), "lora_up.weight": (320, 4, 1, 1)}),
        ("locon", {"lora_down.weight": (4, 768, 3, 3), "lora_up.weight": (320, 4, 1, 1)}),
        ("locon", {"lora_down.weight": (4, 8, 1, 1), "lora_mid.weight": (4, 4, 3, 3), "lora_up.weight": (8, 4, 1, 1)}),
        ("dora", {"lora_down.weight": (4, 768), "lora_up.weight": (320, 4), "dora_scale": (320, 1)}),
        ("loha", {"hada_w1_a": (320, 4), "hada_w1_b": (4, 768), "hada_w2_a": (320, 4), "hada_w2_b": (4, 768)}),
        ("lokr", {"lokr_w1": (16, 16), "lokr_w2_a": (20, 4), "lokr_w2_b": (4, 48)}),
        ("ia3", {"weight": (320,), "on_input": ()}),
        ("glora", {"a1.weight": (4, 768), "a2.weight": (768, 4), "b1.weight": (4, 768), "b2.weight": (320, 4)}),
        ("oft", {"oft_blocks": (8, 40, 40)}),
        ("boft", {"oft_blocks": (3, 8, 40, 40)}),
        ("full", {"diff": (320, 768), "diff_b": (320,)}),
    ],
)  # fmt: skip
def test_the_parts_name_the_network_type(network: str, shapes: dict[str, tuple[int, ...]]) -> None:
    assert families.identify(header({f"{M}.{part}": shape for part, shape in shapes.items()})).network == network


@pytest.mark.parametrize("network", ["loha", "lokr", "full"])
def test_the_family_is_found_through_other_algorithms_too(network: str) -> None:
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "loha": {"hada_w1_a": (320, 4), "hada_w1_b": (4, 768), "hada_w2_a": (320, 4), "hada_w2_b": (4, 768)},
        "lokr": {"lokr_w1": (16, 16), "lokr_w2_a": (20, 4), "lokr_w2_b": (4, 48)},
        "full": {"diff": (320, 768)},
    }
    assert families.identify(header({f"{M}.{part}": shape for part, shape in shapes[network].items()})).family == "sd15"


def test_dylora_leaves_no_trace_in_the_parts_and_is_told_by_metadata() -> None:
    found = families.identify(header(headers.lora(768), {"ss_network_args": '{"algo": "dylora"}'}))
    assert found.network == "dylora"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha", ("te1", "text_model_encoder_layers_0_mlp_fc1", "alpha")),
        ("unet.mid_block.attentions.0.proj_in.lora_A.weight", ("unet", "mid_block_attentions_0_proj_in", "lora_A")),
        ("unet.mid_block.proj_in.lora_A.default.weight", ("unet", "mid_block_proj_in", "lora_A")),
        ("base_model.model.transformer.blocks.0.ff.lora_B.weight", ("unet", "blocks_0_ff", "lora_B")),
        ("unet.mid_block.attn1.processor.to_q_lora.down.weight", ("unet", "mid_block_attn1_to_q", "lora.down")),
        ("double_blocks.0.processor.qkv_lora1.down.weight", ("unet", "double_blocks_0_processor_qkv", "lora.down")),
    ],
)  # fmt: skip
def test_keys_split_into_component_module_and_part(key: str, expected: tuple[str, str, str]) -> None:
    assert keys.split_key(key) == expected


def test_a_whole_model_is_not_an_adapter_even_with_stray_adapter_keys() -> None:
    model = {f"down_blocks.{i}.resnets.0.conv1.weight": (8, 8) for i in range(50)} | headers.lora()
    with pytest.raises(BrokenFile, match="not a LoRA"):
        families.identify(header(model))


def test_a_file_of_nothing_is_not_an_adapter() -> None:
    with pytest.raises(BrokenFile, match="no tensors"):
        families.identify(header({}))


def test_the_rank_is_that_of_most_modules_and_alpha_is_read_from_the_file(tmp_path: Path) -> None:
    shapes = headers.lora(rank=8) | headers.lora(rank=8, module="attn2_to_v") | headers.lora(rank=2, module="proj_in")
    path = headers.write(tmp_path / "a.safetensors", headers.adapter(shapes, fill=0x44))  # F16 0x4444 is 4.265625
    with path.open("rb") as file:
        found = families.identify(read_header(path), reader(file))
    assert (found.rank, found.alpha, found.family) == (8, 4.265625, "demo")


def test_without_an_alpha_tensor_the_metadata_says_it_unless_it_says_nothing() -> None:
    shapes = {name: shape for name, shape in headers.lora().items() if not name.endswith("alpha")}
    assert families.identify(header(shapes, {"ss_network_alpha": "2.0"})).alpha == 2.0
    for text in ("Dynamic", "None", "nan", "inf", ""):
        assert families.identify(header(shapes, {"ss_network_alpha": text})).alpha is None
