"""The captions an adapter was trained on, as kohya's trainers and those that write like them leave them in the header.

`ss_tag_frequency` is `{"10_sks cat": {"sks cat": 20, "sofa": 3}}`: dataset folder → comma-separated piece of a caption,
lower case → how many captions hold it. Captions in sentences are cut at their commas all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any

from loravault.formats import plain

_REPEATS = re.compile(r"^\d+_")
_MAX_SETS = 64
_MAX_TAGS = 8192
_MOST = 2**53
_FOLDERS = frozenset(
    {
        "img", "image", "images", "train", "training", "data", "dataset", "datasets", "lora", "input", "inputs",
        "default", "raw", "reg", "output", "pics", "photos", "pictures", "crop", "cropped", "512", "768", "1024",
        "high", "low",
    }
)  # fmt: skip


@dataclass(frozen=True)
class CaptionSet:
    """One dataset folder of a training."""

    #: As the trainer calls it: `10_sks cat`.
    name: str
    #: What stands for every picture of the folder: `sks cat`; None if that is only the name of a folder.
    class_words: str | None
    #: Pictures, repeats not counted; None if the file does not tell.
    images: int | None
    repeats: int | None
    #: Piece of a caption → number of captions. Strangers' text as it came.
    tags: Mapping[str, int]


def caption_sets(metadata: Mapping[str, str]) -> tuple[CaptionSet, ...]:
    """The dataset folders of the training, without those of regularisation pictures."""
    folders = plain.table(plain.json_in(metadata.get("ss_dataset_dirs")))
    configs = plain.objects(plain.json_in(metadata.get("ss_datasets")))
    subsets = dict(_subsets(configs))
    tags = plain.table(plain.json_in(metadata.get("ss_tag_frequency")))
    if not tags:
        tags = {name: found for config in configs for name, found in plain.table(config.get("tag_frequency")).items()}
    ignored = set(plain.table(plain.json_in(metadata.get("ss_reg_dataset_dirs"))))
    ignored |= {name for name, subset in subsets.items() if subset.get("is_reg") is True}
    ignored -= set(folders)  # one folder can serve as both
    names = [name for name in dict.fromkeys((*tags, *folders, *subsets)) if name not in ignored]
    return tuple(_set(name, tags, plain.table(folders.get(name)), subsets.get(name, {})) for name in names[:_MAX_SETS])


def _subsets(configs: list[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for config in configs:
        for subset in plain.objects(config.get("subsets")):
            name = subset.get("image_dir")
            if isinstance(name, str) and name:
                yield re.split(r"[/\\]", name.rstrip("/\\"))[-1], subset


def _set(name: str, tags: Mapping[str, Any], folder: Mapping[str, Any], subset: Mapping[str, Any]) -> CaptionSet:
    images = plain.whole(folder.get("img_count"), 1)
    if images is None:
        images = plain.whole(subset.get("img_count"), 1)
    repeats = plain.whole(folder.get("n_repeats"), 1)
    if repeats is None:
        repeats = plain.whole(subset.get("num_repeats"), 1)
    words = plain.one_line(subset.get("class_tokens"), 100) or _class_words(name)
    return CaptionSet(name, words, images, repeats, _counts(tags.get(name)))


def _class_words(name: str) -> str | None:
    """`10_sks cat` → `sks cat`; a plain folder name stands for nothing."""
    words = plain.one_line(_REPEATS.sub("", name), 100)
    if words is None or words.casefold() in _FOLDERS or words.replace(" ", "").isdigit():
        return None
    return words


def _counts(value: Any) -> dict[str, int]:
    """As they stand in the file: there are hundreds, of which a few are ever shown; those are cleaned then."""
    pairs = islice(plain.table(value).items(), _MAX_TAGS)
    return {tag: count for tag, count in pairs if type(count) is int and 0 < count < _MOST}


def top_captions(sets: tuple[CaptionSet, ...], most: int = 64, longest: int = 100) -> tuple[tuple[str, int], ...]:
    """The commonest tags of all folders with their counts, equal ones as in the file; sentences are left out."""
    total: dict[str, int] = dict(sets[0].tags) if sets else {}
    for one in sets[1:]:
        for tag, count in one.tags.items():
            total[tag] = total.get(tag, 0) + count
    found: dict[str, int] = {}
    for tag, count in islice(sorted(total.items(), key=itemgetter(1), reverse=True), 4 * most):
        line = plain.one_line(tag, longest)
        if line is not None:
            found.setdefault(line, count)
        if len(found) == most:
            break
    return tuple(found.items())
