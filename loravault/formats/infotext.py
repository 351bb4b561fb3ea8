"""A1111's infotext: the text in pictures (`parameters`) that says how they were made, written and read.

    a positive prompt, may be several lines, tags included
    Negative prompt: may be several lines
    Steps: 20, Sampler: Euler a, CFG scale: 7, Lora hashes: "a: 0123456789ab", Hashes: {"lora:a":"0123456789"}

Real texts deviate: Civitai adds JSON without quotes, SD.Next writes names and hashes in two lists, extensions add
lines.
One thing cannot be written so that it is read back: a line of the prompt that itself begins with `Negative prompt:`.
Everything here takes time in proportion to the text, which may be any paragraph of anybody's note.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# The order of A1111's own keys; what is not named here follows in the order given, `Version` comes last.
_ORDER = (
    "Steps", "Sampler", "Schedule type", "CFG scale", "Distilled CFG Scale", "Image CFG scale", "Seed",
    "Face restoration", "Size",
    "Model hash", "Model", "FP8 weight", "VAE hash", "VAE", "Variation seed", "Variation seed strength",
    "Seed resize from", "Denoising strength", "Conditional mask weight", "Clip skip", "ENSD", "Token merging ratio",
    "Token merging ratio hr", "Init image hash", "RNG", "NGMS", "Tiling",
)  # fmt: skip
_LAST = "Version"
_LORA_HASHES = "Lora hashes"
_HASHES = "Hashes"

# A line of prompt can look like one of parameters ("style: anime, mood: dark, light: soft"): one key must be known.
_KNOWN = frozenset({*_ORDER, _LAST, _LORA_HASHES, _HASHES, "Civitai resources", "Created Date"})
_NUMBER_KEYS = frozenset({"Steps", "CFG scale", "Seed", "Size", "Clip skip"})
_NUMERIC = re.compile(r"\d[\d.]*(?:x\d+)?")
_KEY = re.compile(r"\w[\w \-/]*")
_QUOTED = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_BLANKS = re.compile(r"\s*")
_END = re.compile(r"\s*(?:,|$)")
_NEGATIVE = "Negative prompt:"
_TEMPLATE_LINES = ("Template:", "Negative Template:")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Infotext:
    """How a picture was made. Texts have `\\n` line ends and no blanks at their ends."""

    prompt: str
    negative: str = ""
    #: Everything of the last line except the two below, values as text: `Steps` → `20`.
    parameters: dict[str, str] = field(default_factory=dict)
    #: Adapter as named in the prompt → AutoV3[:12], of `Lora hashes`.
    lora_hashes: dict[str, str] = field(default_factory=dict)
    #: `model`, `lora:<name>`, `embed:<name>` → AutoV2[:10], of Civitai's `Hashes`.
    hashes: dict[str, str] = field(default_factory=dict)
    #: Lines after the parameters, which belong to nothing.
    rest: str = ""


def write_infotext(info: Infotext) -> str:
    """The text to store in a picture."""
    lines = [_plain(info.prompt)]
    if _plain(info.negative):
        lines.append(f"{_NEGATIVE} {_plain(info.negative)}")
    entries = [f"{key}: {_quote(value)}" for key, value in _ordered(info.parameters)]
    version = entries.pop() if entries and _LAST in info.parameters else None
    if info.lora_hashes:
        listed = ", ".join(f"{hash_name(name)}: {value}" for name, value in info.lora_hashes.items())
        entries.append(f"{_LORA_HASHES}: {json.dumps(listed, ensure_ascii=False)}")
    if version:
        entries.append(version)
    if info.hashes:
        # Raw JSON at the very end, as the Civitai extension appends it.
        entries.append(f"{_HASHES}: {json.dumps(info.hashes, ensure_ascii=False, separators=(',', ':'))}")
    return "\n".join([*lines, ", ".join(entries)]) if entries else "\n".join(lines)


def hash_name(name: str) -> str:
    """An adapter's name as `Lora hashes` can hold it: without the characters that separate entries."""
    return " ".join(re.sub(r"[:,]", "", name).split())


def parse_infotext(text: str) -> Infotext | None:
    """Read an infotext; None if no line of parameters is found (the text is then just a prompt)."""
    lines = _plain(text).split("\n")
    at = _parameter_line(lines)
    if at is None:
        return None
    prompt, negative = split_negative("\n".join(lines[:at]))
    entries = dict(_entries(lines[at]))
    lora_hashes = _lora_hashes(entries)
    hashes = entries.pop(_HASHES, None)
    rest = [line for line in lines[at + 1 :] if not line.lstrip().startswith(_TEMPLATE_LINES)]
    return Infotext(
        prompt=prompt,
        negative=negative or "",
        parameters={key: _text(value) for key, value in entries.items()},
        lora_hashes=lora_hashes,
        hashes=_texts(hashes),
        rest="\n".join(rest).strip(),
    )


def split_negative(text: str) -> tuple[str, str | None]:
    """`(prompt, negative)`: everything from the first line that begins with `Negative prompt:` on is the negative."""
    lines = _plain(text).split("\n")
    for number, line in enumerate(lines):
        if line.strip().startswith(_NEGATIVE):
            first = line.lstrip()[len(_NEGATIVE) :]
            return "\n".join(lines[:number]).strip(), "\n".join([first, *lines[number + 1 :]]).strip()
    return "\n".join(lines).strip(), None


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def _parameter_line(lines: list[str]) -> int | None:
    """The last line that is one of parameters; below it extensions may have added theirs."""
    if _is_parameters(lines[-1]):
        return len(lines) - 1
    return next((at for at in range(len(lines) - 2, -1, -1) if _starts_with_steps(lines[at])), None)


def _starts_with_steps(line: str) -> bool:
    return line.lstrip().startswith("Steps:") and _is_parameters(line)


def _is_parameters(line: str) -> bool:
    """A1111 asks for three entries. One that is only known keys with numbers is enough when a person writes by hand."""
    entries = [(key, value) for key, value in _entries(line) if _KEY.fullmatch(key)]
    known = [key for key, _ in entries if key in _KNOWN]
    if len(entries) >= 3:
        return bool(known)
    numbers = [key for key, value in entries if key in _NUMBER_KEYS and _NUMERIC.fullmatch(_text(value))]
    return bool(numbers) and len(known) == len(entries)


def _ordered(parameters: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    first = [key for key in _ORDER if key in parameters]
    others = [key for key in parameters if key not in _ORDER and key != _LAST]
    last = [_LAST] if _LAST in parameters else []
    for key in (*first, *others, *last):
        yield key, parameters[key]


def _quote(value: str) -> str:
    plain = value.strip() == value != "" and not re.search(r'[,:\n\r]|^["{\[]', value)
    return value if plain else json.dumps(value, ensure_ascii=False)


def _entries(line: str) -> Iterator[tuple[str, Any]]:
    """The `key: value` pairs of a line; values are text, or what unquoted JSON holds. A lone word is its own value."""
    position = 0
    while position < len(line):
        comma = line.find(",", position)
        stop = comma if comma >= 0 else len(line)
        colon = line.find(":", position, stop)
        if colon < 0:
            word = line[position:stop].strip()
            position = stop + 1
            if word:
                yield word, word
            continue
        key = line[position:colon].strip()
        value, position = _value(line, _BLANKS.match(line, colon + 1).end())  # type: ignore[union-attr]  # matches ""
        if key:
            yield key, value


def _value(line: str, start: int) -> tuple[Any, int]:
    """The value that begins at `start`, and where the next entry begins."""
    if line[start : start + 1] in ("{", "["):
        try:
            value, end = _DECODER.raw_decode(line, start)
        except (ValueError, RecursionError):
            pass
        else:
            if close := _END.match(line, end):
                return value, close.end()
    quoted = _QUOTED.match(line, start)
    close = _END.match(line, quoted.end()) if quoted else None
    if quoted and close:
        try:
            return json.loads(quoted[0], strict=False), close.end()
        except ValueError:
            return quoted[0], close.end()
    comma = line.find(",", start)
    stop = comma if comma >= 0 else len(line)
    return line[start:stop].strip(), stop + 1


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _texts(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    if not isinstance(value, dict):
        return {}
    return {key: entry for key, entry in value.items() if isinstance(entry, str)}


def _lora_hashes(entries: dict[str, Any]) -> dict[str, str]:
    """A1111's `Lora hashes: "name: hash, …"`, or SD.Next's two lists `LoRA networks` and `LoRA hashes`."""
    listed = entries.pop(_LORA_HASHES, None)
    if isinstance(listed, str):
        pairs = (entry.rpartition(":") for entry in listed.split(","))
        return {name.strip(): value.strip() for name, _, value in pairs if name.strip() and value.strip()}
    names, values = entries.get("LoRA networks"), entries.get("LoRA hashes")
    if isinstance(names, str) and isinstance(values, str):
        listed_names = [name.strip().partition(":")[0] for name in names.split(",")]
        listed_values = [value.strip() for value in values.split(",")]
        if len(listed_names) == len(listed_values):
            return {name: value for name, value in zip(listed_names, listed_values, strict=True) if name and value}
    return {}
