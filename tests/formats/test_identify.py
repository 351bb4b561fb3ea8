"""What adapters are, from headers as trainers write them: odd, partial and damaged ones too."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.formats import families
from loravault.formats.families import Identity, from_civitai, identify
from loravault.formats.tensor_table import BrokenFile
from tests.formats import derived
from tests.formats.derived import Layers, Shape, header, lora, peft, subset, tensors


def layers(family: str, variant: str | None = None, spelled: str = "diffusers") -> Layers:
    found = derived.architectures()[family, variant]
    return dict(derived.spellings_of(family, found))[spelled]


def kohya(rows: Layers) -> dict[str, Shape]:
    return tensors(rows, *derived.SPELLINGS["kohya"])


def some(rows: Layers, *words: str) -> Layers:
    return {path: shape for path, shape in rows.items() if any(word in path for word in words)}


def seen(shapes: Mapping[str, Shape], metadata: Mapping[str, str] | None = None, **hints: str) -> Identity:
    return identify(header(shapes, metadata), **hints)  # type: ignore[arg-type]


def refused(shapes: Mapping[str, Shape]) -> str:
    with pytest.raises(BrokenFile) as caught:
        identify(header(shapes))
    return caught.value.message


ATTENTION = kohya(subset("attention", layers("flux", None, "original")))
SLIDER = kohya(some(layers("sdxl", None, "original"), "attn1"))


class TestPartialAdapters:
    def test_sdxl_sliders_of_self_attention_alone_are_known_by_their_depth(self) -> None:
        assert seen(SLIDER).family == "sdxl"

    def test_one_block_is_enough_where_its_shapes_are_nobody_elses(self) -> None:
        rows = some(layers("qwen-image"), "transformer_blocks.30.")
        assert seen(kohya(rows)).family == "qwen-image"

    @pytest.mark.parametrize(("first", "family"), [(0, "qwen-image"), (40, "qwen-image")])
    def test_attention_named_as_in_flux_but_without_single_blocks_is_qwen(self, first: int, family: str) -> None:
        """As in the fixture: an adapter of Flux has its 38 single blocks too."""
        rows = some(layers("qwen-image"), f"transformer_blocks.{first}.attn.to_")
        assert seen(kohya(rows)).family == family

    def test_a_range_of_single_blocks(self) -> None:
        rows = {
            path: shape
            for path, shape in layers("flux", None, "original").items()
            if path.startswith("single_blocks.7")
        }
        assert seen(kohya(rows)).family == "flux"

    def test_ranks_may_vary_and_alphas_be_missing(self) -> None:
        rows = layers("flux", None, "original")
        shapes: dict[str, Shape] = {}
        for number, (path, shape) in enumerate(sorted(rows.items())):
            rank = 32 if number % 3 else 4
            shapes |= tensors({path: shape}, derived.SPELLINGS["comfyui"][0], lambda size, r=rank: peft(size, r))  # type: ignore[misc]
        found = seen(shapes)
        assert (found.rank, found.alpha, sorted(found.ranks)) == (32, None, [4, 32])
        assert sum(found.ranks.values()) == found.modules == len(rows)

    def test_a_text_encoder_alone_leaves_its_families_open(self) -> None:
        clip = derived.clip(768, 12)
        first = tensors(clip, lambda path: "lora_te1_" + path.replace(".", "_"), lora)
        assert seen(first).family == "unknown"
        assert {"sd15", "sdxl", "flux"} <= set(seen(first).possible)
        assert seen(first, {"ss_base_model_version": "flux1"}).family == "flux"
        both = first | tensors(derived.clip(1280, 32), lambda path: "lora_te2_" + path.replace(".", "_"), lora)
        assert set(seen(both).possible) == {"sdxl", "sd3"}
        only = tensors(clip, lambda path: "lora_te_" + path.replace(".", "_"), lora)
        assert (seen(only).family, seen(only).text_encoder) == ("sd15", True)

    def test_the_text_encoder_settles_what_the_unet_leaves_open(self) -> None:
        """Self-attention in the first block is the same in SD 1 and SD 2; their text encoders are not."""
        rows = {path: shape for path, shape in layers("sd15").items() if "down_blocks.0" in path and "attn1" in path}
        assert seen(kohya(rows)).family == "unknown"
        text = tensors(derived.clip(1024, 23), lambda path: "lora_te_" + path.replace(".", "_"), lora)
        assert seen(kohya(rows) | text).family == "sd2"

    def test_animas_text_encoder_is_not_taken_for_that_of_sd2(self) -> None:
        """Qwen3-0.6B is 1024 wide, as OpenCLIP-H is."""
        rows = layers("anima", "2b", "original")
        text = {"lora_te_layers_0_self_attn_q_proj": (2048, 1024), "lora_te_layers_0_mlp_down_proj": (1024, 3072)}
        shapes = kohya(rows) | tensors(dict(text), lambda path: path, lora)
        assert (seen(shapes).family, seen(shapes).variant) == ("anima", "2b")


class TestSpellings:
    def test_onetrainer_keeps_fused_layers_apart(self) -> None:
        names = [f"transformer.double_blocks.{n}.img_attn.qkv.{part}" for n in range(19) for part in range(3)]
        shapes = tensors(dict.fromkeys(names, (3072, 3072)), lambda path: path, lora)
        single = [f"transformer.single_blocks.{n}.linear1.{part}" for n in range(38) for part in range(3)]
        shapes |= tensors(dict.fromkeys(single, (3072, 3072)), lambda path: path, lora)
        assert seen(shapes).family == "flux"

    def test_xlabs(self) -> None:
        shapes: dict[str, Shape] = {}
        for stream in (1, 2):
            for name, out in (("qkv", 9216), ("proj", 3072)):
                stem = f"double_blocks.3.processor.{name}_lora{stream}"
                shapes |= {f"{stem}.down.weight": (16, 3072), f"{stem}.up.weight": (out, 16)}
        found = seen(shapes)
        assert (found.family, found.modules, found.network) == ("flux", 4, "lora")

    def test_old_diffusers_processors(self) -> None:
        stem = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora"
        assert seen({f"{stem}.down.weight": (4, 768), f"{stem}.up.weight": (1280, 4)}).family == "sd15"

    def test_the_adapters_own_name_and_an_unknown_prefix_do_not_matter(self) -> None:
        rows = subset("blocks", layers("wan", "14b", "original"))
        shapes = {
            f"my_trainer.model.{path}.lora_{part}.style one.weight".replace(" ", "-"): size
            for path, shape in rows.items()
            for part, size in (("A", (8, shape[1])), ("B", (shape[0], 8)))
        }
        assert (seen(shapes).family, seen(shapes).variant) == ("wan", "14b")

    def test_the_second_expert_of_wan_in_diffusers_names(self) -> None:
        rows = subset("blocks", layers("wan", "14b"))
        shapes = tensors(rows, lambda path: f"transformer_2.{path}", peft)
        assert seen(shapes).family == "wan"

    def test_what_lies_beside_the_adapter_does_not_matter(self) -> None:
        beside: dict[str, Shape] = {
            "bundle_emb.my_word.clip_l": (2, 768), "bundle_emb.my_word.clip_g": (2, 1280), "__spacer": (4096,),
            "lora_unet_double_blocks_0_img_attn_qkv.scale_weight": (1,),
        }  # fmt: skip
        assert seen(ATTENTION | beside).family == "flux"


class TestWhatIsSaid:
    def test_flux_and_chroma_are_told_apart_by_words_only(self) -> None:
        found = seen(ATTENTION)
        assert (found.family, found.sources["family"]) == ("flux", "shapes")
        assert {"flux", "chroma"} <= set(found.possible)
        for metadata in ({"ss_base_model_version": "chroma"}, {"modelspec.architecture": "Chroma1/lora"}):
            assert seen(ATTENTION, metadata).family == "chroma"
        found = seen(ATTENTION, name="my_chroma_style")
        assert (found.family, found.sources["family"]) == ("chroma", "name")

    def test_a_site_comes_before_metadata_and_metadata_before_names(self) -> None:
        said = {"modelspec.architecture": "chroma/lora"}
        found = identify(header(ATTENTION, said), name="flux", base_models=[("x.civitai.info", "Flux.1 D")])
        assert (found.family, found.variant, found.sources["family"]) == ("flux", "dev", "x.civitai.info")
        assert seen(ATTENTION, said, name="flux").family == "chroma"

    def test_shapes_overrule_a_site_and_a_variant_that_cannot_be(self) -> None:
        shapes = kohya(subset("blocks", layers("wan", "1.3b", "original")))
        found = identify(header(shapes), base_models=[("x.json", "Wan Video 14B t2v")])
        assert (found.family, found.variant, found.sources["variant"]) == ("wan", "1.3b", "shapes")
        found = identify(header(shapes), base_models=[("x.json", "SDXL 1.0")])
        assert found.family == "wan"

    def test_kolors_is_sdxl_until_something_says_otherwise(self) -> None:
        shapes = kohya(subset("blocks", layers("kolors")))
        assert seen(shapes).family == "sdxl"
        assert seen(shapes, folder="Kolors").family == "kolors"

    @pytest.mark.parametrize("name", ["ill will", "illness", "il", "vanilla", "xlr8"])
    def test_short_words_inside_others_mean_nothing(self, name: str) -> None:
        assert seen(SLIDER, name=name).variant is None

    @pytest.mark.parametrize(
        ("name", "variant"),
        [("my device", None), ("dev notes", None), ("flux dev style", "dev"), ("krea look", "krea"),
         ("photo edit", None), ("fill me in", None), ("schnellboot", "schnell")],
    )  # fmt: skip
    def test_words_that_mean_something_else_need_the_family_beside_them(self, name: str, variant: str | None) -> None:
        assert seen(ATTENTION, name=name).variant == variant

    @pytest.mark.parametrize("name", ["hyperrealism", "lightning storm", "turbo car"])
    def test_what_a_picture_shows_is_no_variant_of_sdxl(self, name: str) -> None:
        assert seen(SLIDER, name=name).variant is None
        assert seen(SLIDER, {"ss_sd_model_name": f"{name}.safetensors"}).variant is None

    def test_v_prediction_of_sd2_is_in_the_version(self) -> None:
        shapes = kohya(some(layers("sd2"), "mid_block"))
        assert seen(shapes, {"ss_base_model_version": "sd_v2_v"}).variant == "v-prediction"
        assert seen(shapes, {"modelspec.architecture": "stable-diffusion-v2-768-v/lora"}).variant == "v-prediction"
        assert seen(shapes, {"ss_base_model_version": "sd_v2"}).variant is None

    @pytest.mark.parametrize(
        ("name", "expert"),
        [("smile_high_noise", "high"), ("smile-LOW", "low"), ("highlight", None), ("low_to_high", None),
         ("smileHighNoise", "high")],
    )  # fmt: skip
    def test_the_expert_of_wan_22_is_in_its_name(self, name: str, expert: str | None) -> None:
        assert seen(kohya(subset("blocks", layers("wan", "14b", "original"))), name=name).expert == expert
        assert seen(kohya(subset("blocks", layers("wan", "5b", "original"))), name=name).expert is None

    def test_unknown_names_are_unknown_unless_metadata_knows(self) -> None:
        shapes = kohya({"tower.3.mixer.left": (77, 55), "tower.3.mixer.right": (55, 77)})
        assert seen(shapes, name="flux").family == "unknown"
        found = seen(shapes, {"ss_base_model_version": "krea2"})
        assert (found.family, found.sources["family"]) == ("krea2", "ss_base_model_version")

    def test_known_names_with_widths_of_nobody_are_unknown_whatever_is_said(self) -> None:
        rows = subset("blocks", layers("unknown", "sdxl-refiner", "original"))
        assert seen(kohya(rows), {"ss_base_model_version": "sdxl_base_v1-0"}).family == "unknown"


class TestNetworks:
    def test_a_control_adapter_of_flux_is_said_to_be_one(self) -> None:
        rows = layers("flux", None, "original") | {"img_in": (3072, 128)}
        assert seen(kohya(rows)).network == "control-lora"
        assert seen(kohya(layers("flux2", "dev", "original"))).network == "lora"  # its input is 128 wide anyway

    def test_a_loha_with_magnitudes_stays_a_loha(self) -> None:
        stem = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
        shapes = {f"{stem}.{part}": size for part, size in derived.loha((1280, 768)).items()}
        found = seen({**shapes, f"{stem}.dora_scale": (1280, 1)})
        assert (found.network, found.dora, found.family) == ("loha", True, "sd15")

    def test_diffusers_keeps_alpha_in_its_metadata(self) -> None:
        shapes = tensors(some(layers("sd3", "medium"), "blocks.2."), derived.SPELLINGS["diffusers"][0], peft)
        said = {"lora_adapter_metadata": '{"transformer.r": 16, "transformer.lora_alpha": 8}'}
        found = seen(shapes, said)
        assert (found.alpha, found.sources["alpha"]) == (8.0, "lora_adapter_metadata")
        for bad in ("[]", "{", '{"transformer.lora_alpha": "x"}', '{"transformer.lora_alpha": null}'):
            assert seen(shapes, {"lora_adapter_metadata": bad}).alpha is None


class TestStrangers:
    def test_names_without_end_are_not_remembered(self) -> None:
        """A header may hold twenty thousand names of a kilobyte each; ten of them would fill the memory."""
        from loravault.formats.families import index

        before = len(index._NAMES[0])
        name = "lora_unet_" + "x" * 5000
        index.kinds_of([f"{name}_{number}.lora_down.weight" for number in range(50)])
        assert len(index._NAMES[0]) == before

    def test_a_full_memory_is_emptied_between_two_files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from loravault.formats.families import index

        monkeypatch.setattr(index, "_NAMES", [index._Names()])
        monkeypatch.setattr(index, "_REMEMBERED", 10)
        for _ in range(3):
            assert seen(ATTENTION).family == "flux"
        assert len(index._NAMES[0]) == len(ATTENTION)


class TestNoAdapters:
    @pytest.mark.parametrize("part", ["lora_down.weight", "lora_up.weight"])
    def test_half_a_module_is_damage(self, part: str) -> None:
        """Applied, it would fail in the middle of a picture."""
        shapes = dict(ATTENTION)
        del shapes[f"lora_unet_double_blocks_3_img_attn_qkv.{part}"]
        assert "only one of the two matrices of a LoRA (first: double_blocks_3_img_attn_qkv)" in refused(shapes)

    def test_only_halves(self) -> None:
        shapes = {name: shape for name, shape in ATTENTION.items() if "lora_up" not in name}
        assert "only one of the two matrices" in refused(shapes)

    @pytest.mark.parametrize(
        ("names", "words"),
        [
            (["emb_params"], "it is an embedding"),
            (["clip_l", "clip_g"], "it is an embedding"),
            (["encoder.conv_in.weight", "decoder.conv_in.weight", "quant_conv.weight"], "a VAE"),
            (["first_stage_model.decoder.conv_in.weight"], "a VAE"),
            (["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.x.weight"], "a whole checkpoint"),
            (["double_blocks.0.img_attn.qkv.weight", "double_blocks.0.img_attn.qkv.bias"], "the diffusion model"),
            (["control_model.input_blocks.0.0.weight"], "a ControlNet"),
            (["lora_controlnet", "input_blocks.0.0.weight"], "Control-LoRA"),
            (["text_model.encoder.layers.0.mlp.fc1.weight"], "a text encoder"),
            (["ip_adapter.1.to_k_ip.weight", "image_proj.proj.weight"], "an IP-Adapter"),
            (["model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"], "an upscaler"),
            (["a", "b"], "not a LoRA"),
        ],
    )
    def test_what_it_is_instead_is_said(self, names: list[str], words: str) -> None:
        assert words in refused(dict.fromkeys(names, (4, 8)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SDXL 1.0", ("sdxl", None)), ("pony", ("sdxl", "pony")), ("Flux.2 Klein 9B-base", ("flux2", "klein-9b")),
        ("Wan Video 2.2 TI2V-5B", ("wan", "5b")), ("  Pony  V7 ", ("auraflow", "pony-v7")), ("Other", None), ("", None),
    ],
)  # fmt: skip
def test_what_civitai_calls_base_models(text: str, expected: tuple[str, str | None] | None) -> None:
    assert from_civitai(text) == expected


def test_every_family_that_civitai_names_and_a_table_has_knows_the_variant_too() -> None:
    """A variant by shape that is spelled otherwise in the two places would never be told."""
    from loravault.formats.families.index import FAMILIES
    from loravault.formats.families.told import CIVITAI

    for family, variant in CIVITAI.values():
        table = FAMILIES.get(family)
        if table is None or variant is None:
            continue
        by_shape = {model.variant for model in table.models}
        if None not in by_shape and variant not in ("2.5", "2.7"):
            assert variant in by_shape, (family, variant)


def test_what_has_a_title_is_what_has_a_table() -> None:
    assert {"sd15", "sdxl", "flux", "demo"} <= families.FAMILY_TITLES.keys()


soup = st.one_of(
    st.sampled_from(["lora_unet_", "transformer.", "", "lora_te_", "lycoris_", "base_model.model."]).flatmap(
        lambda prefix: st.sampled_from(
            [
                "double_blocks.0.img_attn.qkv",
                "down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k",
                "x",
                "",
                "layers.3",
            ]
        ).map(lambda path: prefix + path)
    ),
    st.text(max_size=12),
)
parts = st.sampled_from(
    [*derived.lora((1, 1)), *derived.peft_named((1, 1)), *derived.loha_tucker((1, 1, 3, 3)), *derived.lokr((64, 64)),
     *derived.glora((1, 1)), *derived.ia3((1, 1)), *derived.full((1, 1)), "oft_R.weight", "oft_blocks", "dora_scale",
     "lokr_t2", "lora_mid.weight", "w_norm", "b_norm", "", "bias"]
)  # fmt: skip


@given(
    st.dictionaries(
        st.tuples(soup, parts).map(".".join),
        st.lists(st.integers(0, 99), max_size=5).map(tuple),
        min_size=1,
        max_size=9,
    )
)
def test_no_soup_of_names_and_shapes_is_more_than_a_file_that_is_no_adapter(shapes: dict[str, Shape]) -> None:
    with contextlib.suppress(BrokenFile):
        found = identify(header(shapes), name="x", folder="y")
        assert found.family == "unknown" or found.family in families.FAMILY_TITLES


class TestHeights:
    """A stack of blocks that is there from the first to the last says how high it is."""

    ROWS = some(layers("flux"), "attn.to_q")

    def test_nineteen_double_blocks_are_flux_even_without_its_single_blocks(self) -> None:
        double = {path: shape for path, shape in self.ROWS.items() if path.startswith("transformer_blocks")}
        assert set(seen(kohya(double)).possible) == {"flux", "chroma"}
        assert seen(kohya(double)).family == "flux"

    def test_twenty_are_hunyuan_video(self) -> None:
        double = {f"transformer_blocks.{number}.attn.to_q": (3072, 3072) for number in range(20)}
        assert seen(kohya(double)).possible == ("hunyuan-video",)

    def test_a_stack_with_a_hole_says_nothing(self) -> None:
        double = {f"transformer_blocks.{number}.attn.to_q": (3072, 3072) for number in range(19) if number != 7}
        assert "qwen-image" in seen(kohya(double)).possible

    def test_a_height_that_no_model_has_changes_nothing(self) -> None:
        double = {f"transformer_blocks.{number}.attn.to_q": (3072, 3072) for number in range(11)}
        assert {"qwen-image", "flux"} <= set(seen(kohya(double)).possible)
