"""The properties of a training request: which there are, and what each may be. Everything wrong is said in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, get_args

from loravault.formats.training import (
    Algorithm,
    Naming,
    Optimizer,
    Precision,
    Quantised,
    Schedule,
    Subject,
    TrainingWishes,
)
from loravault.requests import options, slips
from loravault.requests.model import MAX_SEED
from loravault.requests.options import Given, NotThis

_PLACE = "the properties"
#: What stands for "decide it".
_AUTO = frozenset({"auto", "automatic", "default"})
_ON = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
#: Other spellings of properties, as other trainers call them.
_ALIASES = {
    "learning_rate": ("lr", "unet_lr"),
    "te_rate": ("te_learning_rate", "text_encoder_lr", "te_lr"),
    "resolution": ("resolutions",),
    "rank": ("dim", "network_dim"),
    "alpha": ("network_alpha",),
    "conv_rank": ("conv_dim",),
    "trigger": ("trigger_word", "trigger_words"),
    "class_word": ("class",),
    "optimizer": ("optimiser",),
    "schedule": ("scheduler", "lr_scheduler"),
    "quantised": ("quantized",),
    "regularisation": ("regularization", "reg"),
    "batch": ("batch_size",),
    "accumulation": ("gradient_accumulation",),
    "checkpointing": ("gradient_checkpointing",),
    "algorithm": ("network", "algo"),
    "gpus": ("devices", "num_processes"),
}


def _words(kind: Any, **aliases: str) -> Callable[[Any], str]:
    return options.choice(*get_args(kind), **aliases)


def _switch(value: Any) -> bool:
    word = str(value).strip().lower()
    if word not in _ON:
        raise NotThis("it must be true or false")
    return _ON[word]


def _sides(value: Any) -> tuple[int, ...]:
    """`512`, `512x512` (its area counts), `512, 768` or a list."""
    items = value if isinstance(value, Sequence) and not isinstance(value, str) else re.split(r"[,;]", str(value))
    found = []
    for item in items:
        sides = [options.whole(32, 4096)(part.strip()) for part in re.split(r"[x×*]", str(item).lower())]
        if not 1 <= len(sides) <= 2:
            raise NotThis("it must be of the form 512, or 512, 768")
        side = sides[0] if len(sides) == 1 else 8 * round((sides[0] * sides[1]) ** 0.5 / 8)
        if side % 8:
            raise NotThis(f"sides must be multiples of 8; nearest: {max(32, round(side / 8) * 8)}")
        found.append(side)
    if not 1 <= len(found) <= 6:
        raise NotThis("at most six resolutions can be trained at once")
    return tuple(dict.fromkeys(found))


def _gpus(value: Any) -> int:
    """A number of cards; 0 stands for all."""
    return 0 if str(value).strip().lower() == "all" else options.whole(1, 16)(value)


def _seed(value: Any) -> int:
    found = options.seed(value)
    if found is None:
        raise NotThis(f"it must be a whole number from 0 to {MAX_SEED}; leave it empty to have it decided")
    return found


#: Property → field of `TrainingWishes`, and what it may be.
WISHES: Mapping[str, tuple[str, Callable[[Any], Any]]] = MappingProxyType(
    {
        "steps": ("steps", options.whole(1, 1_000_000)),
        "algorithm": ("algorithm", _words(Algorithm)),
        "rank": ("rank", options.whole(1, 1024)),
        "alpha": ("alpha", options.number(0.001, 4096)),
        "conv_rank": ("conv_rank", options.whole(0, 1024)),
        "conv_alpha": ("conv_alpha", options.number(0, 4096)),
        "rslora": ("rslora", _switch),
        "dora": ("dora", _switch),
        "factor": ("factor", options.whole(-1, 1024)),
        "learning_rate": ("learning_rate", options.number(0, 10)),
        "te_rate": ("te_rate", options.number(0, 10)),
        "pivotal": ("pivotal", options.whole(0, 32)),
        "resolution": ("resolutions", _sides),
        "batch": ("batch", options.whole(1, 256)),
        "accumulation": ("accumulation", options.whole(1, 1024)),
        "gpus": ("gpus", _gpus),
        "optimizer": ("optimizer", _words(Optimizer, adam8bit="adamw8bit", adam="adamw")),
        "schedule": ("schedule", _words(Schedule)),
        "warmup": ("warmup", options.whole(0, 100_000)),
        "min_snr": ("min_snr", options.number(0, 100)),
        "noise_offset": ("noise_offset", options.number(0, 1)),
        "prior_weight": ("prior_weight", options.number(0, 100)),
        "preserve": ("preserve", options.number(0, 1)),
        "clip": ("clip", options.number(0, 1000)),
        "ema": ("ema", options.number(0, 0.99999)),
        "precision": ("precision", _words(Precision, float32="fp32", bfloat16="bf16", float16="fp16")),
        "quantised": ("quantised", _words(Quantised, off="none")),
        "checkpointing": ("checkpointing", _switch),
        "flip": ("flip", _switch),
        "crops": ("crops", _switch),
        "checkpoints": ("checkpoints", options.whole(1, 100)),
        "validation": ("validation", options.whole(0, 1000)),
        "caption_dropout": ("caption_dropout", options.number(0, 1)),
        "tag_dropout": ("tag_dropout", options.number(0, 1)),
        "shuffle": ("shuffle", _switch),
        "keep_tokens": ("keep_tokens", options.whole(0, 100)),
        "clip_skip": ("clip_skip", options.whole(1, 12)),
        "caption_prefix": ("caption_prefix", options.text),
        "seed": ("seed", _seed),
        "naming": ("naming", _words(Naming)),
    }
)
#: Properties of a training request that are no wishes.
OTHERS = (
    "name", "subject", "trigger", "class_word", "dataset", "regularisation", "repeats", "base", "vae", "family",
    "category", "author", "license", "again", "negative", "cfg", "sampler", "size", "captioner",
)  # fmt: skip
SUBJECTS: tuple[str, ...] = get_args(Subject)


def named(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The properties under the names used here; those that are to be decided are left out."""
    found = dict(properties)
    for name, others in _ALIASES.items():
        for other in others:
            if other in found:
                found.setdefault(name, found[other])
    return {key: value for key, value in found.items() if not _is_auto(value)}


def _is_auto(value: Any) -> bool:
    return value is None or value == [] or (isinstance(value, str) and value.strip().lower() in _AUTO | {""})


def read_wishes(properties: Mapping[str, Any], problems: list[str]) -> TrainingWishes:
    """What the person asked for. `properties` as `named` gives them."""
    given = {key: Given(value, _PLACE) for key, value in properties.items()}
    values = {field: options.read(given, key, parse, problems) for key, (field, parse) in WISHES.items()}
    wanted = {key: value for key, value in values.items() if value is not None}
    if wanted.get("rslora") and wanted.get("algorithm") in ("lokr", "ia3"):
        problems.append(f"`rslora` is for low-rank networks, and {wanted['algorithm']} scales itself.")
    if wanted.get("conv_rank") and wanted.get("algorithm") == "ia3":
        problems.append("`conv_rank` has no meaning for ia3, which has no ranks.")
    return TrainingWishes(**wanted)


def text_of(properties: Mapping[str, Any], key: str, problems: list[str]) -> str:
    """A property that is a text; empty if it is not given."""
    given = {key: Given(properties[key], _PLACE)} if key in properties else {}
    return options.read(given, key, options.text, problems) or ""


def whole_of(properties: Mapping[str, Any], key: str, low: int, high: int, problems: list[str]) -> int | None:
    """A property that is a whole number; None if it is not given."""
    given = {key: Given(properties[key], _PLACE)} if key in properties else {}
    return options.read(given, key, options.whole(low, high), problems)


def switch_of(properties: Mapping[str, Any], key: str, problems: list[str]) -> bool | None:
    """A property that is true or false; None if it is not given."""
    given = {key: Given(properties[key], _PLACE)} if key in properties else {}
    return options.read(given, key, _switch, problems)


def subject_of(properties: Mapping[str, Any], problems: list[str]) -> Subject:
    """What is learned; a character unless said otherwise."""
    given = {"subject": Given(properties["subject"], _PLACE)} if "subject" in properties else {}
    parse = options.choice(*SUBJECTS, person="character", face="character", thing="object")
    found: Any = options.read(given, "subject", parse, problems)
    return found or "character"


def misspelled(properties: Mapping[str, Any]) -> list[str]:
    """Sentences about properties that are nearly one of ours. All others are the user's own."""
    looks: dict[str, Callable[[Any], bool] | None] = dict.fromkeys(OTHERS)
    looks |= {key: options.can_be(parse) for key, (_, parse) in WISHES.items()}
    looks |= {other: looks[key] for key, others in _ALIASES.items() for other in others}
    return slips.told(properties, looks)
