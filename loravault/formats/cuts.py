"""Cuts texts into words where people would cut them. Pure.

A word is folded (case, diacritics, width): `ghibliStyleV2` is ghibli, style, v, 2. Scripts without blanks between words
are cut into letters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

#: Letters that stand alone: Thai and its neighbours, kana, Han, Hangul, pictographs.
_ALONE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2190-\u2bff\u3005-\u3007\u3021-\u3029\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U0001f000-\U0001faff\U00020000-\U0003ffff"
)
_IN_WORD = rf"[^\W_{_ALONE}]"
#: A compound: words held together by what people write instead of a blank; or one letter that stands alone.
_COMPOUND = re.compile(rf"{_IN_WORD}+(?:[_\-.'’]{_IN_WORD}+)*|[{_ALONE}]")
_IS_ALONE = re.compile(f"[{_ALONE}]")
_BETWEEN = re.compile(r"[_\-.'’]")
_DIACRITICS = re.compile("[\u0300-\u036f]")
#: Letters that no normal form takes apart.
_PLAIN = str.maketrans("øØłŁđĐæÆœŒþÞı", "oOlLdDaAoOtTi")
#: Letters without a sign or a digit between them; fewer say little of what a name is like.
_LONG_WORD = re.compile(r"[^\W\d_]{4,}")


def compounds(text: str) -> Iterator[tuple[str, ...]]:
    """The words of a text, each as its parts, folded."""
    return map(_parts, _COMPOUND.findall(unaccented(text)))


def stands_alone(part: str) -> bool:
    """Whether this is one letter of a script without blanks between words."""
    return bool(_IS_ALONE.fullmatch(part))


def long_words(name: str) -> list[str]:
    """The words of a name by which another one may be like it: of four letters at least, cut at capitals or not."""
    plain = unaccented(name)
    words = dict.fromkeys(_LONG_WORD.findall(plain.casefold()))
    for compound in dict.fromkeys(_COMPOUND.findall(plain)):
        words.update((part, None) for part in _parts(compound) if len(part) >= 4 and not part.isdigit())
    return list(words)


def unaccented(text: str) -> str:
    """Without accents, in the width that people type."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", _DIACRITICS.sub("", unicodedata.normalize("NFKD", text.translate(_PLAIN))))


@lru_cache(maxsize=1 << 15)  # the captions of a library are a few thousand words over and over
def _parts(compound: str) -> tuple[str, ...]:
    if compound.isascii() and compound.isalpha() and compound.islower():
        return (compound,)
    return tuple(part for word in _BETWEEN.split(compound) for part in _cut(word))


def _cut(word: str) -> Iterator[str]:
    start = 0
    for at in range(1, len(word)):
        if _is_cut(word, at):
            yield word[start:at].casefold()
            start = at
    yield word[start:].casefold()


def _is_cut(word: str, at: int) -> bool:
    """Whether a new part begins here: `styleV`, `v2`, `2d`, and the last capital of `SDXLStyle`."""
    before, here = word[at - 1], word[at]
    if before.isdigit() != here.isdigit():
        return True
    if not here.isupper():
        return False
    return before.islower() or (before.isupper() and at + 1 < len(word) and word[at + 1].islower())
