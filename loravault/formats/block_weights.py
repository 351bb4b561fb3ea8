"""Strengths per block as people write them, read into factors by block and written again.

    INALL                            a name: one of A1111's, or one of the configuration's
    1,0,0,0,1,1,1,0,0,0,0,…          a vector, one number for each block of the family
    in=0.5 mid=1 out=0.2             groups of blocks (`base`: the text encoders); others keep the strength as it is
    IN04=0.5 OUT03-OUT05=0           blocks by name, or several in a row
    INALL out=0.2                    a name or a vector, then what differs from it

A factor multiplies the adapter's strength. Later words overrule earlier ones. Case does not matter.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from loravault.formats.blocks import BASE, GROUPS, NAMES, VECTORS, group_of, lengths, read_vector

#: Block → factor; a block that is not in it has the factor 1, and none in it has.
Factors = tuple[tuple[str, float], ...]

#: What a key of a block weight looks like, in lower case: `in`, `in04`, `out03-out05`.
KEY = re.compile(r"(?:all|base|in|mid|m|out|double|single|layers|d|s|l)(?:\d{1,2}(?:-[a-z]{0,3}\d{1,2})?)?")
_RANGE = re.compile(r"([a-z]+?)(\d{1,2})(?:-([a-z]*?)(\d{1,2}))?")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE)
_RANDOM = frozenset({"R", "U", "X"})

# The vectors of 17 and of 12 that these names stand for among users of A1111, one letter a block: BASE, down, middle,
# up. What conv adapters have beyond these blocks is off, as there; ALL is everything.
_SD1 = {
    "INS": "1 111000 0 000000000", "IND": "1 000111 0 000000000", "INALL": "1 111111 0 000000000",
    "MIDD": "1 000111 1 111100000", "MIDALL": "1 000000 1 000000000",
    "OUTD": "1 000000 0 111100000", "OUTS": "1 000000 0 000011111", "OUTALL": "1 000000 0 111111111",
}  # fmt: skip
_SDXL = {
    "INS": "1 1100 0 000000", "IND": "1 0011 0 000000", "INALL": "1 1111 0 000000",
    "MIDD": "1 0011 1 111000", "MIDALL": "1 0000 1 000000",
    "OUTD": "1 0000 0 111000", "OUTS": "1 0000 0 000111", "OUTALL": "1 0000 0 111111",
}  # fmt: skip
_DEMO = {"INALL": "1 1111 0 0000", "MIDALL": "1 0000 1 0000", "OUTALL": "1 0000 0 1111"}
_EVERYWHERE = {"ALL": 1.0, "ALL0.5": 0.5, "NONE": 0.0}
_PUBLIC: Mapping[str, Mapping[str, str]] = {"sd15": _SD1, "sd2": _SD1, "sdxl": _SDXL, "demo": _DEMO}
#: All names that mean something for some family.
PRESETS = frozenset({*_EVERYWHERE, *_SD1, "FLUXALL"})


def read_blocks(text: str, family: str, presets: Mapping[str, str] | None = None) -> Factors:
    """The factors that `text` asks for; `presets`: the user's own names. Raises `ValueError`: what is wrong, in words.

    The sentence goes on from "The block weights … of …".
    """
    if family not in NAMES:
        known = ", ".join(NAMES)
        raise ValueError(f"cannot be used: blocks are not known for {family}, only for {known}; te= and unet= work")
    words = _words(text)
    if not words:
        raise ValueError(f"say nothing; {_possible(family)}")
    count = next((n for n, word in enumerate(words) if "=" in word), len(words))
    factors = _start(words[:count], family, presets or {}) if count else {}
    for word in words[count:]:
        key, is_given, value = word.partition("=")
        if not is_given:
            raise ValueError(f'have "{_short(word)}" after {words[count]}; a name or a vector comes first')
        factors.update(dict.fromkeys(_named(key, family), _factor(value)))
    return canonical(factors)


def canonical(factors: Mapping[str, float]) -> Factors:
    """Equal factors in the one way they are kept: sorted, without those that change nothing."""
    return tuple(sorted((block, factor + 0.0) for block, factor in factors.items() if factor != 1))


def problem_of_preset(name: str, text: str) -> str | None:
    """Why this cannot be a name of the user's for these block weights, as the end of a sentence; None if it can."""
    if not re.fullmatch(r"[A-Za-z][\w.-]{0,39}", name) or KEY.fullmatch(name.casefold()) or name.upper() in _RANDOM:
        return "has a name that cannot be used (letters first, then letters, digits, `_`, `.` and `-`)"
    if name.upper() in PRESETS:
        return "is a name that has a meaning already"
    words = _words(text)
    if words and ("=" in words[0] or _NUMBER.fullmatch(words[0]) or words[0].upper() in PRESETS):
        return None
    return "must be numbers with commas between them, or groups and blocks such as in=0.5 OUT03=0"


def _words(text: str) -> list[str]:
    joined = re.sub(r"\s*=\s*", "=", text.strip().strip("\"'"))
    return [word for word in re.split(r"[\s,;:]+", joined) if word]


def _start(words: Sequence[str], family: str, presets: Mapping[str, str]) -> dict[str, float]:
    """What the words before the first `=` mean: a name, or the numbers of a vector."""
    if len(words) == 1 and not _NUMBER.fullmatch(words[0]):
        return _preset(words[0], family, presets)
    if any(word.upper() in _RANDOM for word in words):
        raise ValueError("are random numbers (R, U, X), which would make another picture each time; write numbers")
    wrong = next((word for word in words if not _NUMBER.fullmatch(word)), None)
    if wrong is not None:
        raise ValueError(f'have "{_short(wrong)}" where a number belongs')
    if family not in VECTORS:
        raise ValueError(f"are a vector, and none is known for {family}; {_possible(family)}")
    try:
        return read_vector(family, [_factor(word) for word in words])
    except ValueError as error:
        raise ValueError(f"do not fit: {error}") from error


def _preset(name: str, family: str, presets: Mapping[str, str]) -> dict[str, float]:
    own = {key.casefold(): text for key, text in presets.items()}
    if name.casefold() in own:
        return dict(read_blocks(own[name.casefold()], family))
    public = name.upper().removeprefix("FLUX") if name.upper() == "FLUXALL" else name.upper()
    if public in _EVERYWHERE:
        return dict.fromkeys(NAMES[family], _EVERYWHERE[public])
    vector = _PUBLIC.get(family, {}).get(public)
    if vector is not None:
        return read_vector(family, [float(digit) for digit in vector.replace(" ", "")])
    here = [*_EVERYWHERE, *_PUBLIC.get(family, ()), *presets]
    near = difflib.get_close_matches(public, here, n=1) if public not in PRESETS else []
    hint = f" (did you mean {near[0]}?)" if near else ""
    what = f"is nothing that {family} has" if public in PRESETS else "is unknown"
    raise ValueError(f'name "{_short(name)}", which {what}{hint}; {_possible(family, here)}')


def _named(key: str, family: str) -> list[str]:
    """The blocks of `in`, `in04` or `in04-in07`."""
    folded = key.casefold()
    names = NAMES[family]
    if folded == "all":
        return list(names)
    if folded in GROUPS or key.upper() in GROUPS.values():
        found = [name for name in names if group_of(name) == folded or GROUPS[group_of(name)] == key.upper()]
    elif match := _RANGE.fullmatch(folded):
        letters, first, other, last = match.groups()
        wanted = range(int(first), int(last or first) + 1) if other in (None, "", letters) else ()
        found = [f"{letters.upper()}{number:02}" for number in wanted]
        found = found if found and set(found) <= set(names) else []
    else:
        found = []
    if not found:
        raise ValueError(f'name "{_short(key)}", which {family} does not have; {_possible(family)}')
    return found


def _factor(text: str) -> float:
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise ValueError(f'have "{_short(text)}" where a number belongs')
    return value


def _possible(family: str, presets: Sequence[str] | None = None) -> str:
    """What can be written for a family."""
    vector = f"{numbers} numbers with commas, " if (numbers := lengths(family)) else ""
    named = f"{', '.join(presets or [*_EVERYWHERE, *_PUBLIC.get(family, ())])}, "
    groups = " ".join(f"{group}=1" for group in dict.fromkeys(map(group_of, NAMES[family])))
    ranges = [f"{run[0]}–{run[-1]}" for run in _runs(NAMES[family]) if len(run) > 1]
    return f"possible are {named}{vector}or {groups} and blocks by name ({', '.join(ranges)})"


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"


# ---- writing


def as_words(factors: Factors, family: str) -> str:
    """The shortest words that `read_blocks` reads as these factors: `in=0.5 OUT03-OUT05=0`; empty if all are 1."""
    left = dict(factors)
    said = []
    for group, run in ((group_of(run[0]), run) for run in _runs(NAMES.get(family) or sorted(left))):
        values = [left.get(block, 1.0) for block in run]
        if len(set(values)) == 1:
            said += [f"{group}={number(values[0])}"] if values[0] != 1 else []
            continue
        for value, part in groupby(run, lambda block: left.get(block, 1.0)):
            blocks = list(part)
            name = blocks[0] if len(blocks) == 1 else f"{blocks[0]}-{blocks[-1]}"
            said += [f"{name}={number(value)}"] if value != 1 else []
    return " ".join(said)


def as_vector(factors: Factors, family: str) -> str | None:
    """The shortest vector that says the same, for other programs; None if none does."""
    given = dict(factors)
    for names in reversed(VECTORS.get(family, ())):
        values = [given.get(block, 1.0) for block in names]
        if canonical(read_vector(family, values)) == factors:
            return ",".join(map(number, values))
    return None


def number(value: float) -> str:
    """A strength as people write it, with every digit it has: `0.8`, `-1`."""
    text = repr(float(value))
    return text.removesuffix(".0")


def _runs(names: Sequence[str]) -> Iterator[list[str]]:
    """The blocks of each group, in order."""
    return (list(run) for _, run in groupby(names, group_of))


__all__ = [
    "BASE", "KEY", "PRESETS", "Factors", "as_vector", "as_words", "canonical", "number", "problem_of_preset",
    "read_blocks",
]  # fmt: skip
