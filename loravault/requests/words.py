"""The words of a prompt: trigger words that should be in it, words that the base does not know."""

from __future__ import annotations

import re
from collections.abc import Sequence

from loravault.requests.adapters import Chosen

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_MAX_NAMED = 8


def with_triggers(prompt: str, chosen: Sequence[Chosen], mode: str) -> tuple[str, list[str]]:
    """The prompt with the trigger words it needs, and what to say about it.

    `mode`: `auto` inserts those of adapters from `loras:` and reports those of tags; `on` inserts all; `off` none.
    """
    said: list[str] = []
    if mode == "off":
        return prompt, said
    for one in chosen:
        words = one.adapter.trigger_words
        missing = [word for word in words if not contains(prompt, word)]
        if not missing or not (one.te or one.unet):
            continue
        if mode == "on" or not one.inline:
            prompt = ", ".join(part for part in (prompt.rstrip(" ,"), *missing) if part)
            said.append(f'Added the trigger words of "{one.adapter.name}": {_quoted(missing)}.')
        elif len(missing) == len(words):
            # With one of several in the prompt the user has made a choice.
            said.append(f'"{one.adapter.name}" has trigger words that are not in the prompt: {_quoted(missing)}.')
    return prompt, said


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
