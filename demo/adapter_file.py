"""The adapter as a file: kohya tensors with everything that sd-scripts and ModelSpec would say about them."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from demo.model import IMAGE_SIZE
from demo.recipes import Recipe, training_scenes


def metadata_of(recipe: Recipe, tensors: dict[str, Tensor], base_folder: Path, seconds: float) -> dict[str, str]:
    """The whole header metadata; all values are strings, no value holds a path."""
    body = save(tensors)
    digest = hashlib.sha256(body[8 + int.from_bytes(body[:8], "little") :]).hexdigest()
    unet = base_folder / "unet" / "diffusion_pytorch_model.safetensors"
    about = {
        "ss_new_sd_model_hash": hashlib.sha256(unet.read_bytes()).hexdigest(),
        "sshs_model_hash": digest,
        "modelspec.hash_sha256": f"0x{digest}",
    }
    return {key: str(value) for key, value in {**_training(recipe, seconds), **_modelspec(recipe), **about}.items()}


def _training(recipe: Recipe, seconds: float) -> dict[str, object]:
    finished = datetime.now(UTC).replace(microsecond=0)
    batches = math.ceil(recipe.pictures / recipe.batch)
    epochs = math.ceil(recipe.steps / batches)
    folder = f"1_{recipe.name}"
    return {
        "ss_base_model_version": "loravault_demo_v1",
        "ss_v2": False,
        "ss_sd_model_name": "loravault_demo_v1",
        "ss_output_name": recipe.name,
        "ss_training_comment": recipe.description,
        "ss_training_started_at": (finished - timedelta(seconds=seconds)).timestamp(),
        "ss_training_finished_at": finished.timestamp(),
        "ss_network_module": "networks.lora",
        "ss_network_args": "{}",
        "ss_network_dim": recipe.rank,
        "ss_network_alpha": float(recipe.rank),
        "ss_network_dropout": None,
        "ss_learning_rate": recipe.rate,
        "ss_unet_lr": recipe.rate,
        "ss_text_encoder_lr": recipe.text_rate,
        "ss_optimizer": "torch.optim.AdamW(weight_decay=0.01)",
        "ss_lr_scheduler": "cosine",
        "ss_lr_warmup_steps": int(recipe.steps * 0.05),
        "ss_steps": recipe.steps,
        "ss_max_train_steps": recipe.steps,
        "ss_epoch": epochs,
        "ss_num_epochs": epochs,
        "ss_num_batches_per_epoch": batches,
        "ss_batch_size_per_device": recipe.batch,
        "ss_total_batch_size": recipe.batch,
        "ss_gradient_accumulation_steps": 1,
        "ss_gradient_checkpointing": False,
        "ss_num_train_images": recipe.pictures,
        "ss_num_reg_images": recipe.regular,
        "ss_num_validation_images": 0,
        "ss_dataset_dirs": json.dumps({folder: {"n_repeats": 1, "img_count": recipe.pictures}}),
        "ss_tag_frequency": json.dumps({folder: _tags(recipe)}),
        "ss_resolution": f"({IMAGE_SIZE}, {IMAGE_SIZE})",
        "ss_enable_bucket": False,
        "ss_cache_latents": True,
        "ss_mixed_precision": "bf16",
        "ss_seed": recipe.seed,
        "ss_clip_skip": None,
        "ss_max_token_length": 75,
        "ss_keep_tokens": 0,
        "ss_shuffle_caption": False,
        "ss_caption_dropout_rate": 0.0,
        "ss_flip_aug": False,
        "ss_color_aug": False,
        "ss_random_crop": False,
        "ss_noise_offset": None,
        "ss_zero_terminal_snr": False,
        "ss_min_snr_gamma": 5.0,
        "ss_loss_type": "l2",
    }


def _tags(recipe: Recipe) -> dict[str, int]:
    """How often each comma-separated part of a caption occurs, as sd-scripts counts."""
    counts: dict[str, int] = {}
    for scene in training_scenes(recipe):
        for tag in recipe.caption(scene).split(", "):
            counts[tag] = counts.get(tag, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _modelspec(recipe: Recipe) -> dict[str, object]:
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "loravault-demo-v1/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": recipe.title,
        "modelspec.description": recipe.description,
        "modelspec.author": "loravault",
        "modelspec.date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        "modelspec.license": "MIT",
        "modelspec.resolution": f"{IMAGE_SIZE}x{IMAGE_SIZE}",
        "modelspec.prediction_type": "epsilon",
        "modelspec.trigger_phrase": recipe.trigger,
        "modelspec.usage_hint": f"Write “{recipe.trigger}” in the prompt; weight 0.8 to 1.",
        "modelspec.tags": "style, ink, drawing" if recipe.subject is None else "character, cute",
    }


def write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """The file, after a check for broken numbers; never seen half-written."""
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise SystemExit(f"{path.name}: {len(broken)} tensors are not finite, first {broken[0]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file(tensors, str(temporary), metadata=metadata)
    temporary.chmod(0o644)
    temporary.replace(path)


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of an adapter."""
    return load_file(str(path))
