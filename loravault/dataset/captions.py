"""From what somebody wrote under a picture to what is learned with it. Pure: a caption and a generator give a caption.

The order is fixed: the trigger where it is lacking, then what varies (parts left out, parts in another order, or
nothing at all), then the prefix, which never varies.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from loravault.formats.chance import shuffled

#: Where a caption says that the trigger goes, in any case.
PLACEHOLDER = re.compile(r"\[trigger\]", re.IGNORECASE)
#: kohya's mark: parts before the first stay in front, parts behind the second stay at the end.
KEEP = "|||"
_SPACES = re.compile(r"\s+")
_COMMAS = re.compile(r"\s*,(?:\s*,)+\s*")


@dataclass(frozen=True)
class Words:
    """What every caption of a training gets; one for the subject's pictures, one for regularisation."""

    #: Empty: none.
    trigger: str = ""
    #: What stands for a picture without caption: "cat".
    class_word: str = ""
    #: It shows the class and not the subject: the trigger is taken out instead of put in.
    regularisation: bool = False


@dataclass(frozen=True)
class Variation:
    """How a caption differs from one time to the next."""

    #: Whether the parts between commas change places.
    shuffle: bool = False
    #: Parts at the beginning that stay where they are.
    keep_tokens: int = 0
    #: Chance of each part, those kept and the trigger apart, to be left out.
    tag_dropout: float = 0.0
    #: Chance of the whole caption to be left out, with its prefix.
    dropout: float = 0.0

    @property
    def varies(self) -> bool:
        """Whether more than one caption can come of one, the empty one not counted."""
        return self.shuffle or self.tag_dropout > 0


def captioned(caption: str | None, words: Words) -> str:
    """The caption in one line, with the trigger in its place or in front; without it for regularisation."""
    line = _SPACES.sub(" ", caption or "").strip()
    if words.regularisation:
        return _tidy(without(PLACEHOLDER.sub(_literal(words.class_word), line), words)) or words.class_word
    line = _tidy(PLACEHOLDER.sub(_literal(words.trigger), line)) if PLACEHOLDER.search(line) else line
    missing = ", ".join(part for part in parts(words.trigger) if not holds(line, part))
    if not line:
        named = words.class_word and not holds(words.trigger, words.class_word)
        return " ".join(filter(None, (words.trigger, words.class_word if named else "")))
    return f"{missing}, {line}" if missing else line


def without(caption: str, words: Words) -> str:
    """With the class word in every place where the trigger stands."""
    for part in parts(words.trigger):
        caption = _whole(part).sub(_literal(words.class_word), caption)
    return caption


def holds(caption: str, words: str) -> bool:
    """Whether the words stand in a caption, in this order, whole and in any case: "art" is not in "party"."""
    return bool(words.strip()) and _whole(words).search(caption) is not None


@cache
def _whole(words: str) -> re.Pattern[str]:
    # Tags are written with blanks or with underscores: `sks_cat` is `sks cat`. `\b` would fail next to a sign: "c++".
    inner = r"[\s_]+".join(re.escape(word) for word in re.split(r"[\s_]+", words.strip("_ \t\r\n")))
    return re.compile(rf"(?<![^\W_]){inner}(?![^\W_])", re.IGNORECASE)


def _literal(text: str) -> str:
    return text.replace("\\", r"\\")


def _tidy(caption: str) -> str:
    """Without the holes that a word leaves behind."""
    line = _SPACES.sub(" ", _COMMAS.sub(", ", caption)).replace(" ,", ",")
    return line.strip(" ,")


def parts(caption: str) -> list[str]:
    """What stands between commas."""
    return [part for piece in caption.split(",") if (part := piece.strip())]


def varied(caption: str, variation: Variation, by: random.Random, trigger: str = "") -> str:
    """The caption as it is learned this time: parts left out and in another order; empty where it drops out."""
    if variation.dropout > 0 and by.random() < variation.dropout:
        return ""
    if not variation.varies:
        return plain(caption)
    first, middle, last = _kept(caption, variation.keep_tokens)
    if variation.tag_dropout > 0:
        needed = parts(trigger)
        middle = [
            part for part in middle if by.random() >= variation.tag_dropout or any(holds(part, word) for word in needed)
        ]
    return ", ".join((*first, *(shuffled(middle, by) if variation.shuffle else middle), *last))


def plain(caption: str) -> str:
    """Without kohya's marks of what is kept."""
    return ", ".join(part for section in caption.split(KEEP) for part in parts(section)) if KEEP in caption else caption


def _kept(caption: str, keep: int) -> tuple[list[str], list[str], list[str]]:
    """What stays in front, what varies, what stays at the end."""
    if KEEP in caption:
        first, _, rest = caption.partition(KEEP)
        middle, _, last = rest.partition(KEEP)
        return parts(first), parts(middle), parts(plain(last))
    found = parts(caption)
    return found[:keep], found[keep:], []


def prefixed(caption: str, prefix: str) -> str:
    """With a prefix in front of a caption that is not empty; a comma between, unless the prefix brings its own end."""
    start = _SPACES.sub(" ", prefix).lstrip()
    if not start.strip() or not caption:
        return caption
    return start + caption if start[-1] == " " else f"{start.rstrip(',')}, {caption}"


def common_parts(captions: Iterable[str], share: float = 0.8, least: int = 5) -> tuple[str, ...]:
    """Parts that stand in so many captions that they are learned for themselves and not with the trigger.

    The commonest first; none below `least` captions.
    """
    counts: dict[str, int] = {}
    total = 0
    for caption in captions:
        total += 1
        for part in dict.fromkeys(part.casefold() for part in parts(plain(caption))):
            counts[part] = counts.get(part, 0) + 1
    if total < least:
        return ()
    often = [part for part, count in counts.items() if count >= share * total]
    return tuple(sorted(often, key=lambda part: (-counts[part], part)))
