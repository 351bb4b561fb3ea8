"""Every spelling of the keys of every base: each tensor is placed, in the right layer and the right rows."""

from __future__ import annotations

from functools import cache

import pytest

from loravault.formats.normal import BaseNames, Place, base_names, place
from tests.formats import derived
from tests.formats.normal import bases
from tests.formats.normal.derive import BASES
from tests.formats.normal.originals import last_of_the_text, originals

#: Beginnings of names with dots and with underscores, and the parts that go with them.
_DOTTED = {
    "unet.": derived.peft, "transformer.": derived.peft, "diffusion_model.": derived.peft,
    "model.diffusion_model.": derived.lora, "base_model.model.": derived.peft_named,
    "base_model.model.transformer.": derived.peft, "base_model.model.unet.": derived.peft, "": derived.lora,
}  # fmt: skip
_UNDERSCORED = {
    "lora_unet_": derived.lora, "lora_unet__": derived.lora, "lora_transformer_": derived.dora,
    "lycoris_": derived.lokr,
}  # fmt: skip


@cache
def names_of(base: str) -> BaseNames:
    return base_names(bases.layers(base), bases.family(base))


def diffusers_names(base: str) -> dict[str, tuple[Place, ...]]:
    component = bases.denoiser(base)
    return {path: (Place(component, path),) for path in bases.trainable(base, component)}


def _thin(base: str, names: dict[str, tuple[Place, ...]]) -> dict[str, derived.Shape]:
    """Name → shape of the fused weight, for some blocks of each stack."""
    shapes = {}
    for name, places in names.items():
        shape = names_of(base).shape(places)
        assert shape is not None, name
        shapes[name] = shape
    return derived.thinned(shapes)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("naming", [diffusers_names, originals])
def test_every_module_is_found_under_every_spelling_of_its_name(base: str, naming: object) -> None:
    names = diffusers_names(base) if naming is diffusers_names else originals(base)
    shapes = _thin(base, names)
    # a pipeline of diffusers, wrapped as a whole
    pipeline = {f"lycoris_{bases.denoiser(base)}_": derived.loha} if naming is diffusers_names else {}
    for prefix, parts in (_DOTTED | _UNDERSCORED | pipeline).items():
        spelled = {name: prefix + (name if prefix in _DOTTED else name.replace(".", "_")) for name in shapes}
        normal = place(derived.header(derived.tensors(shapes, spelled.__getitem__, parts)), names_of(base))
        assert (normal.unused, normal.misfits) == ((), ()), prefix
        assert bases.where(normal) == {spelled[name]: names[name] for name in shapes}, prefix


@pytest.mark.parametrize("base", BASES)
def test_every_block_has_all_its_names(base: str) -> None:
    names, component = names_of(base), bases.denoiser(base)
    for spelled in (diffusers_names(base), originals(base)):
        found = {name: names.find(component, name.replace(".", "_")) for name in spelled}
        assert found == spelled


@pytest.mark.parametrize("base", BASES)
def test_an_original_name_covers_each_of_its_layers_exactly_once(base: str) -> None:
    """No row is left out or meant twice by the fused layers and swapped halves of a whole model."""
    rows: dict[str, list[tuple[int, int]]] = {}
    shapes = bases.layers(base)
    for places in originals(base).values():
        for one in places:
            rows.setdefault(one.module, []).append(one.rows or (0, shapes[one.component, one.module][0]))
    component = bases.denoiser(base)
    for module, spans in rows.items():
        ends = [0, *(end for _, end in sorted(spans))]
        assert [begin for begin, _ in sorted(spans)] == ends[:-1]
        assert ends[-1] == shapes[component, module][0]


def test_old_diffusers_files_keep_attention_in_processors() -> None:
    path = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    parts = {
        f"unet.{path}.processor.{name}_lora.{half}.weight": (4, 320) if half == "down" else (320, 4)
        for name in ("to_q", "to_k", "to_v", "to_out")
        for half in ("down", "up")
    }
    normal = bases.placed(parts, "sd15")
    assert (normal.unused, normal.misfits) == ((), ())
    assert [patch.places[0].module for patch in normal.patches] == [
        f"{path}.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")
    ]


def test_old_diffusers_files_call_attention_in_text_encoders_as_in_a_unet() -> None:
    layer = "text_encoder.text_model.encoder.layers.3"
    parts = {
        f"{layer}.{name}.{half}.weight": (4, 768) if half == "down" else (768, 4)
        for name in ("self_attn.to_q_lora", "self_attn.to_out_lora", "self_attn.v_proj.lora_linear_layer")
        for half in ("down", "up")
    }
    normal = bases.placed(parts, "sd15")
    assert (normal.unused, normal.misfits) == ((), ())
    assert [one.places[0].module for one in normal.patches] == [
        f"encoder.layers.3.self_attn.{name}" for name in ("q_proj", "out_proj", "v_proj")
    ]


def test_xlabs_processors_are_the_attention_of_the_picture_and_then_of_the_text() -> None:
    sizes = {"double_blocks.4.processor.qkv_lora1": (9216, 3072), "double_blocks.4.processor.qkv_lora2": (9216, 3072),
             "double_blocks.4.processor.proj_lora1": (3072, 3072), "double_blocks.4.processor.proj_lora2": (3072, 3072),
             "single_blocks.7.processor.qkv_lora": (9216, 3072),
             "single_blocks.7.processor.proj_lora": (3072, 15360)}  # fmt: skip
    for prefix in ("", "diffusion_model."):
        parts = {f"{prefix}{name}.down.weight": (16, into) for name, (_, into) in sizes.items()}
        parts |= {f"{prefix}{name}.up.weight": (out, 16) for name, (out, _) in sizes.items()}
        normal = bases.placed(parts, "flux")
        assert (normal.unused, normal.misfits) == ((), ())
        assert [[one.module for one in patch.places] for patch in normal.patches] == [
            [f"transformer_blocks.4.attn.to_{name}" for name in "qkv"],
            [f"transformer_blocks.4.attn.add_{name}_proj" for name in "qkv"],
            ["transformer_blocks.4.attn.to_out.0"],
            ["transformer_blocks.4.attn.to_add_out"],
            [f"single_transformer_blocks.7.attn.to_{name}" for name in "qkv"],
            ["single_transformer_blocks.7.proj_out"],
        ]


def _at(module: str) -> Place:
    return Place("transformer", module)


def test_onetrainers_omi_files_name_encoders_and_the_first_layer_in_their_own_way() -> None:
    cases = {
        "flux": {"clip_l.text_model.encoder.layers.2.mlp.fc1": (3072, 768), "transformer.img_in.proj": (3072, 64),
                 "t5.encoder.block.2.layer.0.SelfAttention.o": (4096, 4096)},
        "sd3 medium": {"clip_g.text_model.encoder.layers.2.mlp.fc1": (5120, 1280),
                       "t5.encoder.block.2.layer.0.SelfAttention.o": (4096, 4096),
                       "transformer.joint_blocks.4.context_block.attn.qkv.2": (1536, 1536)},
        "sdxl": {"clip_l.text_model.encoder.layers.2.mlp.fc1": (3072, 768),
                 "clip_g.text_model.encoder.layers.2.mlp.fc1": (5120, 1280),
                 "unet.input_blocks.3.0.op": (320, 320, 3, 3)},
        "chroma": {"t5.encoder.block.2.layer.0.SelfAttention.o": (4096, 4096)},
    }  # fmt: skip
    for base, shapes in cases.items():
        normal = bases.placed(derived.tensors(shapes, str, derived.lora), base)
        assert (normal.unused, normal.misfits) == ((), ())
        assert len(normal.patches) == len(shapes)


def test_onetrainer_adapts_the_pieces_of_fused_layers_one_by_one() -> None:
    pieces = {"double_blocks.0.txt_attn.qkv.1": (3072, 3072), "single_blocks.0.linear1.3": (12288, 3072)}
    normal = bases.placed(derived.tensors(pieces, lambda path: f"diffusion_model.{path}", derived.lora), "flux")
    assert bases.where(normal) == {
        "diffusion_model.double_blocks.0.txt_attn.qkv.1": (
            Place("transformer", "transformer_blocks.0.attn.add_k_proj"),
        ),
        "diffusion_model.single_blocks.0.linear1.3": (Place("transformer", "single_transformer_blocks.0.proj_mlp"),),
    }


def test_a_layer_that_is_fused_in_the_base_takes_pieces_by_rows() -> None:
    """Flux.2's single blocks keep query, key, value and feed-forward in one layer; the second half of it is gated."""
    at, fused = "transformer.single_transformer_blocks.3", "single_transformer_blocks.3.attn.to_qkv_mlp_proj"
    width = 3072
    pieces = {f"{at}.attn.to_{name}": (width, width) for name in "qkv"} | {f"{at}.proj_mlp": (6 * width, width)}
    normal = bases.placed(derived.tensors(pieces, str, derived.peft), "flux2 klein-4b")
    rows = [(0, width), (width, 2 * width), (2 * width, 3 * width), (3 * width, 9 * width)]
    assert [patch.places for patch in normal.patches] == [(Place("transformer", fused, span),) for span in rows]


def test_a_base_whose_projections_were_fused_takes_adapters_of_either_kind() -> None:
    """diffusers' `fuse_qkv_projections` leaves one layer where there were three."""
    layers = {("transformer", "transformer_blocks.0.attn.to_qkv"): (96, 32)}
    apart = derived.header(derived.tensors({"transformer.transformer_blocks.0.attn.to_k": (32, 32)}, str, derived.peft))
    fused = derived.header(derived.tensors({"double_blocks.0.img_attn.qkv": (96, 32)}, str, derived.lokr))
    names = base_names(layers, "flux")
    assert place(apart, names).patches[0].places == (
        Place("transformer", "transformer_blocks.0.attn.to_qkv", (32, 64)),
    )
    assert place(fused, names).patches[0].places == (Place("transformer", "transformer_blocks.0.attn.to_qkv"),)


def test_the_last_block_of_sd3_is_swapped_and_the_others_are_not() -> None:
    found = names_of("sd3 medium")
    assert last_of_the_text("sd3 medium") == "joint_blocks.23.context_block.adaLN_modulation.1"
    last, before = (found.find("transformer", f"joint_blocks_{n}_context_block_adaLN_modulation_1") for n in (23, 22))
    assert [one.rows for one in last] == [(1536, 3072), (0, 1536)]
    assert [one.rows for one in before] == [None]


@pytest.mark.parametrize(
    ("base", "prefix", "component", "module"),
    [
        ("sd15", "lora_te_text_model_", "text_encoder", "encoder.layers.0.self_attn.q_proj"),
        ("sd15", "lora_te1_", "text_encoder", "encoder.layers.0.self_attn.q_proj"),
        ("sd15", "text_encoder.text_model.", "text_encoder", "encoder.layers.0.self_attn.q_proj"),
        ("sd15", "text_encoder.", "text_encoder", "encoder.layers.0.self_attn.q_proj"),
        ("sdxl", "lora_te1_text_model_", "text_encoder", "encoder.layers.0.self_attn.q_proj"),
        ("sdxl", "lora_te2_text_model_", "text_encoder_2", "text_model.encoder.layers.0.self_attn.q_proj"),
        ("sdxl", "lora_te2_", "text_encoder_2", "text_model.encoder.layers.0.self_attn.q_proj"),
        ("sdxl", "lycoris_text_encoder_2_", "text_encoder_2", "text_model.encoder.layers.0.self_attn.q_proj"),
        ("sdxl", "text_encoder_2.text_model.", "text_encoder_2", "text_model.encoder.layers.0.self_attn.q_proj"),
        ("sdxl", "text_encoders.clip_g.transformer.text_model.", "text_encoder_2",
         "text_model.encoder.layers.0.self_attn.q_proj"),
        ("sd3 medium", "lora_te1_text_model_", "text_encoder", "text_model.encoder.layers.0.self_attn.q_proj"),
        ("sd3 medium", "text_encoders.clip_l.transformer.text_model.", "text_encoder",
         "text_model.encoder.layers.0.self_attn.q_proj"),
        ("flux", "lora_te1_text_model_", "text_encoder", "encoder.layers.0.self_attn.q_proj"),
    ],
)  # fmt: skip
def test_clip_is_found_with_and_without_the_text_model_level(
    base: str, prefix: str, component: str, module: str
) -> None:
    """transformers 5 dropped the level from `CLIPTextModel` and kept it in `CLIPTextModelWithProjection`."""
    path = "encoder.layers.0.self_attn.q_proj"
    name = prefix + (path if prefix.endswith(".") else path.replace(".", "_"))
    width = bases.layers(base)[component, module]
    normal = bases.placed(derived.tensors({name: width}, str, derived.lora), base)
    assert bases.where(normal) == {name: (Place(component, module),)}


@pytest.mark.parametrize(
    ("base", "prefix", "component"),
    [
        ("sd3 medium", "lora_te3_", "text_encoder_3"),
        ("sd3 medium", "text_encoder_3.", "text_encoder_3"),
        ("flux", "lora_te3_", "text_encoder_2"),
        ("flux", "lora_te2_", "text_encoder_2"),
        ("flux", "text_encoders.t5xxl.transformer.", "text_encoder_2"),
        ("chroma", "lora_te3_", "text_encoder"),
        ("chroma", "text_encoder.", "text_encoder"),
    ],
)
def test_t5_is_the_encoder_that_the_family_has_it_as(base: str, prefix: str, component: str) -> None:
    path = "encoder.block.5.layer.1.DenseReluDense.wi_0"
    name = prefix + (path if prefix.endswith(".") else path.replace(".", "_"))
    normal = bases.placed(derived.tensors({name: (10240, 4096)}, str, derived.lora), base)
    assert bases.where(normal) == {name: (Place(component, path),)}


def test_openclip_calls_the_layers_of_a_text_encoder_otherwise_and_fuses_its_attention() -> None:
    names = {"attn_in_proj": (3840, 1280), "attn_out_proj": (1280, 1280), "mlp_c_fc": (5120, 1280)}
    at = "lora_te2_transformer_resblocks_31_"
    shapes = {at + name: shape for name, shape in names.items()}
    normal = bases.placed(derived.tensors(shapes, str, derived.lora), "sdxl")
    layer = "text_model.encoder.layers.31"
    assert [[one.module for one in patch.places] for patch in normal.patches] == [
        [f"{layer}.self_attn.{name}_proj" for name in "qkv"], [f"{layer}.self_attn.out_proj"], [f"{layer}.mlp.fc1"],
    ]  # fmt: skip


def test_a_raw_peft_file_of_a_text_encoder_goes_to_the_encoder_it_fits() -> None:
    name = "base_model.model.text_model.encoder.layers.5.mlp.fc1"
    for size, component, level in ((768, "text_encoder", ""), (1280, "text_encoder_2", "text_model.")):
        normal = bases.placed(derived.tensors({name: (4 * size, size)}, str, derived.peft), "sdxl")
        assert bases.where(normal) == {name: (Place(component, f"{level}encoder.layers.5.mlp.fc1"),)}


def test_a_family_without_a_table_is_found_under_its_own_names() -> None:
    layers = {("transformer", "blocks.0.attn1.to_q"): (64, 64), ("transformer", "blocks.0.attn1.to_out.0"): (64, 64)}
    shapes = {"diffusion_model.blocks.0.attn1.to_q": (64, 64), "diffusion_model.blocks.0.attn1.to_out": (64, 64)}
    normal = place(derived.header(derived.tensors(shapes, str, derived.peft)), base_names(layers, "wan"))
    assert [patch.places[0].module for patch in normal.patches] == ["blocks.0.attn1.to_q", "blocks.0.attn1.to_out.0"]


def test_blocks_of_a_transformer_are_not_transformer_blocks() -> None:
    """Two video models of one width: the path of the other's block is no prefix and a path of this one's."""
    layers = {("transformer", "blocks.0.attn1.to_q"): (64, 64)}
    for name in ("transformer.transformer_blocks.0.attn1.to_q", "lycoris_transformer_blocks_0_attn1_to_q"):
        tensors = derived.tensors({name: (64, 64)}, str, derived.lora)
        assert place(derived.header(tensors), base_names(layers, "wan")).patches == ()


def test_two_layers_that_would_be_called_alike_are_nobodys_name() -> None:
    layers = {("unet", "a.b_c"): (8, 8), ("unet", "a_b.c"): (8, 8), ("unet", "d"): (8, 8)}
    normal = place(
        derived.header(derived.tensors({"lora_unet_a_b_c": (8, 8), "lora_unet_d": (8, 8)}, str, derived.lora)),
        base_names(layers, "sd15"),
    )
    assert list(bases.where(normal)) == ["lora_unet_d"]
    assert len(normal.unused) == 3
