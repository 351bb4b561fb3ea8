"""What a trained file says about itself, as its readers read it: kohya's, ModelSpec's, and our own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.formats.captions import caption_sets
from loravault.formats.families.told import sayings
from loravault.formats.generation import BaseRef, VaeRef
from loravault.formats.header_claims import header_claims
from loravault.formats.training import LookedAt, Survey, TrainingPicture, TrainingSpec
from loravault.formats.training_facts import training_facts
from loravault.formats.training_metadata import TrainingRun, training_metadata
from tests.engine.training.plans import plan

RUN = TrainingRun(began=1_790_000_000.5, ended=1_790_003_600.25, steps=8, version="0.2.0", buckets=((64, 64, 3),))


def spec_of(**changes: Any) -> TrainingSpec:
    pictures = (
        TrainingPicture(path="/home/lovelace/c/one.jpg", name="cats/one.jpg", caption="sks cat, sofa", repeats=10),
        TrainingPicture(
            path="/home/lovelace/c/two.jpg", name="cats/two.jpg", caption="Sks Cat, Window , sofa", repeats=10
        ),
        TrainingPicture(path="/home/lovelace/c/bad.jpg", name="cats/bad.jpg", caption="sks cat, never", repeats=10),
        TrainingPicture(path="/home/lovelace/reg/any.jpg", name="reg/any.jpg", caption="a cat", regularisation=True),
    )
    values: dict[str, Any] = {
        "base": BaseRef(name="dream", path="/home/lovelace/models/dream_v8.safetensors", family="sd15"),
        "name": "my-cat", "trigger": "sks", "class_word": "cat", "pictures": pictures, "state_dir": "/home/lovelace/s",
        "cache_dir": "/home/lovelace/cache", "vae": VaeRef(name="soft", path="C:\\Users\\lovelace\\soft.safetensors"),
    }  # fmt: skip
    return TrainingSpec(**{**values, **changes})


SURVEY = Survey(pictures=(LookedAt(name="cats/one.jpg"), LookedAt(name="cats/bad.jpg", problem="broken")))


def said(*, run: TrainingRun = RUN, spec: TrainingSpec | None = None, **changes: Any) -> dict[str, str]:
    return training_metadata(spec or spec_of(), plan(**changes), SURVEY, run)


def test_what_kohyas_readers_look_for() -> None:
    """Texts as Python prints values; JSON in texts; base names only."""
    found = said(te_rate=0.0, conv_rank=4)
    wanted = {
        "ss_base_model_version": "sd_v1", "ss_v2": "False", "ss_network_module": "networks.lora", "ss_network_dim": "4",
        "ss_network_alpha": "2.0", "ss_output_name": "my-cat", "ss_sd_model_name": "dream_v8.safetensors",
        "ss_vae_name": "soft.safetensors", "ss_network_dropout": "None", "ss_text_encoder_lr": "None",
        "ss_unet_lr": "0.001", "ss_max_train_steps": "10", "ss_steps": "8", "ss_num_train_images": "20",
        "ss_num_reg_images": "1", "ss_resolution": "(64, 64)", "ss_mixed_precision": "no", "ss_seed": "7",
        "ss_network_args": '{"conv_dim": "4", "conv_alpha": "1"}', "ss_min_snr_gamma": "5.0", "ss_noise_offset": "None",
        "ss_training_started_at": "1790000000.5",
    }  # fmt: skip
    assert {key: found[key] for key in wanted} == wanted
    assert json.loads(found["ss_dataset_dirs"]) == {"10_sks cat": {"n_repeats": 10, "img_count": 2}}
    assert json.loads(found["ss_reg_dataset_dirs"]) == {"1_cat": {"n_repeats": 1, "img_count": 1}}
    assert json.loads(found["ss_tag_frequency"])["10_sks cat"] == {"sks cat": 2, "sofa": 2, "window": 1}
    assert json.loads(found["ss_bucket_info"])["buckets"] == {"0": {"resolution": [64, 64], "count": 3}}


def test_modelspec() -> None:
    found = said()
    assert found["modelspec.sai_model_spec"] == "1.0.1"
    assert found["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert found["modelspec.title"] == "my-cat"
    assert found["modelspec.trigger_phrase"] == "sks"
    assert found["modelspec.resolution"] == "64x64"
    assert found["modelspec.prediction_type"] == "epsilon"
    assert found["modelspec.date"] == "2026-09-21T15:13:20"


def test_our_own_library_reads_it() -> None:
    """The card of the new adapter: who trained it, on what, with what; its trigger and its captions."""
    found = said()
    facts = training_facts(found)
    assert facts is not None
    assert (facts.trainer, facts.base_name, facts.rank, facts.alpha) == (
        "loravault 0.2.0",
        "dream_v8.safetensors",
        4,
        2.0,
    )
    assert (facts.steps, facts.seconds, facts.images, facts.repeats) == (8, 3599, 2, 10)
    assert (facts.optimizer, facts.scheduler, facts.resolution) == ("adamw", "constant", "64×64")
    triggers = [one.value for one in header_claims(found) if one.field == "trigger_words"]
    assert triggers[0] == ("sks",)
    assert caption_sets(found)[0].class_words == "sks cat"


@pytest.mark.parametrize(
    ("family", "variant", "module"),
    [
        ("demo", None, "networks.lora"), ("sd15", None, "networks.lora"), ("sd2", None, "networks.lora"),
        ("sd2", "v-prediction", "networks.lora"), ("sdxl", "pony", "networks.lora"),
        ("sd3", "3.5-large", "networks.lora_sd3"), ("flux", "schnell", "networks.lora_flux"),
        ("chroma", None, "networks.lora_flux"), ("flux2", "klein-4b", "networks.lora_flux_2"),
        ("z-image", "turbo", "networks.lora_zimage"), ("qwen-image", None, "networks.lora_qwen_image"),
    ],
)  # fmt: skip
def test_the_family_is_told_so_that_it_is_understood(family: str, variant: str | None, module: str) -> None:
    """Every entry about the base names the family to the reader that identifies strangers' files."""
    base = BaseRef(name="b", path="/models/b", family=family, variant=variant)
    found = said(spec=spec_of(base=base))
    assert found["ss_network_module"] == module
    for entry in ("modelspec.architecture", "ss_base_model_version"):
        statements = [one for one in sayings({entry: found[entry]}) if one.source == entry]
        assert [one.family for one in statements] == [family], found[entry]


@pytest.mark.parametrize(
    ("changes", "module", "arguments"),
    [
        ({"algorithm": "loha", "conv_rank": 2}, "lycoris.kohya", {"algo": "loha", "conv_dim": "2", "conv_alpha": "1"}),
        ({"algorithm": "lokr", "factor": 8}, "lycoris.kohya", {"algo": "lokr", "factor": "8"}),
        ({"algorithm": "ia3"}, "lycoris.kohya", {"algo": "ia3"}),
        ({"algorithm": "dylora"}, "networks.dylora", {"unit": "1"}),
        ({"dora": True}, "lycoris.kohya", {"algo": "lora", "dora_wd": "True", "wd_on_output": "False"}),
        ({"rslora": True}, "networks.lora", {"rs_lora": "True"}),
    ],
)
def test_algorithms(changes: dict[str, Any], module: str, arguments: dict[str, str]) -> None:
    found = said(**changes)
    assert found["ss_network_module"] == module
    assert json.loads(found["ss_network_args"]) == arguments
    if changes.get("rslora"):
        assert found["ss_network_alpha"] == "4.0"


def test_several_resolutions_are_several_datasets() -> None:
    found = said(resolutions=(512, 768))
    assert [one["resolution"] for one in json.loads(found["ss_datasets"])] == [[512, 512], [768, 768]]
    assert found["modelspec.resolution"] == "768x768"
    assert "ss_resolution" not in found
    facts = training_facts(found)
    assert facts is not None
    assert facts.resolution == "512×512, 768×768"


def test_captions_as_they_were_learned() -> None:
    run = TrainingRun(began=0, ended=1, steps=1, version="1", captions={"cats/one.jpg": "sks, on a sofa"})
    tags = json.loads(said(run=run)["ss_tag_frequency"])["10_sks cat"]
    assert tags["on a sofa"] == 1


def test_wishes_go_in_but_not_what_would_break_the_file() -> None:
    """`lora_adapter_metadata` beside alphas makes diffusers refuse the file."""
    wishes = (("modelspec.author", "Ada"), ("lora_adapter_metadata", "{}"), ("modelspec.hash_sha256", "0x0"))
    found = said(spec=spec_of(metadata=wishes))
    assert found["modelspec.author"] == "Ada"
    assert "lora_adapter_metadata" not in found
    assert "modelspec.hash_sha256" not in found


@given(
    folder=st.sampled_from(["/home/lovelace/models", "C:\\Users\\lovelace", "//server/share/lovelace"]),
    name=st.sampled_from(["x.safetensors", "y"]),
)
def test_no_path_of_anybodys_machine(folder: str, name: str) -> None:
    """Not of the base, nor of pictures, caches or state."""
    separator = "\\" if "\\" in folder else "/"
    base = BaseRef(name="b", path=f"{folder}{separator}{name}", family="sd15")
    text = json.dumps(said(spec=spec_of(base=base)))
    assert "lovelace" not in text
    assert json.dumps(name)[1:-1] in text
