"""Which files of a folder belong to which adapter, by their names alone.

`ink.v2.safetensors` has the stem `ink.v2`: only the last ending goes. `ink.v2.json` is its sidecar, `ink.json` is not;
if an adapter `ink` is there too, each file goes to the longest stem that fits. Exact spelling wins over any case.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from loravault.formats.sidecars import NOTE_ENDING, READERS, TEXT_ENDINGS
from loravault.library.scan import PICKLE_SUFFIXES, SUFFIX

PICTURE_SUFFIXES = ("webp", "png", "jpeg", "jpg", "gif", "avif", "bmp", "jxl", "tiff", "tif", "jp2")
VIDEO_SUFFIXES = ("mp4", "webm", "mov", "m4v", "mkv")
#: `.preview.png`, `.png`, `.thumb.jpg`, `.example.0.jpeg`: mark and suffix.
MEDIA_ENDING = re.compile(
    rf"(\.preview|\.thumb|\.example\.[0-9]{{1,4}}|)\.({'|'.join((*PICTURE_SUFFIXES, *VIDEO_SUFFIXES))})"
)
_RGTHREE = ".rgthree-info.json"
_OWN_ENDINGS = frozenset(
    {*READERS, *TEXT_ENDINGS, NOTE_ENDING, ".metadata.json.bak", ".html", ".preview.html", f"{SUFFIX}.sha256"}
)
# Written by one tool for a model and by nobody for anything else.
_UNMISTAKABLE = frozenset(
    {".civitai.info", ".metadata.json", ".metadata.json.bak", ".swarm.json", ".cm-info.json", ".api_info.json"}
)
#: Files of other formats that are models all the same, and may own what stands beside them under their name.
OTHER_MODELS = frozenset({*PICKLE_SUFFIXES, ".sft", ".gguf", ".onnx", ".zip"})
_MODEL_SUFFIXES = OTHER_MODELS | {SUFFIX}
_MOST_DOTS = 4


def is_adapter(name: str) -> bool:
    """Whether a file of this name counts as an adapter."""
    return name[-len(SUFFIX) :].lower() == SUFFIX


def stem_of(name: str) -> str:
    """The name without its last ending."""
    return name.rpartition(".")[0] or name


def group(listing: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Adapter -> what belongs to it, sorted, for every adapter of a folder's listing."""
    names = sorted(listing)
    adapters = [name for name in names if is_adapter(name)]
    exact = {stem_of(name): name for name in reversed(adapters)}
    folded = {_fold(stem): name for stem, name in reversed(exact.items())}
    found: dict[str, list[str]] = {name: [] for name in adapters}
    for name in names:
        if not is_adapter(name):
            stems = [stem for stem, _ in _readings(name)]
            owner = next((exact[stem] for stem in stems if stem in exact), None)
            owner = owner or next((folded[_fold(stem)] for stem in stems if _fold(stem) in folded), None)
            if owner is not None:
                found[owner].append(name)
    return {name: tuple(entries) for name, entries in found.items()}


def beside_of(name: str, listing: Iterable[str]) -> tuple[str, ...]:
    """What belongs to one adapter: sidecars, previews, examples. For many adapters of one folder use `group`."""
    wanted = _fold(stem_of(name))
    near = {entry for entry in listing if is_adapter(entry) or _fold(entry).startswith(wanted)}
    return group(near | {name}).get(name, ())


def ending_of(entry: str, adapter: str) -> str:
    """The lower-case ending of an entry that belongs to an adapter: `.civitai.info`, `.preview.png`."""
    return _fold(entry)[len(_fold(stem_of(adapter))) :]


def rest_of(entry: str, adapter: str) -> str:
    """The ending of an entry that belongs to an adapter, as it is spelled in the entry's own name.

    Cut at a dot counted from the end: the two names may spell the stem with different numbers of characters (NFC and
    NFD, `ß` and `SS`), and no folding makes or takes a dot.
    """
    return "." + ".".join(entry.split(".")[-ending_of(entry, adapter).count(".") :])


def orphans(listing: Sequence[str]) -> tuple[str, ...]:
    """Sidecars and previews that were made for a model that is not there (nor on its way), sorted.

    Only files that are nothing else by their names: `x.json` or `x.png` may be anybody's.
    """
    there = {_fold(name) for name in listing}
    models = {stem for name in there if (stem := _model_stem(name)) is not None}
    return tuple(name for name in sorted(listing) if _made_for(name, there, models) is False)


def _made_for(name: str, there: set[str], models: set[str]) -> bool | None:
    """Whether the model this file was made for is there; None if it may have been made for none."""
    lowered = _fold(name)
    if lowered.endswith(_RGTHREE):
        model = lowered.removesuffix(_RGTHREE)
        return model in there or stem_of(model) in models
    if not any(_is_unmistakable(ending) for _, ending in _readings(lowered)):
        return None
    # A folder of that name is a model too (diffusers' form).
    return any(stem in models or stem in there for stem, _ in _readings(lowered))


def _is_unmistakable(ending: str) -> bool:
    match = MEDIA_ENDING.fullmatch(ending)
    return ending in _UNMISTAKABLE or bool(match and match[1])


def _model_stem(name: str) -> str | None:
    """The stem of a model file, also of one that is still being downloaded (`x.safetensors.part`)."""
    parts = name.split(".")
    places = [at for at, part in enumerate(parts) if at and f".{part}" in _MODEL_SUFFIXES]
    if not places or len(parts) - places[-1] > 2 or name.endswith(".json"):
        return None
    return ".".join(parts[: places[-1]])


def _readings(name: str) -> Iterator[tuple[str, str]]:
    """(stem, ending) for every known ending of the name, the shortest ending first."""
    at = len(name)
    for _ in range(_MOST_DOTS):
        at = name.rfind(".", 0, at)
        if at <= 0:
            return
        ending = name[at:].lower()
        if ending in _OWN_ENDINGS or MEDIA_ENDING.fullmatch(ending):
            yield name[:at], ending


def _fold(text: str) -> str:
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", text).casefold()
