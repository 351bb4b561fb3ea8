"""The words of a prompt: trigger words that should be in it, words that the base does not know."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loravault.formats.trigger_words import TriggerGroup, plain_and_groups
from loravault.requests.adapters import Chosen

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_MAX_NAMED = 8
_MODES = {
    "auto": "auto", "on": "on", "true": "on", "yes": "on", "off": "off", "false": "off", "no": "off", "none": "off",
}  # fmt: skip


@dataclass(frozen=True)
class Triggers:
    """The option `triggers`: what is done about trigger words, and which named groups of them are wanted."""

    #: `auto`: those of adapters from `loras:` are inserted, those of tags reported; `on`: all inserted; `off`: none.
    mode: str = "auto"
    #: Names of groups, as written.
    groups: tuple[str, ...] = ()


def read_triggers(value: Any) -> Triggers:
    """`auto`, `on`, `off`, or the names of groups (a list, or a text with commas)."""
    items = value if isinstance(value, list | tuple) else str(value).split(",")
    words = [" ".join(str(item).split()) for item in items if item is not None]
    words = [word for word in words if word]
    if len(words) == 1 and (mode := _MODES.get(words[0].casefold())):
        return Triggers(mode)
    return Triggers("on", tuple(words)) if words else Triggers()


def unknown_group(triggers: Triggers, chosen: Sequence[Chosen]) -> str | None:
    """A sentence about a group that no adapter of the block has; None if all are known."""
    known = [group.name or "" for one in chosen for group in _groups(one)]
    folded = {_folded(name) for name in known}
    for wanted in triggers.groups:
        if _folded(wanted) not in folded:
            names = f"; the groups of the LoRAs here: {', '.join(known)}" if known else ""
            return f"triggers: {wanted!r} must be one of auto, on, off, or the name of a group of trigger words{names}."
    return None


def with_triggers(prompt: str, chosen: Sequence[Chosen], triggers: Triggers) -> tuple[str, list[str]]:
    """The prompt with the trigger words it needs, and what to say about it.

    Of an adapter whose words are in named groups, the groups that `triggers` names are inserted; if it names none of
    them and the adapter has no other words, the first.
    """
    said: list[str] = []
    if triggers.mode == "off":
        return prompt, said
    for one in chosen:
        words = _needed(one, triggers)
        missing = [word for word in words if not contains(prompt, word)]
        if not missing or not (one.te or one.unet):
            continue
        if triggers.mode == "on" or not one.inline:
            prompt = ", ".join(part for part in (prompt.rstrip(" ,"), *missing) if part)
            said.append(f'Added the trigger words of "{one.adapter.name}": {_quoted(missing)}.')
        elif len(missing) == len(words) and not _any_group(prompt, one):
            # With one of several in the prompt the user has made a choice.
            said.append(f'"{one.adapter.name}" has trigger words that are not in the prompt: {_quoted(missing)}.')
    return prompt, said


def _needed(one: Chosen, triggers: Triggers) -> tuple[str, ...]:
    always, groups = plain_and_groups(one.adapter.trigger_words)
    wanted = {_folded(name) for name in triggers.groups}
    asked = [group for group in groups if _folded(group.name or "") in wanted]
    if not asked and not always:
        asked = list(groups[:1])
    return tuple(dict.fromkeys((*always, *(word for group in asked for word in group.words))))


def with_triggers_in_front(prompt: str, one: Chosen) -> str:
    """The prompt with the trigger words of one adapter that it lacks before it: there a base listens best."""
    missing = [word for word in needed_words(one) if not contains(prompt, word)]
    return ", ".join([*missing, prompt]) if prompt else prompt


def needed_words(one: Chosen) -> tuple[str, ...]:
    """The trigger words that an adapter needs where nobody chooses among them."""
    return _needed(one, Triggers())


def _groups(one: Chosen) -> tuple[TriggerGroup, ...]:
    return plain_and_groups(one.adapter.trigger_words)[1]


def _any_group(prompt: str, one: Chosen) -> bool:
    return any(all(contains(prompt, word) for word in group.words) for group in _groups(one))


def contains(prompt: str, phrase: str) -> bool:
    """Whether a phrase stands in a prompt as words of its own, in any case, `_` and blanks alike."""
    haystack, needle = _folded(prompt), _folded(phrase)
    return bool(needle) and re.search(rf"(?<!\w){re.escape(needle)}(?!\w)", haystack) is not None


def unknown_words(prompt: str, vocabulary: frozenset[str], base: str, chosen: Sequence[Chosen] = ()) -> str | None:
    """A sentence naming the words that neither the base nor an adapter was taught; None if there are none."""
    taught = {word for one in chosen for phrase in one.adapter.trigger_words for word in _words(phrase)}
    words = _words(prompt)
    unknown = list(dict.fromkeys(word for word in words if word not in vocabulary and word not in taught))
    if not unknown:
        return None
    if len(unknown) == len(set(words)):
        return f"The {base} base knows none of the words of this prompt, so the picture has little to do with it."
    more = f" and {len(unknown) - _MAX_NAMED} more" if len(unknown) > _MAX_NAMED else ""
    return f"The {base} base does not know: {', '.join(unknown[:_MAX_NAMED])}{more}."


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text.replace("_", " "))]


def _folded(text: str) -> str:
    return " ".join(text.replace("_", " ").casefold().split())


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)
