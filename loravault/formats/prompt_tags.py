"""`<lora:name:0.8>` in a prompt, by A1111's grammar, and what else in a prompt means something to other programs.

    <lora:name>  <lora:name:te>  <lora:name:te:unet>  te=0.5  unet=0.5      `lyco` is read as `lora`

The first number is the text encoder's, a second one the UNet's, as in A1111 and Forge (ComfyUI's managers swap them).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_TAG = re.compile(r"<\s*(lora|lyco)\s*:([^<>\n]*)>", re.IGNORECASE)
_OPEN = re.compile(r"<\s*(?:lora|lyco)\s*:[^<>\n]*", re.IGNORECASE)
_FOREIGN = re.compile(
    r"<\s*(hypernet|embed|embedding|wildcard|random|alternate|segment|object|region)\s*:[^<>\n]*>", re.IGNORECASE
)


@dataclass(frozen=True)
class LoraTag:
    """One tag. A weight that the tag does not give is None (the caller knows the default)."""

    name: str
    te: float | None
    unet: float | None
    #: As written, brackets included.
    raw: str
    #: Why it cannot be used, in words; None if it can.
    problem: str | None = None


def parse_tags(text: str) -> tuple[str, tuple[LoraTag, ...]]:
    """The text without its tags (the blanks around them stay), and the tags in order, unusable ones included."""
    tags: list[LoraTag] = []

    def cut(match: re.Match[str]) -> str:
        tags.append(_tag(match[0], match[2]))
        return ""

    stripped = _TAG.sub(cut, text)
    for match in _OPEN.finditer(stripped):
        tags.append(LoraTag("", None, None, match[0], f'The tag "{_short(match[0])}" has no closing ">".'))
    return stripped, tuple(tags)


def _tag(raw: str, arguments: str) -> LoraTag:
    """Read what stands after `lora:`; the first thing wrong is the problem."""
    items = [item.strip() for item in arguments.split(":")]
    name, weights = items[0], items[1:]

    def wrong(why: str) -> LoraTag:
        return LoraTag(name, None, None, raw, f'The tag "{_short(raw)}" {why}.')

    if not name:
        return wrong("names no adapter")
    if "=" in name:
        return wrong('has "=" in the name, which is read as an option; rename the file, or put it into `loras:`')
    numbers: list[float] = []
    named: dict[str, float] = {}
    for item in weights:
        key, is_named, value = item.rpartition("=")
        number = _number(value)
        if is_named and key.strip().lower() not in ("te", "unet"):
            return wrong(f'has an option "{_short(key.strip())}" that is not known; there are te= and unet=')
        if number is None:
            return wrong(f'has a weight that is not a number: "{_short(value)}"{_comma_hint(value)}')
        if is_named:
            named[key.strip().lower()] = number
        else:
            numbers.append(number)
    if len(numbers) > 2:
        return wrong("has more than two weights; the third of A1111 (a cut of the rank) is not supported")
    te = named.get("te", numbers[0] if numbers else None)
    unet = named.get("unet", numbers[1] if len(numbers) > 1 else te)
    return LoraTag(name, te, unet, raw)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    # Python also reads "1_0"; nobody means that as a weight.
    return value if math.isfinite(value) and "_" not in text else None


def _comma_hint(text: str) -> str:
    return f" (write {text.replace(',', '.')})" if re.fullmatch(r"-?\d+,\d+", text) else ""


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}…"


def foreign_tags(text: str) -> list[str]:
    """Tags of other programs (`<hypernet:…>`, `<embed:…>`) that are left in the text, as written."""
    return [match[0] for match in _FOREIGN.finditer(text)]


# In the order of how telling an example is. A backslash makes a bracket literal.
_WEIGHTING = (
    re.compile(r"(?<!\\)\([^()\n]{1,200}:\s*[-+]?[\d.]+\s*\)"),
    re.compile(r"(?<!\\)\[[^\[\]\n]{0,200}[:|][^\[\]\n]{0,200}\]"),
    re.compile(r"(?<!\\)\([^()\n]{1,200}(?<!\\)\)"),
    re.compile(r"(?<!\\)\[[^\[\]\n]{1,200}(?<!\\)\]"),
    re.compile(r"\{[^{}\n]{0,200}\|[^{}\n]{0,200}\}"),
    re.compile(r"__[\w/*-]{1,100}__"),
    re.compile(r"(?<!\w)embedding:[\w./-]+"),
    re.compile(r"\b(?:BREAK|AND)\b"),
)


def weighting_example(text: str) -> str | None:
    """An example of prompt syntax in the text: `(word:1.2)`, `[a:b:0.5]`, `BREAK`, `{a|b}`, …; None if it has none."""
    return next((_short(match[0]) for pattern in _WEIGHTING if (match := pattern.search(text))), None)
