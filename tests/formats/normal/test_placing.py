"""What becomes of the tensors of a file: placed, unused or in a module that does not fit, and each of them once."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.formats.normal import BaseNames, Normal, Place, base_names, place
from loravault.formats.normal.placing import gather
from loravault.formats.safetensors_header import Header
from tests.formats import derived
from tests.formats.normal import bases

REAL = Path(__file__).parents[4] / "shared" / "fixtures" / "headers"
Shape = tuple[int, ...]

SD_ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"


def real(file: str) -> dict[str, Shape]:
    path = REAL / f"{file}.json"
    if not path.exists():
        pytest.skip("the fixtures of real headers are not part of the repository")
    return {name: tuple(shape) for name, shape in json.loads(path.read_text("utf-8")).items()}


@pytest.mark.parametrize(
    ("file", "base"),
    [
        ("flux_lora_aitoolkit_format", "flux"),
        ("flux_lora_diffusers_format", "flux"),
        ("flux_lora_kohya_format", "flux"),
        ("flux_lora_kohya_with_te1_format", "flux"),
        ("qwen_image_lora_diffusers_format", "qwen-image"),
    ],
)
def test_every_tensor_of_a_real_file_has_its_place(file: str, base: str) -> None:
    shapes = real(file)
    normal = bases.placed(shapes, base)
    assert (normal.unused, normal.misfits) == ((), ())
    assert sorted(row[0] for patch in normal.patches for row in patch.parts.values()) == sorted(shapes)


def test_a_control_adapter_fits_the_base_that_reads_a_second_picture_and_only_its_first_layer_no_other() -> None:
    shapes = real("flux_control_lora_format")
    layers = dict(bases.layers("flux"))
    assert bases.placed(shapes, "flux").misfits == ("img_in",)
    layers["transformer", "x_embedder"] = (3072, 128)
    normal = place(derived.header(shapes), base_names(layers, "flux"))
    assert (normal.unused, normal.misfits) == ((), ())
    norms = [patch for patch in normal.patches if patch.algorithm == "full"]
    assert len(norms) == 4 * 19 + 2 * 38
    assert {tuple(patch.parts) for patch in norms} == {("set_weight",)}
    assert {frozenset(patch.parts) for patch in normal.patches if patch.algorithm == "lora"} == {
        frozenset({"lora_down", "lora_up", "lora_up.bias"})
    }


@pytest.mark.parametrize("file", ["anima_lora_kohya_format", "anima_lora_peft_format"])
def test_layers_of_a_made_up_file_that_no_real_model_has_are_told_by_name(file: str) -> None:
    """These two fixtures have all layers of Anima's names, but some in widths that the real ones do not have."""
    normal = bases.placed(real(file), "anima 2b")
    assert normal.unused == ()
    ends = ("cross_attn_k_proj", "cross_attn_v_proj", "adaln_modulation_cross_attn_1")
    assert all(name.replace(".", "_").endswith(ends) for name in normal.misfits)
    assert len(normal.patches) == {"anima_lora_kohya_format": 8, "anima_lora_peft_format": 4}[file]


def test_an_adapter_of_another_family_has_no_place_or_does_not_fit() -> None:
    """Flux and Qwen-Image are equally wide and call their blocks alike: no name of one may be read as the other's."""
    flux = {"lora_unet_double_blocks_0_img_attn_qkv": (9216, 3072), "lora_unet_single_blocks_0_linear2": (3072, 15360)}
    assert bases.placed(derived.tensors(flux, str, derived.lora), "qwen-image").patches == ()
    sd2 = bases.placed(derived.tensors({f"unet.{SD_ATTENTION.replace('attn1', 'attn2')}.to_k": (320, 1024)}, str,
                                       derived.peft), "sd15")  # fmt: skip
    assert (sd2.patches, sd2.unused, len(sd2.misfits)) == ((), (), 1)


def test_a_linear_layer_and_a_convolution_of_one_pixel_are_the_same_thing() -> None:
    """`proj_in` is a convolution in SD 1 and a linear layer in SD 2 and XL; trainers of either kind write either."""
    for base, shape in (("sd15", (320, 320)), ("sd2", (320, 320, 1, 1))):
        name = "lora_unet_down_blocks_0_attentions_0_proj_in"
        assert bases.placed(derived.tensors({name: shape}, str, derived.lora), base).misfits == ()


def test_differences_of_norms_and_biases_have_places_too() -> None:
    shapes = {
        "lora_unet_down_blocks_0_resnets_0_norm1.w_norm": (320,),
        "lora_unet_down_blocks_0_resnets_0_norm1.b_norm": (320,),
        "lora_unet_down_blocks_0_attentions_0_norm.diff": (320,),
        "lora_unet_conv_in.diff_b": (320,),
        "lora_unet_conv_out.lora_down.weight": (4, 320, 3, 3),
        "lora_unet_conv_out.lora_up.weight": (4, 4, 1, 1),
        "lora_unet_conv_out.diff_b": (4,),
        "lora_te_text_model_final_layer_norm.diff_b": (768,),
    }
    normal = bases.placed(shapes, "sd15")
    assert (normal.unused, normal.misfits) == ((), ())
    assert [patch.algorithm for patch in normal.patches] == ["norm", "full", "full", "locon", "full"]


def test_norms_are_found_under_their_original_names() -> None:
    cases = {
        "sdxl": {"input_blocks_1_0_in_layers_0": 320, "output_blocks_8_0_out_layers_0": 320, "out_0": 320,
                 "input_blocks_4_1_norm": 640, "middle_block_1_transformer_blocks_0_norm1": 1280},
        "flux": {"double_blocks_3_txt_attn_norm_key_norm": 128, "single_blocks_3_norm_query_norm": 128},
        "sd3 3.5-medium": {"joint_blocks_3_x_block_attn2_ln_q": 64, "joint_blocks_3_context_block_attn_ln_k": 64},
        "z-image": {"layers_3_attention_q_norm": 128, "layers_3_attention_norm1": 3840},
    }  # fmt: skip
    for base, norms in cases.items():
        normal = bases.placed({f"lora_unet_{name}.w_norm": (size,) for name, size in norms.items()}, base)
        assert (normal.unused, normal.misfits) == ((), ()), base


def test_what_cannot_be_applied_is_counted() -> None:
    shapes = {
        **derived.tensors({f"unet.{SD_ATTENTION}.to_q": (320, 320)}, str, derived.peft),
        "bundle_emb.sks.string_to_param.*": (4, 768),
        "bundle_emb.sks.clip_l": (4, 768),
        f"unet.{SD_ATTENTION}.to_q.scale_weight": (),
        f"unet.{SD_ATTENTION}.to_q.lora_A.bias": (16,),
        f"unet.{SD_ATTENTION}.to_q.weight": (320, 320),
        f"unet.{SD_ATTENTION}.to_k.weight": (320, 320),
        f"unet.{SD_ATTENTION}.to_v.alpha": (),
        "text_encoder.embeddings.token_embedding.lora_embedding_A": (4, 49408),
        "lora_te3_encoder_block_0_layer_0_SelfAttention_q.lora_down.weight": (4, 4096),
    }
    normal = bases.placed(shapes, "sd15")
    placed = [row[0] for patch in normal.patches for row in patch.parts.values()]
    assert placed == [f"unet.{SD_ATTENTION}.to_q.lora_{half}.weight" for half in "AB"]
    assert normal.misfits == ("text_encoder.embeddings.token_embedding",)
    assert set(normal.unused) == set(shapes) - set(placed) - {
        "text_encoder.embeddings.token_embedding.lora_embedding_A"
    }


def test_a_module_with_half_of_its_parts_does_not_fit() -> None:
    for part in ("lora_down.weight", "hada_w1_a", "lokr_w1", "a1.weight", "dora_scale"):
        normal = bases.placed({f"lora_unet_{SD_ATTENTION.replace('.', '_')}_to_q.{part}": (320, 320)}, "sd15")
        assert (len(normal.misfits), normal.patches, normal.unused) == (1, (), ()), part


def test_an_adapter_that_a_file_holds_twice_is_applied_once() -> None:
    """Some Z-Image files hold the fused projection beside its three parts, and one layer under two names."""
    block = "diffusion_model.layers.4.attention"
    apart = {f"{block}.to_{name}": (3840, 3840) for name in "qkv"} | {f"{block}.to_out.0": (3840, 3840)}
    again = {f"{block}.qkv": (11520, 3840), f"{block}.out": (3840, 3840)}
    tensors = derived.tensors(again | apart, str, derived.peft)
    normal = bases.placed(tensors, "z-image")
    assert sorted(bases.where(normal)) == sorted([*apart.keys() - {f"{block}.to_out.0"}, f"{block}.out"])
    assert set(normal.unused) == {
        f"{name}.lora_{half}.weight" for name in (f"{block}.qkv", f"{block}.to_out.0") for half in "AB"
    }


def test_two_spellings_of_one_adapter_in_one_file_count_once() -> None:
    tensors = derived.tensors({f"unet.{SD_ATTENTION}.to_q": (320, 320)}, str, derived.peft)
    tensors |= derived.tensors({f"lora_unet_{SD_ATTENTION.replace('.', '_')}_to_q": (320, 320)}, str, derived.lora)
    normal = bases.placed(tensors, "sd15")
    assert [patch.name for patch in normal.patches] == [f"unet.{SD_ATTENTION}.to_q"]
    assert len(normal.unused) == 3


def test_one_part_under_two_spellings_counts_once() -> None:
    name = f"unet.{SD_ATTENTION}.to_q"
    shapes = derived.tensors({name: (320, 320)}, str, derived.peft) | {f"{name}.lora_down.weight": (4, 320)}
    normal = bases.placed(shapes, "sd15")
    assert normal.unused == (f"{name}.lora_down.weight",)
    assert len(normal.patches) == 1


def test_the_second_expert_of_wan_is_not_the_first() -> None:
    tensors = derived.tensors({f"{name}.blocks.0.attn1.to_q": (64, 64) for name in ("transformer", "transformer_2")},
                              str, derived.peft)  # fmt: skip
    layers = {(name, "blocks.0.attn1.to_q"): (64, 64) for name in ("transformer", "transformer_2")}
    both = place(derived.header(tensors), base_names(layers, "wan"))
    assert [patch.places[0].component for patch in both.patches] == ["transformer", "transformer_2"]
    del layers["transformer_2", "blocks.0.attn1.to_q"]
    one = place(derived.header(tensors), base_names(layers, "wan"))
    assert [patch.name for patch in one.patches] == ["transformer.blocks.0.attn1.to_q"]
    assert len(one.unused) == 2


@pytest.mark.parametrize(
    ("metadata", "alpha"),
    [
        ({}, None),
        ({"unet.lora_alpha": 8}, 8.0),
        ({"lora_alpha": 8}, 8.0),
        ({"text_encoder.lora_alpha": 8}, None),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {f"{SD_ATTENTION}.to_q": 2}}, 2.0),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_q": 2}}, 2.0),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"^" + SD_ATTENTION.replace(".", "\\.") + "\\.to_q": 2}}, 2.0),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"tn1.to_q": 2, "(a+)+$": 3}}, 8.0),
        ({"unet.lora_alpha": 8, "unet.use_rslora": True}, 8.0 * math.sqrt(16)),
        ({"unet.lora_alpha": "8"}, None),
        ({"unet.lora_alpha": True}, None),
        ({"unet.alpha_pattern": ["x"]}, None),
    ],
)
def test_files_without_alpha_tensors_say_it_in_their_metadata(metadata: object, alpha: float | None) -> None:
    """PEFT's configuration, as diffusers keeps it; without it such files came out with a multiple of their effect."""
    shapes = derived.tensors({f"unet.{SD_ATTENTION}.to_q": (320, 320)}, str, derived.peft)
    normal = bases.placed(shapes, "sd15", {"lora_adapter_metadata": json.dumps(metadata)})
    assert normal.patches[0].alpha == (alpha if alpha is None else pytest.approx(alpha))


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, '{"lora_alpha": NaN}', '{"lora_alpha": 1e999}'])
def test_metadata_that_is_nonsense_says_nothing(text: str) -> None:
    shapes = derived.tensors({f"unet.{SD_ATTENTION}.to_q": (320, 320)}, str, derived.peft)
    assert bases.placed(shapes, "sd15", {"lora_adapter_metadata": text}).patches[0].alpha is None


def test_an_alpha_tensor_goes_before_what_the_metadata_says() -> None:
    shapes = derived.tensors({f"unet.{SD_ATTENTION}.to_q": (320, 320)}, str, derived.lora)
    normal = bases.placed(shapes, "sd15", {"lora_adapter_metadata": '{"unet.lora_alpha": 8}'})
    assert normal.patches[0].alpha is None


def test_pefts_magnitudes_of_a_convolution_are_those_of_its_outputs() -> None:
    """It writes (1, out, 1, 1); in LyCORIS' files that shape is one magnitude for each input."""
    name = "unet.down_blocks.1.resnets.0.conv1"
    shapes = derived.tensors({name: (640, 320, 3, 3)}, str, derived.peft)
    peft = bases.placed({**shapes, f"{name}.lora_magnitude_vector.weight": (1, 640, 1, 1)}, "sd15")
    lycoris = bases.placed({**shapes, f"{name}.dora_scale": (1, 640, 1, 1)}, "sd15")
    assert list(peft.patches[0].parts) == ["lora_down", "lora_up", "dora_scale"]
    assert (lycoris.patches, lycoris.misfits) == ((), (name,))


def test_two_files_of_one_base_share_its_names() -> None:
    names = base_names(bases.layers("sd15"), "sd15")
    shapes = derived.tensors({"lora_unet_conv_in": (320, 4, 3, 3)}, str, derived.lora)
    assert place(derived.header(shapes), names) == bases.placed(shapes, "sd15")


_BASES = ("sd15", "sdxl", "sd3 medium", "flux", "flux2 klein-4b", "z-image")
_PREFIXES = ("", "unet.", "lora_unet_", "lora_te_", "lora_te2_", "lora_te3_", "transformer.", "transformer_2.",
             "base_model.model.", "bundle_emb.", "lycoris_", "diffusion_model.")  # fmt: skip
# fmt: off
_ENDS = ("lora_down.weight", "lora_up.weight", "lora_A.x.weight", "lora_B.weight", "lora_B.bias", "alpha", "diff",
         "diff_b", "weight", "scale", "bias", "w_norm", "hada_w1_a", "hada_w1_b", "lokr_w1", "lokr_w2", "on_input",
         "oft_blocks", "dora_scale", "lora2.down.weight", "to_q_lora.up.weight", "lora_mid.weight", "nonsense")
# fmt: on


@cache
def _base_names(base: str) -> BaseNames:
    return base_names(bases.layers(base), bases.family(base))


@cache
def _paths(base: str) -> list[str]:
    return sorted(module for _, module in bases.layers(base))


@st.composite
def _names(draw: st.DrawFn, base: str) -> str:
    path = draw(st.sampled_from(_paths(base)))
    path = draw(st.sampled_from([path, path.replace(".", "_"), "double_blocks.0.img_attn.qkv", "a..b", "", "é\x00"]))
    return (
        draw(st.sampled_from(_PREFIXES)) + path + draw(st.sampled_from([".", "_", ""])) + draw(st.sampled_from(_ENDS))
    )


@st.composite
def _headers(draw: st.DrawFn) -> tuple[str, Header]:
    base = draw(st.sampled_from(_BASES))
    size = st.sampled_from([0, 1, 3, 4, 128, 320, 768, 3072, 9216])
    shapes = draw(st.dictionaries(_names(base), st.lists(size, max_size=4).map(tuple), max_size=12))
    return base, derived.header(shapes)


@given(_headers())
def test_every_tensor_ends_in_exactly_one_place(case: tuple[str, Header]) -> None:
    """Whatever a stranger's file holds: nothing crashes, nothing is lost, nothing is used twice."""
    base, header = case
    normal = place(header, _base_names(base))
    placed = [row[0] for patch in normal.patches for row in patch.parts.values()]
    misfits = _tensors_of_misfits(header, normal)
    assert sorted([*placed, *normal.unused, *misfits]) == sorted(header.tensors)
    assert all(_is_there(one, base) for patch in normal.patches for one in patch.places)


def _tensors_of_misfits(header: Header, normal: Normal) -> list[str]:
    """The tensors of the modules that are named; a name may be that of two modules in two spellings."""
    told = set(normal.unused) | {row[0] for patch in normal.patches for row in patch.parts.values()}
    modules = [module for module in gather(header.tensors)[0] if module.name in normal.misfits]
    return [row[0] for module in modules for row in module.parts.values() if row[0] not in told]


def _is_there(one: Place, base: str) -> bool:
    first, last = one.rows or (0, 1)
    return 0 <= first < last <= bases.layers(base)[one.component, one.module][0]
