"""Properties that are nearly ours: slips of the fingers, and what other programs call the same.

Most properties of a note are its owner's (`speed: 30 ft.`, `height: 180`, `county: Kent`) and nobody's business. So one
is told only if it differs by one slip from a name of ours and holds what ours could hold.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

#: What options are called elsewhere.
ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "negative_prompt": "negative",
        "cfg_scale": "cfg",
        "guidance_scale": "cfg",
        "guidance": "cfg",
        "sampler_name": "sampler",
        "sampling_steps": "steps",
        "num_inference_steps": "steps",
        "checkpoint": "base",
        "lora": "loras",
        "batch_size": "count",
        "batch_count": "count",
    }
)
#: Properties of every request, and those that Obsidian itself has.
_OF_ALL = frozenset({"loravault", "run", "cancel", "auto", "tags", "aliases", "cssclasses"})
#: A name of ours that may hold any text is looked for only if it has so many letters: short ones resemble many words.
_LONG = 6
#: How much alike two names are that differ by more than one slip (`difflib`).
_ALIKE = 0.84

#: Our names -> whether a value could stand there; None: any text could.
Looks = Mapping[str, Callable[[Any], bool] | None]


def told(properties: Mapping[str, Any], looks: Looks, elsewhere: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """A sentence for each property (in snake_case, with its value) that is nearly one of these."""
    sentences = []
    for key, value in properties.items():
        if key in looks or key in _OF_ALL or key.startswith("lv_"):
            continue
        meant = elsewhere.get(key) or _nearest(key, looks)
        look = looks.get(meant) if meant else None
        if meant and (look is None or look(value)):
            sentences.append(f"The property `{key}` means nothing here; did you mean `{meant}`?")
    return sentences


def _nearest(key: str, looks: Looks) -> str | None:
    names = [name for name, look in looks.items() if look is not None or len(name) >= _LONG]
    slip = next((name for name in names if is_slip(key, name)), None)
    return slip or next(iter(difflib.get_close_matches(key, names, n=1, cutoff=_ALIKE)), None)


def is_slip(typed: str, meant: str) -> bool:
    """Whether one slip lies between two words: a letter too many, too few or wrong, or two that are swapped."""
    short, long = sorted((typed, meant), key=len)
    if len(long) - len(short) == 1:
        return any(long[:at] + long[at + 1 :] == short for at in range(len(long)))
    if len(long) != len(short):
        return False
    wrong = [at for at, (one, other) in enumerate(zip(typed, meant, strict=True)) if one != other]
    first = wrong[0] if wrong else 0
    swapped = len(wrong) == 2 and wrong[1] == first + 1 and typed[first : first + 2] == meant[first : first + 2][::-1]
    return swapped or len(wrong) == 1
