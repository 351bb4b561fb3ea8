"""What a trained adapter says about itself: kohya's `ss_*` and ModelSpec's `modelspec.*`, as their readers expect them.

All values are texts, numbers and truths as Python prints them, tables as JSON: that is what sd-scripts write. Names of
files and folders are those of their last part only; no value holds a path. Hashes of the tensors are added when there
are tensors (`safetensors_write.sshs_hashes`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from loravault.formats.header_claims import base_name
from loravault.formats.training import Survey, TrainingPicture, TrainingPlan, TrainingSpec

_LYCORIS = frozenset({"loha", "lokr", "ia3"})
#: Entries that a wish may not set: what they say is measured, or they would make the file unreadable elsewhere.
_OURS = frozenset({"lora_adapter_metadata", "modelspec.hash_sha256", "modelspec.sai_model_spec"})
_FLUX_2 = "https://github.com/black-forest-labs/flux2"


@dataclass(frozen=True)
class _Family:
    """What the trainers call a family."""

    #: `ss_base_model_version`.
    version: str
    #: `modelspec.architecture`, without `/lora`.
    architecture: str
    implementation: str = "diffusers"
    #: `ss_network_module` for a LoRA.
    module: str = "networks.lora"


_FAMILIES: Mapping[str, _Family] = {
    "demo": _Family("loravault_demo_v1", "loravault-demo-v1"),
    "sd15": _Family("sd_v1", "stable-diffusion-v1"),
    "sd2": _Family("sd_v2", "stable-diffusion-v2-512"),
    "sd2 v-prediction": _Family("sd_v2_v", "stable-diffusion-v2-768-v"),
    "sdxl": _Family(
        "sdxl_base_v1-0", "stable-diffusion-xl-v1-base", "https://github.com/Stability-AI/generative-models"
    ),
    "sd3": _Family("medium", "stable-diffusion-3-medium", module="networks.lora_sd3"),
    "sd3 3.5-medium": _Family("5-medium", "stable-diffusion-3-5-medium", module="networks.lora_sd3"),
    "sd3 3.5-large": _Family("5-large", "stable-diffusion-3-5-large", module="networks.lora_sd3"),
    "flux": _Family("flux1", "flux-1-dev", "https://github.com/black-forest-labs/flux", "networks.lora_flux"),
    "flux schnell": _Family(
        "flux1", "flux-1-schnell", "https://github.com/black-forest-labs/flux", "networks.lora_flux"
    ),
    "chroma": _Family("chroma", "chroma", "https://huggingface.co/lodestones/Chroma", "networks.lora_flux"),
    "flux2": _Family("flux_2_dev", "Flux.2-dev", _FLUX_2, "networks.lora_flux_2"),
    "flux2 klein-4b": _Family("flux_2_klein_4b", "Flux.2-klein-4b", _FLUX_2, "networks.lora_flux_2"),
    "flux2 klein-9b": _Family("flux_2_klein_9b", "Flux.2-klein-9b", _FLUX_2, "networks.lora_flux_2"),
    "z-image": _Family("z_image", "Z-Image", "https://github.com/Tongyi-MAI/Z-Image", "networks.lora_zimage"),
    "qwen-image": _Family(
        "qwen_image", "Qwen-Image", "https://github.com/QwenLM/Qwen-Image", "networks.lora_qwen_image"
    ),
}


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """What is known of a training only when it has run."""

    #: Unix times.
    began: float
    ended: float
    #: Steps that are in the weights.
    steps: int
    #: Of this program.
    version: str
    #: `epsilon`, `v` or `flow`.
    prediction: str = "epsilon"
    #: SHA256 of the base's file; None: it is a folder, or was not computed.
    base_sha256: str | None = None
    #: Its short hash of old: 8 digits of SHA256 of the 64 KiB at 1 MiB.
    base_hash: str | None = None
    #: (width, height, pictures) of every bucket.
    buckets: tuple[tuple[int, int, int], ...] = ()
    #: Name of a picture → its caption as it was learned; of the others, as it was written.
    captions: Mapping[str, str] = field(default_factory=dict)


def training_metadata(spec: TrainingSpec, plan: TrainingPlan, survey: Survey, run: TrainingRun) -> dict[str, str]:
    """Everything that is known before the tensors are. The same input gives the same text."""
    pictures = _used(spec, survey)
    said: dict[str, Any] = {
        **_model(spec, run),
        **_network(spec, plan),
        **_loop(spec, plan, run, pictures),
        **_dataset(spec, plan, run, pictures),
        **_modelspec(spec, plan, run),
        "software": json.dumps({"name": "loravault", "version": run.version}),
    }
    wished = {key: value for key, value in spec.metadata if key not in _OURS}
    return {key: str(value) for key, value in said.items()} | wished


def _used(spec: TrainingSpec, survey: Survey) -> list[TrainingPicture]:
    bad = {one.name for one in survey.pictures if one.problem is not None}
    return [one for one in spec.pictures if one.name not in bad]


def _family(spec: TrainingSpec) -> _Family:
    family, variant = spec.base.family, spec.base.variant
    known = _FAMILIES.get(f"{family} {variant}") or _FAMILIES.get(family)
    return known or _Family(family, family)


def _model(spec: TrainingSpec, run: TrainingRun) -> dict[str, Any]:
    said: dict[str, Any] = {
        "ss_base_model_version": _family(spec).version,
        "ss_v2": spec.base.family == "sd2",
        "ss_sd_model_name": base_name(spec.base.path) or spec.base.name,
    }
    if run.base_sha256:
        said["ss_new_sd_model_hash"] = run.base_sha256
    if run.base_hash:
        said["ss_sd_model_hash"] = run.base_hash
    if spec.vae is not None:
        said["ss_vae_name"] = base_name(spec.vae.path) or spec.vae.name
    return said


def _network(spec: TrainingSpec, plan: TrainingPlan) -> dict[str, Any]:
    ranked = plan.algorithm != "ia3"
    # rank-stabilised: what the tensors say
    alpha = plan.alpha * math.sqrt(plan.rank) if plan.rslora else plan.alpha
    arguments = _arguments(plan)
    return {
        "ss_network_module": _module(spec, plan),
        "ss_network_dim": plan.rank if ranked else None,
        "ss_network_alpha": alpha if ranked else None,
        "ss_network_dropout": None,
        "ss_output_name": spec.name,
        **({"ss_network_args": json.dumps(arguments)} if arguments else {}),
    }


def _module(spec: TrainingSpec, plan: TrainingPlan) -> str:
    if plan.algorithm in _LYCORIS or plan.dora:
        return "lycoris.kohya"
    return "networks.dylora" if plan.algorithm == "dylora" else _family(spec).module


def _arguments(plan: TrainingPlan) -> dict[str, str]:
    """As somebody would have typed them."""
    found: dict[str, str] = {}
    if plan.algorithm in _LYCORIS or plan.dora:
        found["algo"] = plan.algorithm if plan.algorithm in _LYCORIS else "locon" if plan.conv_rank else "lora"
    if plan.conv_rank and plan.algorithm != "ia3":
        found |= {"conv_dim": str(plan.conv_rank), "conv_alpha": f"{plan.conv_alpha:g}"}
    if plan.algorithm == "lokr":
        found["factor"] = str(plan.factor)
    if plan.algorithm == "dylora":
        found["unit"] = "1"
    if plan.dora:
        found |= {"dora_wd": "True", "wd_on_output": "False"}
    if plan.rslora:
        found["rs_lora"] = "True"
    return found


def _loop(
    spec: TrainingSpec, plan: TrainingPlan, run: TrainingRun, pictures: Sequence[TrainingPicture]
) -> dict[str, Any]:
    together = plan.batch * plan.accumulation * plan.gpus
    batches = max(1, math.ceil(sum(one.repeats for one in pictures) / (plan.batch * plan.gpus)))
    epochs = max(1, math.ceil(plan.steps * plan.accumulation / batches))
    unet = plan.learning_rate or None
    flow = run.prediction == "flow"
    said: dict[str, Any] = {
        "ss_session_id": plan.seed,
        "ss_training_started_at": run.began,
        "ss_training_finished_at": run.ended,
        "ss_training_comment": f"{spec.subject}, trained by loravault {run.version}",
        "ss_learning_rate": plan.learning_rate,
        "ss_unet_lr": unet,
        "ss_text_encoder_lr": plan.te_rate or None,
        "ss_optimizer": plan.optimizer,
        "ss_lr_scheduler": plan.schedule,
        "ss_lr_warmup_steps": plan.warmup,
        "ss_max_train_steps": plan.steps,
        "ss_steps": run.steps,
        "ss_num_batches_per_epoch": batches,
        "ss_num_epochs": epochs,
        "ss_epoch": max(1, math.ceil(run.steps * plan.accumulation / batches)),
        "ss_batch_size_per_device": plan.batch,
        "ss_total_batch_size": together,
        "ss_gradient_accumulation_steps": plan.accumulation,
        "ss_gradient_checkpointing": plan.checkpointing,
        "ss_mixed_precision": "no" if plan.precision == "fp32" else plan.precision,
        "ss_full_fp16": False,
        "ss_seed": plan.seed,
        "ss_cache_latents": True,
        "ss_lowram": False,
        "ss_clip_skip": None,
        "ss_max_token_length": None,
        "ss_max_grad_norm": plan.clip,
        "ss_loss_type": "l2",
        "ss_prior_loss_weight": plan.prior_weight,
        "ss_caption_dropout_rate": plan.caption_dropout,
        "ss_caption_dropout_every_n_epochs": 0,
        "ss_caption_tag_dropout_rate": 0.0,
        "ss_noise_offset": plan.noise_offset or None,
        "ss_min_snr_gamma": plan.min_snr or None,
        "ss_debiased_estimation": False,
        "ss_zero_terminal_snr": False,
        "ss_ip_noise_gamma": None,
        "ss_multires_noise_iterations": None,
        "ss_adaptive_noise_scale": None,
        "ss_scale_weight_norms": None,
        "ss_face_crop_aug_range": None,
    }
    return said | ({"ss_model_prediction_type": "raw", "ss_guidance_scale": 1.0} if flow else {})


# ---- the pictures


def _dataset(
    spec: TrainingSpec, plan: TrainingPlan, run: TrainingRun, pictures: Sequence[TrainingPicture]
) -> dict[str, Any]:
    own = [one for one in pictures if not one.regularisation]
    other = [one for one in pictures if one.regularisation]
    folders, others = _folders(spec, own), _folders(spec, other)
    tags = {name: _tags(_captions(group, run)) for name, group in {**folders, **others}.items()}
    buckets = {
        "buckets": {
            str(number): {"resolution": [width, height], "count": count}
            for number, (width, height, count) in enumerate(run.buckets)
        }
    }
    said: dict[str, Any] = {
        "ss_num_train_images": sum(one.repeats for one in own),
        "ss_num_reg_images": sum(one.repeats for one in other),
        "ss_num_validation_images": plan.validation,
        "ss_dataset_dirs": json.dumps(_counts(folders)),
        "ss_tag_frequency": json.dumps(tags),
        "ss_validation_seed": plan.seed if plan.validation else None,
        "ss_validation_split": 0.0,
    }
    if len(plan.resolutions) != 1:
        return said | {
            "ss_datasets": json.dumps([_one_dataset(spec, plan, side, folders) for side in plan.resolutions])
        }
    side = plan.resolutions[0]
    return said | {
        "ss_resolution": f"({side}, {side})",
        "ss_reg_dataset_dirs": json.dumps(_counts(others)),
        "ss_bucket_info": json.dumps(buckets),
        "ss_shuffle_caption": plan.shuffle,
        "ss_keep_tokens": plan.keep_tokens,
        "ss_flip_aug": plan.flip,
        "ss_random_crop": plan.crops,
        "ss_color_aug": False,
        "ss_enable_bucket": not plan.crops,
        "ss_bucket_no_upscale": False,
        "ss_min_bucket_reso": None,
        "ss_max_bucket_reso": None,
    }


def _folders(spec: TrainingSpec, pictures: Iterable[TrainingPicture]) -> dict[str, list[TrainingPicture]]:
    """As if they lay in kohya's folders, `10_sks cat`: repeats, then what every picture of the folder shows."""
    found: dict[str, list[TrainingPicture]] = {}
    for one in pictures:
        words = spec.class_word if one.regularisation else " ".join(filter(None, (spec.trigger, spec.class_word)))
        found.setdefault(f"{one.repeats}_{words or base_name(spec.name) or 'pictures'}", []).append(one)
    return found


def _counts(folders: Mapping[str, Sequence[TrainingPicture]]) -> dict[str, dict[str, int]]:
    return {name: {"n_repeats": group[0].repeats, "img_count": len(group)} for name, group in folders.items()}


def _captions(pictures: Iterable[TrainingPicture], run: TrainingRun) -> list[str]:
    return [run.captions.get(one.name, one.caption or "") for one in pictures]


def _tags(captions: Iterable[str]) -> dict[str, int]:
    """How many captions hold each part between commas, in small letters, the commonest first."""
    counts: dict[str, int] = {}
    for caption in captions:
        for part in caption.split(","):
            if tag := part.strip().lower():
                counts[tag] = counts.get(tag, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _one_dataset(
    spec: TrainingSpec, plan: TrainingPlan, side: int, folders: Mapping[str, Sequence[TrainingPicture]]
) -> dict[str, Any]:
    return {
        "is_dreambooth": True,
        "batch_size_per_device": plan.batch,
        "num_train_images": sum(one.repeats for group in folders.values() for one in group),
        "num_reg_images": 0,
        "resolution": [side, side],
        "enable_bucket": not plan.crops,
        "subsets": [
            {
                "image_dir": name,
                "img_count": len(group),
                "num_repeats": group[0].repeats,
                "class_tokens": " ".join(filter(None, (spec.trigger, spec.class_word))) or None,
                "is_reg": False,
                "flip_aug": plan.flip,
                "random_crop": plan.crops,
                "shuffle_caption": plan.shuffle,
                "keep_tokens": plan.keep_tokens,
                "caption_prefix": plan.caption_prefix or None,
            }
            for name, group in folders.items()
        ],
    }


# ---- ModelSpec


def _modelspec(spec: TrainingSpec, plan: TrainingPlan, run: TrainingRun) -> dict[str, Any]:
    family = _family(spec)
    side = max(plan.resolutions, default=512)
    said = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{family.architecture}/lora",
        "modelspec.implementation": family.implementation,
        "modelspec.title": spec.name,
        "modelspec.resolution": f"{side}x{side}",
        "modelspec.date": datetime.fromtimestamp(int(run.ended), UTC).replace(tzinfo=None).isoformat(),
    }
    if run.prediction != "flow":
        said["modelspec.prediction_type"] = run.prediction
    if spec.trigger:
        said["modelspec.trigger_phrase"] = spec.trigger
        said["modelspec.usage_hint"] = f"Write “{spec.trigger}” in the prompt."
    return said
