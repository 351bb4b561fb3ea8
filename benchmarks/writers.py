"""What the trainers write into the metadata of an adapter: the same keys, shapes and sizes, with invented contents."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

_WORDS = """
black white red blue green brown blonde grey purple pink orange yellow silver golden dark light
hair eyes dress shirt skirt jacket gloves hat ribbon bow boots shoes socks cape coat scarf necktie belt background \
flowers sky sweater kimono armor feathers wings curtains wallpaper roof car umbrella bag
1girl solo looking_at_viewer smile open_mouth standing sitting outdoors indoors night day cloud tree water window \
portrait upper_body full_body cowboy_shot from_side from_behind from_above blush closed_eyes holding long_sleeves \
short_hair long_hair twintails ponytail bangs jewelry earrings necklace monochrome greyscale sketch traditional \
watercolor film_grain depth_of_field bokeh sunlight shadow rain snow city street forest mountain ocean beach moon
"""
_COLOURS, _THINGS, _PLAIN = (line.split() for line in _WORDS.strip().splitlines())
#: Words of captions, as taggers write them.
TAGS: tuple[str, ...] = tuple(
    dict.fromkeys(
        _PLAIN
        + [f"{colour} {thing}" for colour in _COLOURS for thing in _THINGS]
        + [f"{one} {two}" for one in _PLAIN for two in _THINGS]
    )
)


@dataclass(frozen=True)
class Subject:
    """What an adapter is said to be of."""

    name: str
    trigger: str
    architecture: str
    #: `ss_base_model_version` of the trainer, and the file it was trained on.
    version: str
    checkpoint: str
    #: `modelspec.architecture`.
    spec: str
    rank: int
    alpha: float
    network: str


def kohya(subject: Subject, rng: Random) -> dict[str, str]:
    """sd-scripts and musubi-tuner: sixty entries, hundreds of tags."""
    images, repeats, epochs = rng.randint(12, 400), rng.choice((1, 2, 5, 10)), rng.randint(4, 20)
    folder = f"{repeats}_{subject.trigger}"
    tags = _tag_counts(subject.trigger, images, rng)
    steps = images * repeats * epochs // 2
    started = 1_680_000_000 + rng.randrange(80_000_000) + rng.random()
    metadata = {
        **_SETTINGS,
        "ss_session_id": str(rng.getrandbits(32)),
        "ss_training_started_at": str(started),
        "ss_training_finished_at": str(started + 2.1 * steps),
        "ss_output_name": subject.name,
        "ss_network_module": "lycoris.kohya" if subject.network in ("loha", "lokr", "dora") else "networks.lora",
        "ss_network_dim": str(subject.rank),
        "ss_network_alpha": str(subject.alpha),
        "ss_network_args": json.dumps(_NETWORK_ARGS.get(subject.network, {})),
        "ss_base_model_version": subject.version,
        "ss_sd_model_name": subject.checkpoint,
        "ss_sd_model_hash": f"{rng.getrandbits(32):08x}",
        "ss_new_sd_model_hash": f"{rng.getrandbits(256):064x}",
        "ss_max_train_steps": str(steps),
        "ss_steps": str(steps),
        "ss_epoch": str(epochs),
        "ss_num_epochs": str(epochs),
        "ss_num_train_images": str(images * repeats),
        "ss_num_batches_per_epoch": str(images * repeats // 2),
        "ss_seed": str(rng.getrandbits(31)),
        "ss_dataset_dirs": json.dumps({folder: {"n_repeats": repeats, "img_count": images}}),
        "ss_tag_frequency": json.dumps({folder: tags}),
        "ss_bucket_info": json.dumps(_buckets(images, rng)),
        "sshs_model_hash": f"{rng.getrandbits(256):064x}",
        "sshs_legacy_hash": f"{rng.getrandbits(32):08x}",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{subject.spec}/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": subject.name,
        "modelspec.date": "2024-05-17T21:14:03",
        "modelspec.resolution": "1024x1024",
    }
    if rng.random() < 0.3:  # with a dataset file, the same counts stand in it once more
        metadata["ss_datasets"] = json.dumps([_dataset(folder, images, repeats, tags)])
    return metadata


def kohya_bare(subject: Subject, rng: Random) -> dict[str, str]:  # noqa: ARG001 - one signature for all writers
    """sd-scripts told to keep its metadata to itself: six entries survive."""
    return {
        "ss_v2": "False",
        "ss_base_model_version": subject.version,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(subject.rank),
        "ss_network_alpha": str(subject.alpha),
        "ss_network_args": "{}",
    }


def ai_toolkit(subject: Subject, rng: Random) -> dict[str, str]:
    """ai-toolkit: name, base, step, and the trigger if there is one."""
    return {
        "format": "pt",
        "name": subject.name,
        "version": "1.0",
        "training_info": json.dumps({"step": rng.randint(500, 6000), "epoch": rng.randint(2, 90)}),
        "software": json.dumps(
            {"name": "ai-toolkit", "repo": "https://github.com/ostris/ai-toolkit", "version": "0.7.4"}
        ),
        "ss_base_model_version": subject.version,
        "ss_output_name": subject.name,
        "ss_tag_frequency": json.dumps({f"1_{subject.trigger}": {subject.trigger: 1}}),
        "sshs_model_hash": f"{rng.getrandbits(256):064x}",
    }


def onetrainer(subject: Subject, rng: Random) -> dict[str, str]:
    """OneTrainer: modelspec and its whole configuration."""
    config = {f"setting_{number}": rng.choice(("True", "False", "0.0003", "ADAMW")) for number in range(180)}
    return {
        "ot_branch": "master",
        "ot_revision": f"{rng.getrandbits(160):040x}",
        "ot_config": json.dumps(config),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{subject.spec}/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": subject.name,
        "modelspec.hash_sha256": f"0x{rng.getrandbits(256):064x}",
    }


def diffusers(subject: Subject, rng: Random) -> dict[str, str]:  # noqa: ARG001
    """diffusers: the format, and nothing about the training."""
    return {"format": "pt"}


def nothing(subject: Subject, rng: Random) -> dict[str, str]:  # noqa: ARG001
    """A script that keeps tensors alone."""
    return {}


WRITERS: Mapping[str, Callable[[Subject, Random], dict[str, str]]] = {
    "kohya": kohya,
    "kohya-bare": kohya_bare,
    "ai-toolkit": ai_toolkit,
    "onetrainer": onetrainer,
    "diffusers": diffusers,
    "nothing": nothing,
}


def _tag_counts(trigger: str, images: int, rng: Random) -> dict[str, int]:
    """How many captions hold each tag: the trigger in all, the others ever more seldom."""
    words = rng.sample(TAGS, min(len(TAGS), int(150 * 2 ** rng.uniform(0, 3))))
    return {trigger: images} | {word: max(1, int(images * 0.9 / (1 + rank * 0.2))) for rank, word in enumerate(words)}


def _buckets(images: int, rng: Random) -> dict[str, object]:
    sizes = rng.sample([(1024, 1024), (832, 1216), (1216, 832), (896, 1152), (1152, 896), (768, 1344)], 4)
    buckets = {str(n): {"resolution": list(size), "count": images // 4} for n, size in enumerate(sizes)}
    return {"buckets": buckets, "mean_img_ar_error": rng.random() / 20}


def _dataset(folder: str, images: int, repeats: int, tags: dict[str, int]) -> dict[str, object]:
    subset = {
        "img_count": images, "num_repeats": repeats, "color_aug": False, "flip_aug": False, "random_crop": False,
        "shuffle_caption": True, "keep_tokens": 1, "image_dir": folder, "class_tokens": None, "is_reg": False,
    }  # fmt: skip
    return {
        "is_dreambooth": True, "batch_size_per_device": 2, "num_train_images": images * repeats, "num_reg_images": 0,
        "resolution": [1024, 1024], "enable_bucket": True, "min_bucket_reso": 256, "max_bucket_reso": 2048,
        "tag_frequency": {folder: tags}, "bucket_info": None, "subsets": [subset],
    }  # fmt: skip


_NETWORK_ARGS: Mapping[str, dict[str, str]] = {
    "loha": {"algo": "loha", "conv_dim": "4", "conv_alpha": "1"},
    "lokr": {"algo": "lokr", "factor": "8", "conv_dim": "4", "conv_alpha": "1"},
    "dora": {"algo": "lora", "dora_wd": "True"},
}

#: What every run of sd-scripts says about how it was trained.
_SETTINGS: Mapping[str, str] = {
    "ss_training_comment": "None", "ss_sd_scripts_commit_hash": "e5bab69e3a8f3dd4afbdb2d5a4c7e9b8d0f1a234",
    "ss_learning_rate": "0.0001", "ss_text_encoder_lr": "5e-05", "ss_unet_lr": "0.0001",
    "ss_optimizer": "bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.1)", "ss_lr_scheduler": "cosine_with_restarts",
    "ss_lr_warmup_steps": "100", "ss_gradient_accumulation_steps": "1", "ss_gradient_checkpointing": "True",
    "ss_max_grad_norm": "1.0", "ss_scale_weight_norms": "None", "ss_mixed_precision": "bf16", "ss_full_fp16": "False",
    "ss_fp8_base": "False", "ss_lowram": "False", "ss_cache_latents": "True", "ss_v2": "False", "ss_vae_name": "None",
    "ss_clip_skip": "2", "ss_max_token_length": "225", "ss_noise_offset": "0.0357", "ss_adaptive_noise_scale": "None",
    "ss_multires_noise_iterations": "None", "ss_multires_noise_discount": "0.3", "ss_ip_noise_gamma": "None",
    "ss_min_snr_gamma": "5.0", "ss_zero_terminal_snr": "False", "ss_prior_loss_weight": "1.0",
    "ss_debiased_estimation": "False", "ss_loss_type": "l2", "ss_huber_schedule": "snr", "ss_huber_c": "0.1",
    "ss_face_crop_aug_range": "None", "ss_caption_dropout_rate": "0.0", "ss_caption_dropout_every_n_epochs": "0",
    "ss_caption_tag_dropout_rate": "0.0", "ss_num_reg_images": "0", "ss_network_dropout": "None",
    "ss_reg_dataset_dirs": "{}", "ss_batch_size_per_device": "2", "ss_total_batch_size": "2",
    "ss_resolution": "(1024, 1024)", "ss_color_aug": "False", "ss_flip_aug": "False", "ss_random_crop": "False",
    "ss_shuffle_caption": "True", "ss_keep_tokens": "1", "ss_enable_bucket": "True", "ss_bucket_no_upscale": "True",
    "ss_min_bucket_reso": "256", "ss_max_bucket_reso": "2048",
}  # fmt: skip
