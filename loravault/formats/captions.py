"""The captions an adapter was trained on, as kohya's trainers and those that write like them leave them in the header.

`ss_tag_frequency` is `{"10_sks cat": {"sks cat": 20, "sofa": 3}}`: dataset folder → comma-separated piece of a caption,
lower case → how many captions hold it. Captions in sentences are cut at their commas all the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from loravault.formats import plain

_REPEATS = re.compile(r"^\d+_")
_MAX_SETS = 64
_MAX_TAGS = 4096
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
    #: Piece of a caption → number of captions.
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
    found: dict[str, int] = {}
    for tag, count in plain.table(value).items():
        text = plain.one_line(tag, 1000)
        if text and isinstance(count, int) and not isinstance(count, bool) and 0 < count < 2**53:
            found[text] = found.get(text, 0) + count
            if len(found) >= _MAX_TAGS:
                break
    return found


def top_captions(sets: tuple[CaptionSet, ...], most: int = 64, longest: int = 100) -> tuple[tuple[str, int], ...]:
    """The commonest tags of all folders with their counts; whole sentences are left out."""
    total: Counter[str] = Counter()
    for one in sets:
        for tag, count in one.tags.items():
            if len(tag) <= longest:
                total[tag] += count
    return tuple(sorted(total.items(), key=lambda item: (-item[1], item[0]))[:most])
