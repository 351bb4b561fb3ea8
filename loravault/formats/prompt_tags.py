"""`<lora:name:0.8>` in a prompt, by A1111's grammar, and what else in a prompt means something to other programs.

    <lora:name>  <lora:name:te>  <lora:name:te:unet>  te=0.5  unet=0.5      `lyco` is read as `lora`
    <lora:name:1:lbw=INALL>  <lora:name:1:1:0,0,1,…>  <lora:name:1:in=0.5:mid=1>      strengths per block

The first number is the text encoder's, a second one the UNet's, as in A1111 and Forge (ComfyUI's managers swap them).
Strengths per block are written as A1111's block weights and SD.Next have them; what they mean depends on the base.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from loravault.formats.block_weights import KEY, PRESETS
from loravault.formats.blocks import VECTORS

_SHORTEST_VECTOR = min(len(names) for vectors in VECTORS.values() for names in vectors)
_KNOWN_OPTIONS = "te=, unet= and, for strengths per block, lbw=, in=, mid=, out="
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
    #: Strengths per block, as `block_weights.read_blocks` reads them; None if none are given.
    blocks: str | None = None


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
    name, *items = (item.strip() for item in arguments.split(":"))
    said = _Said()
    if not name:
        problem: str | None = "names no LoRA"
    elif "=" in name:
        problem = 'has "=" in the name, which is read as an option; rename the file, or put it into `loras:`'
    else:
        problem = next((wrong for item in items if (wrong := said.add(item))), None)
        if problem is None and len(said.numbers) > 2:
            problem = "has more than two weights; the third of A1111 (a cut of the rank) is not supported"
    if problem is not None:
        return LoraTag(name, None, None, raw, f'The tag "{_short(raw)}" {problem}.')
    te = said.named.get("te", said.numbers[0] if said.numbers else None)
    unet = said.named.get("unet", said.numbers[1] if len(said.numbers) > 1 else te)
    return LoraTag(name, te, unet, raw, blocks=" ".join(said.blocks) or None)


@dataclass
class _Said:
    """What the items after the name say."""

    numbers: list[float] = field(default_factory=list)
    named: dict[str, float] = field(default_factory=dict)
    blocks: list[str] = field(default_factory=list)

    def add(self, item: str) -> str | None:
        """Takes one item; what is wrong with it, if anything."""
        key, value = _option(item)
        if key == "lbw" or (key is None and _number(value) is None and _are_blocks(value)):
            self.blocks.insert(0, value)
        elif key not in (None, "te", "unet"):
            if not KEY.fullmatch(str(key)):
                return f'has an option "{_short(str(key))}" that is not known; there are {_KNOWN_OPTIONS}'
            self.blocks.append(f"{key}={value}")
        elif (number := _number(value)) is None:
            return f'has a weight that is not a number: "{_short(value)}"{_comma_hint(value)}'
        elif key is None:
            self.numbers.append(number)
        else:
            self.named[key] = number
        return None


def _option(item: str) -> tuple[str | None, str]:
    """`("te", "0.5")` of `te=0.5`; without a key for what has none."""
    key, is_named, value = item.partition("=")
    return (key.strip().lower(), value.strip()) if is_named else (None, item)


def _are_blocks(item: str) -> bool:
    """Whether what stands where a weight belongs means blocks: a name of A1111's, or a vector."""
    return item.upper() in PRESETS or item.count(",") >= _SHORTEST_VECTOR - 1


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
