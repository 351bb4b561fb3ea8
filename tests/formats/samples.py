"""Sidecars and headers in the shape in which other tools write them; every text and number is made up."""

from __future__ import annotations

import json
from typing import Any

SHA256 = "3f4e3918574c51e8a3d742dc40810e30a0b0ac952ad8b21ae59400724abb9fd4"
AUTOV3 = "fdeab9acf371"
BLAKE3 = "9d655e3cdeaef840592b841365a945a3da88eb35562ff17e6b14ec3d47228921"


def version(**more: Any) -> dict[str, Any]:
    """A model version as Civitai's API gives it."""
    return {
        "id": 67890,
        "modelId": 12345,
        "name": "v2 sharp",
        "createdAt": "2026-01-02T03:04:05.678Z",
        "trainedWords": ["sks woman, red dress, hat", "sks woman, school uniform"],
        "baseModel": "Pony",
        "baseModelType": None,
        "description": "<p>Trained longer.<br/>Use <strong>0.8</strong>.</p>",
        "model": {
            "name": "Ink & Outline",
            "type": "LORA",
            "nsfw": False,
            "poi": False,
            "description": "<p>Makes ink drawings.</p><ul><li>lines</li><li>no colour</li></ul>",
            "tags": ["style", "ink", "Style"],
        },
        "files": [
            {
                "id": 1,
                "name": "ink_pruned.safetensors",
                "type": "Pruned Model",
                "hashes": {"SHA256": "A" * 63 + "B", "AutoV3": "AAAAAAAAAAAB"},
            },
            {
                "id": 2,
                "name": "ink.safetensors",
                "type": "Model",
                "primary": True,
                "hashes": {
                    "AutoV1": "31D18FC0", "AutoV2": SHA256[:10].upper(), "SHA256": SHA256.upper(),
                    "AutoV3": AUTOV3.upper(), "BLAKE3": BLAKE3.upper(), "CRC32": "0A7C2D29",
                },
            },
        ],
        "images": [
            {"url": "https://image.example/1.jpeg", "nsfwLevel": 2, "type": "image",
             "meta": {"prompt": "sks woman, red dress,\n<lora:ink:0.8>", "seed": 1}},
            {"url": "https://image.example/2.jpeg", "nsfwLevel": 16, "type": "image", "meta": None},
            {"url": "https://image.example/3.mp4", "nsfwLevel": 1, "type": "video", "meta": {"prompt": "a harbour"}},
        ],
        "stats": {"downloadCount": 10, "rating": 5},
        **more,
    }  # fmt: skip


def a1111() -> dict[str, Any]:
    return {
        "description": "my ink style",
        "sd version": "SDXL",
        "activation text": "sks woman, ink outline",
        "preferred weight": 0.75,
        "negative text": "colour, photo",
        "notes": "best at dusk",
    }


def lora_manager(**more: Any) -> dict[str, Any]:
    fetched = version()
    fetched["model"].update(
        allowNoCredit=False, allowCommercialUse=["Image", "Rent"], allowDerivatives=True, allowDifferentLicense=False
    )
    fetched["creator"] = {"username": "inkmaker", "image": None}
    fetched["customImages"] = [{"url": "", "meta": {"prompt": "my own picture of sks woman"}, "nsfwLevel": 0}]
    return {
        "file_name": "ink",
        "model_name": "Ink & Outline",
        "file_path": "/somewhere/else/ink.safetensors",
        "size": 4096,
        "modified": 1760000000.5,
        "sha256": SHA256,
        "base_model": "Pony",
        "preview_url": "/somewhere/else/ink.webp",
        "preview_nsfw_level": 4,
        "notes": "keep the weight low",
        "from_civitai": True,
        "civitai": fetched,
        "tags": ["ink", "line art"],
        "modelDescription": "<p>Makes ink drawings.</p>",
        "favorite": True,
        "usage_tips": json.dumps({"strength": 0.6, "strength_range": "0.4-0.9", "clip_skip": -2}),
        **more,
    }


def swarm() -> dict[str, Any]:
    return {
        "modelspec.title": "Ink, by hand",
        "modelspec.author": "me",
        "modelspec.trigger_phrase": "sks woman",
        "modelspec.tags": ["ink", "mono"],
        "modelspec.usage_hint": "Weights below one.",
        "modelspec.lora_default_weight": "0.7",
        "modelspec.hash_sha256": "0x" + "c0ffee01" * 8,
        "modelspec.is_negative_embedding": False,
    }


def stability_matrix() -> dict[str, Any]:
    return {
        "ModelId": 12345,
        "ModelName": "Ink & Outline",
        "ModelDescription": "<p>Makes ink drawings.</p>",
        "Nsfw": True,
        "Tags": ["ink"],
        "ModelType": "LORA",
        "VersionId": 67890,
        "VersionName": "v2 sharp",
        "VersionDescription": None,
        "AuthorUsername": "inkmaker",
        "BaseModel": "Pony",
        "FileMetadata": {"fp": "fp16", "size": None, "format": "SafeTensor"},
        "ImportedAt": "2026-02-03T04:05:06+00:00",
        "Hashes": {"SHA256": SHA256.upper(), "CRC32": None, "BLAKE3": BLAKE3.upper()},
        "TrainedWords": ["sks woman", "ink outline"],
        "UserTitle": "Ink for covers",
        "Source": "Civitai",
    }


def rgthree() -> dict[str, Any]:
    return {
        "file": "ink.safetensors",
        "name": "Ink & Outline - v2 sharp",
        "type": "LORA",
        "baseModel": "Pony",
        "trainedWords": [
            {"word": "ink outline", "civitai": True},
            {"word": "sks woman", "user": True},
            {"word": "sofa", "count": 3, "metadata": True},
        ],
        "links": ["https://civitai.com/models/12345?modelVersionId=67890", "javascript:alert(1)"],
        "sha256": SHA256,
        "strengthMin": 0.3,
        "strengthMax": 1.1,
        "userNote": "from rgthree",
        "userTags": ["mine"],
        "raw": {"metadata": {}, "civitai": version()},
    }


NOTE = f"""---
website: Civitai
modelPage: https://civitai.com/models/12345
author: inkmaker
baseModel: Pony
hashes:
  SHA256: {SHA256.upper()}
  AutoV3: {AUTOV3.upper()}
preview:
  - https://image.example/1.jpeg
---

# Trigger Words

sks woman, ink outline

# About this version

No description about this version

# Ink & Outline

Makes ink drawings.
"""

KOHYA = {
    "ss_output_name": "ink",
    "ss_network_module": "lycoris.kohya",
    "ss_network_args": json.dumps({"algo": "lokr", "conv_dim": "4"}),
    "ss_network_dim": "16",
    "ss_network_alpha": "8.0",
    "ss_sd_model_name": "C:\\Users\\somebody\\models\\ponyDiffusionV6XL.safetensors",
    "ss_new_sd_model_hash": "ab" * 32,
    "ss_sd_model_hash": "e577480d",
    "ss_training_started_at": "1760000000.0",
    "ss_training_finished_at": "1760005400.25",
    "ss_epoch": "10",
    "ss_num_epochs": "12",
    "ss_steps": "2000",
    "ss_max_train_steps": "2400",
    "ss_learning_rate": "0.0001",
    "ss_unet_lr": "0.0001",
    "ss_text_encoder_lr": "[5e-05, 5e-05]",
    "ss_optimizer": "bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.1)",
    "ss_lr_scheduler": "cosine",
    "ss_mixed_precision": "bf16",
    "ss_resolution": "(1024, 1024)",
    "ss_total_batch_size": "2",
    "ss_clip_skip": "2",
    "ss_training_comment": "third try",
    "ss_tag_frequency": json.dumps({"10_sks woman": {"sks woman": 42, "1girl": 42, "hat": 12}}),
    "ss_dataset_dirs": json.dumps({"10_sks woman": {"n_repeats": 10, "img_count": 42}}),
    "ss_num_train_images": "420",
    "sshs_model_hash": AUTOV3 + "0" * 52,
    "ss_sd_scripts_commit_hash": "48d368f",
}


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()
