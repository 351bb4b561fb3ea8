"""How an adapter was trained, as far as its header tells, in values and in words.

Read from kohya's `ss_*` (also musubi-tuner and everything built on sd-scripts), ai-toolkit, OneTrainer, SimpleTuner and
the PEFT configuration that diffusers writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from loravault.formats import plain
from loravault.formats.captions import CaptionSet, caption_sets
from loravault.formats.header_claims import base_name

_EARLIEST = datetime(2015, 1, 1, tzinfo=UTC).timestamp()
_LATEST = datetime(2100, 1, 1, tzinfo=UTC).timestamp()
_MAX_COMMENT = 500


@dataclass(frozen=True)
class TrainingFacts:
    """What is known of a training; everything else is None."""

    #: `sd-scripts`, `musubi-tuner`, `ai-toolkit 0.5.1`, `OneTrainer`, `SimpleTuner`, `diffusers`.
    trainer: str | None = None
    #: `networks.lora`, `lycoris.kohya (lokr)`.
    module: str | None = None
    #: Day it ended (or began), ISO, in UTC.
    date: str | None = None
    #: Seconds between its beginning and its end.
    seconds: int | None = None
    #: Different pictures.
    images: int | None = None
    #: How often each was shown per epoch, if that is one number for all folders.
    repeats: int | None = None
    epochs: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    unet_lr: float | None = None
    text_encoder_lr: float | None = None
    optimizer: str | None = None
    scheduler: str | None = None
    #: `512×768`.
    resolution: str | None = None
    #: `bf16`, `fp16`.
    precision: str | None = None
    rank: int | None = None
    alpha: float | None = None
    #: The base model's name and hash (SHA256, else the short one of old).
    base_name: str | None = None
    base_hash: str | None = None
    comment: str | None = None


def training_facts(metadata: Mapping[str, str], sets: tuple[CaptionSet, ...] | None = None) -> TrainingFacts | None:
    """Everything known of the training; None if that is nothing. `sets`: the captions, if they were read already."""
    sets = caption_sets(metadata) if sets is None else sets
    found = _kohya(metadata, sets)
    for more in (_ai_toolkit(metadata), _one_trainer(metadata), _peft(metadata)):
        found.update({key: value for key, value in more.items() if found.get(key) is None})
    found["trainer"] = _trainer(metadata)
    if found.get("date") is None:
        found["date"] = _iso_day(metadata.get("modelspec.date"))
    known = {key: value for key, value in found.items() if value is not None}
    return TrainingFacts(**known) if known else None


def _trainer(metadata: Mapping[str, str]) -> str | None:
    software = plain.table(plain.json_in(metadata.get("software")))
    if name := plain.one_line(software.get("name"), 60):
        return " ".join(part for part in (name, plain.one_line(software.get("version"), 30)) if part)
    if metadata.keys() & {"ot_branch", "ot_revision", "ot_config"}:
        return "OneTrainer"
    if "simpletuner" in (metadata.get("modelspec.comment", "") + metadata.get("modelspec.description", "")).casefold():
        return "SimpleTuner"
    if "ss_num_train_items" in metadata or "ss_fp8_llm" in metadata:
        return "musubi-tuner"
    if metadata.keys() & {"ss_sd_scripts_commit_hash", "ss_session_id", "ss_network_module"}:
        return "sd-scripts"
    return "diffusers" if "lora_adapter_metadata" in metadata else None


def _kohya(metadata: Mapping[str, str], sets: tuple[CaptionSet, ...]) -> dict[str, Any]:
    get = metadata.get
    began, ended = _time(get("ss_training_started_at")), _time(get("ss_training_finished_at"))
    repeats = {one.repeats for one in sets}
    counted = [one.images for one in sets]
    seconds = int(ended - began) if began and ended and 0 < ended - began < 1e8 else None
    return {
        "module": _module(metadata),
        "date": _day(ended or began),
        "seconds": seconds,
        "images": sum(count for count in counted if count) if counted and all(counted) else None,
        "repeats": repeats.pop() if len(repeats) == 1 else None,
        "epochs": _first_whole(get("ss_epoch"), get("ss_num_epochs")),
        "steps": _first_whole(get("ss_steps"), get("ss_max_train_steps")),
        "batch_size": _first_whole(
            get("ss_total_batch_size"), get("ss_batch_size_per_device"), _config_batch(metadata)
        ),
        "learning_rate": _rate(get("ss_learning_rate")),
        "unet_lr": _rate(get("ss_unet_lr")),
        "text_encoder_lr": _rate(get("ss_text_encoder_lr")),
        "optimizer": _optimizer(get("ss_optimizer")),
        "scheduler": plain.one_line(get("ss_lr_scheduler"), 60),
        "resolution": _resolution(get("ss_resolution")) or _config_resolution(metadata),
        "precision": plain.one_line(_not_no(get("ss_mixed_precision")), 20),
        "rank": plain.whole(get("ss_network_dim"), 1, 2**20),
        "alpha": plain.number(get("ss_network_alpha"), 0, 2**20),
        "base_name": plain.one_line(base_name(get("ss_sd_model_name"))),
        "base_hash": _hash(get("ss_new_sd_model_hash")) or _hash(get("ss_sd_model_hash")),
        "comment": plain.cut_line(get("ss_training_comment"), _MAX_COMMENT),
    }


def _module(metadata: Mapping[str, str]) -> str | None:
    module = plain.one_line(metadata.get("ss_network_module"), 80)
    algorithm = plain.one_line(plain.table(plain.json_in(metadata.get("ss_network_args"))).get("algo"), 30)
    return f"{module} ({algorithm})" if module and algorithm else module


def _ai_toolkit(metadata: Mapping[str, str]) -> dict[str, Any]:
    info = plain.table(plain.json_in(metadata.get("training_info")))
    return {"steps": plain.whole(info.get("step"), 1), "epochs": plain.whole(info.get("epoch"), 1)}


def _one_trainer(metadata: Mapping[str, str]) -> dict[str, Any]:
    config = plain.table(plain.json_in(metadata.get("ot_config")))
    optimizer, base = config.get("optimizer"), config.get("base_model_name")
    if isinstance(optimizer, dict):
        optimizer = optimizer.get("optimizer")
    return {
        "epochs": plain.whole(config.get("epochs"), 1),
        "batch_size": plain.whole(config.get("batch_size"), 1),
        "learning_rate": _rate(config.get("learning_rate")),
        "optimizer": plain.one_line(optimizer, 60),
        "scheduler": plain.one_line(config.get("learning_rate_scheduler"), 60),
        "resolution": _resolution(config.get("resolution")),
        "rank": plain.whole(config.get("lora_rank"), 1, 2**20),
        "alpha": plain.number(config.get("lora_alpha"), 0, 2**20),
        "base_name": base_name(base if isinstance(base, str) else None),
    }


def _peft(metadata: Mapping[str, str]) -> dict[str, Any]:
    """diffusers' `lora_adapter_metadata`: `{"transformer.r": 16, "transformer.lora_alpha": 32, …}`."""
    config = plain.table(plain.json_in(metadata.get("lora_adapter_metadata")))
    # The denoiser's numbers before those of text encoders.
    keys = sorted(config, key=lambda key: (key.startswith("text_encoder"), key))
    return {
        "rank": next((plain.whole(config[key], 1, 2**20) for key in keys if key.endswith(".r") or key == "r"), None),
        "alpha": next((plain.number(config[key], 0, 2**20) for key in keys if key.endswith("lora_alpha")), None),
    }


def _first_whole(*values: Any) -> int | None:
    return next((found for value in values if (found := plain.whole(value, 1)) is not None), None)


def _rate(value: Any) -> float | None:
    """A learning rate; of a list (one for each text encoder) the first."""
    if isinstance(value, str):
        value = value.strip("[]() ").split(",")[0].strip()
    return plain.number(value, 0, 1000)


def _not_no(value: str | None) -> str | None:
    return None if value in ("no", "None") else value


def _optimizer(value: str | None) -> str | None:
    """`bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.01)` → `AdamW8bit`."""
    text = plain.cut_line(value, 200)
    return text.partition("(")[0].rpartition(".")[2][:60] or None if text else None


def _resolution(value: Any) -> str | None:
    """`(512, 768)`, `512,768`, `512x768` or `512` → `512×768`."""
    if isinstance(value, list):
        value = ",".join(str(item) for item in value[:2])
    sides = re.findall(r"[0-9]{2,5}", value[:60]) if isinstance(value, str) else []
    return "×".join((sides * 2)[:2] if len(sides) == 1 else sides[:2]) or None


def _configs(metadata: Mapping[str, str]) -> list[Mapping[str, Any]]:
    return plain.objects(plain.json_in(metadata.get("ss_datasets")))


def _config_resolution(metadata: Mapping[str, str]) -> str | None:
    found = dict.fromkeys(_resolution(config.get("resolution")) for config in _configs(metadata))
    return ", ".join(list(filter(None, found))[:4]) or None


def _config_batch(metadata: Mapping[str, str]) -> int | None:
    return next((plain.whole(config.get("batch_size_per_device"), 1) for config in _configs(metadata)), None)


def _hash(value: str | None) -> str | None:
    text = (value or "").strip().lower()
    return text if re.fullmatch(r"[0-9a-f]{8}|[0-9a-f]{64}", text) else None


def _time(value: Any) -> float | None:
    return plain.number(value, _EARLIEST, _LATEST)


def _day(moment: float | None) -> str | None:
    return datetime.fromtimestamp(moment, UTC).date().isoformat() if moment else None


def _iso_day(value: str | None) -> str | None:
    match = re.match(r"(20[0-9]{2}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01]))(?:[T ]|$)", value or "")
    return match[1] if match else None


def training_words(facts: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The fields of `TrainingFacts` as pairs of label and text, for people; what is not known is left out."""
    get = facts.get
    pairs: tuple[tuple[str, str | None], ...] = (
        ("trained", get("date")),
        ("with", _dotted(get("trainer"), get("module"))),
        ("on", get("base_name")),
        ("pictures", _pictures(get("images"), get("repeats"))),
        ("length", _length(facts)),
        ("learning rate", _rates(facts)),
        ("optimizer", _dotted(get("optimizer"), get("scheduler"), get("precision"))),
        ("resolution", get("resolution")),
        ("comment", get("comment")),
    )
    return tuple([(label, text) for label, text in pairs if text])


def _dotted(*parts: str | None) -> str:
    return " · ".join([part for part in parts if part])


def _pictures(images: int | None, repeats: int | None) -> str | None:
    if images is None:
        return None
    return f"{images:,} × {repeats}" if repeats and repeats > 1 else f"{images:,}"


def _length(facts: Mapping[str, Any]) -> str:
    steps, epochs, batch, seconds = (facts.get(key) for key in ("steps", "epochs", "batch_size", "seconds"))
    parts = []
    if steps is not None:
        parts.append(f"{steps:,} {'steps' if steps != 1 else 'step'}")
    if epochs is not None:
        parts.append(f"{epochs:,} {'epochs' if epochs != 1 else 'epoch'}")
    if batch is not None and batch > 1:
        parts.append(f"batch {batch}")
    if seconds is not None and seconds >= 60:
        hours, minutes = divmod(seconds // 60, 60)
        parts.append(f"{hours} h {minutes} min" if hours else f"{minutes} min")
    return " · ".join(parts)


def _rates(facts: Mapping[str, Any]) -> str:
    shown: dict[float, str] = {}
    for key, label in (("learning_rate", ""), ("unet_lr", "model "), ("text_encoder_lr", "text encoder ")):
        rate = facts.get(key)
        if rate is not None and rate not in shown:
            shown[rate] = f"{label}{rate:g}"
    return ", ".join(shown.values())
