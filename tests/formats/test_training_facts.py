"""What headers tell of a training, by whom it was run."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.formats.header_claims import header_claims
from loravault.formats.training_facts import TrainingFacts, training_facts, training_words
from tests.formats import samples


def test_kohya() -> None:
    facts = training_facts(samples.KOHYA)
    assert facts == TrainingFacts(
        trainer="sd-scripts",
        module="lycoris.kohya (lokr)",
        date="2025-10-09",
        seconds=5400,
        images=42,
        repeats=10,
        epochs=10,
        steps=2000,
        batch_size=2,
        learning_rate=1e-4,
        unet_lr=1e-4,
        text_encoder_lr=5e-5,
        optimizer="AdamW8bit",
        scheduler="cosine",
        resolution="1024×1024",
        precision="bf16",
        rank=16,
        alpha=8.0,
        base_name="ponyDiffusionV6XL.safetensors",
        base_hash="ab" * 32,
        comment="third try",
    )
    assert training_words(vars(facts)) == (
        ("trained", "2025-10-09"),
        ("with", "sd-scripts · lycoris.kohya (lokr)"),
        ("on", "ponyDiffusionV6XL.safetensors"),
        ("pictures", "42 × 10"),
        ("length", "2,000 steps · 10 epochs · batch 2 · 1 h 30 min"),
        ("learning rate", "0.0001, text encoder 5e-05"),
        ("optimizer", "AdamW8bit · cosine · bf16"),
        ("resolution", "1024×1024"),
        ("comment", "third try"),
    )


@pytest.mark.parametrize(
    ("metadata", "known"),
    [
        ({"software": '{"name": "ai-toolkit", "version": "0.5.1"}', "training_info": '{"step": 1500, "epoch": 30}'},
         {"trainer": "ai-toolkit 0.5.1", "steps": 1500, "epochs": 30}),
        ({"ot_branch": "master", "ot_config": json.dumps({
            "epochs": 40, "batch_size": 4, "learning_rate": 0.0003, "resolution": "512", "lora_rank": 16,
            "optimizer": {"optimizer": "ADAMW"}, "base_model_name": "/home/x/models/sd15.safetensors"})},
         {"trainer": "OneTrainer", "epochs": 40, "batch_size": 4, "learning_rate": 0.0003, "resolution": "512×512",
          "rank": 16, "optimizer": "ADAMW", "base_name": "sd15.safetensors"}),
        ({"modelspec.comment": "Trained with SimpleTuner", "modelspec.date": "2026-03-04T05:06:07"},
         {"trainer": "SimpleTuner", "date": "2026-03-04"}),
        ({"format": "pt", "lora_adapter_metadata": '{"text_encoder.r": 4, "transformer.r": 16, '
          '"transformer.lora_alpha": 32}'}, {"trainer": "diffusers", "rank": 16, "alpha": 32.0}),
        ({"ss_num_train_items": "9", "ss_network_dim": "Dynamic", "ss_network_alpha": "None"},
         {"trainer": "musubi-tuner"}),
        ({"ss_network_module": "networks.lora", "ss_datasets":
          '[{"resolution": [768, 768], "batch_size_per_device": 3}]'},
         {"trainer": "sd-scripts", "module": "networks.lora", "resolution": "768×768", "batch_size": 3}),
        ({"ss_sd_model_name": "some-org/some-model"}, {"base_name": "some-org/some-model"}),
        ({"ss_training_finished_at": "1e300", "ss_steps": "nan", "ss_learning_rate": "inf", "ss_resolution": ""}, None),
        ({"format": "pt"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_other_trainers(metadata: dict[str, str], known: dict[str, object] | None) -> None:
    assert training_facts(metadata) == (TrainingFacts(**known) if known is not None else None)  # type: ignore[arg-type]


@given(
    st.dictionaries(
        st.sampled_from(
            [
                *samples.KOHYA,
                "ot_config",
                "software",
                "training_info",
                "ss_datasets",
                "lora_adapter_metadata",
                "modelspec.date",
                "modelspec.tags",
                "ssmd_rating",
                "ssmd_cover_images",
            ]
        ),
        st.text(max_size=20)
        | st.sampled_from(["{}", "[]", "[{}]", '{"r": [1]}', "None", "1e999", '[{"subsets": [1]}]']),
    )
)
def test_no_metadata_raises(metadata: dict[str, str]) -> None:
    facts = training_facts(metadata)
    if facts is not None:
        assert all(text for _, text in training_words(vars(facts)))
    header_claims(metadata)


def told(metadata: dict[str, str]) -> dict[str, tuple[object, str]]:
    found: dict[str, tuple[object, str]] = {}
    for claim in header_claims(metadata):
        found.setdefault(claim.field, (claim.value, claim.source))
    return found


def test_what_a_header_declares_and_where() -> None:
    picture = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4"
    found = told({
        "modelspec.title": "Ink", "modelspec.author": "me", "modelspec.description": "<p>Lines.</p>",
        "modelspec.usage_hint": "Below one.", "modelspec.trigger_phrase": "sks, ink", "modelspec.tags": "a, b",
        "modelspec.license": "CC0", "modelspec.hash_sha256": "0x" + "c0" * 32, "modelspec.thumbnail": picture,
        "modelspec.encoder_layer": "2", "modelspec.lora_default_weight": "0.7",
    })  # fmt: skip
    assert found == {
        "title": ("Ink", "modelspec.title"),
        "author": ("me", "modelspec.author"),
        "description": ("Lines.\n\nBelow one.", "modelspec.description"),
        "trigger_words": (("sks", "ink"), "modelspec.trigger_phrase"),
        "weight": (0.7, "modelspec.lora_default_weight"),
        "topics": (("a", "b"), "modelspec.tags"),
        "license": ("CC0", "modelspec.license"),
        "clip_skip": (2, "modelspec.encoder_layer"),
        "hashes": ((("autov3", "c0" * 32),), "modelspec.hash_sha256"),
        "embedded_preview": ("modelspec.thumbnail", "modelspec.thumbnail"),
    }


def test_the_editor_of_additional_networks() -> None:
    found = told({
        "ssmd_display_name": "Ink", "ssmd_version": "2", "ssmd_keywords": "sks", "ssmd_rating": "4",
        "ssmd_source": "https://example.org/ink", "ssmd_tags": "a,b", "ssmd_author": "", "ssmd_description": "None",
    })  # fmt: skip
    assert {name: value for name, (value, _) in found.items()} == {
        "title": "Ink", "version": "2", "trigger_words": ("sks",), "rating": 4, "urls": ("https://example.org/ink",),
        "topics": ("a", "b"),
    }  # fmt: skip
    assert told({"ssmd_rating": "0"}) == {}


def test_a_title_that_the_trainer_made_up_is_none() -> None:
    assert told({"modelspec.title": "LoRA@1700000000.25"}) == {}


def test_a_hash_in_another_order_is_not_believed() -> None:
    """OneTrainer hashes the tensors sorted by name: that is no AutoV3."""
    assert "hashes" not in told({"modelspec.hash_sha256": "0x" + "c0" * 32, "ot_branch": "master"})


def test_only_ai_toolkits_name_is_a_title() -> None:
    assert told({"name": "my job", "software": '{"name": "ai-toolkit"}'}) == {"title": ("my job", "name")}
    assert told({"name": "anything"}) == {}
