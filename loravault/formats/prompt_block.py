"""The text of a ```prompt block: option lines at the top, then a prompt, possibly with pasted generation data.

#| count: 4
a portrait of an astronaut, in sks style <lora:ink_outline:0.8>
Negative prompt: blurry
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 42, Size: 512x768
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from loravault.formats.infotext import Infotext, parse_infotext, split_negative
from loravault.formats.prompt_tags import LoraTag, foreign_tags, parse_tags

_OPTION = re.compile(r"[ \t]*#\|[ \t]?(?P<rest>.*)$")


@dataclass(frozen=True)
class PromptBlock:
    """What a block says; nothing is looked up or judged yet."""

    #: Key → value of the `#|` lines; keys in snake_case.
    options: dict[str, str]
    #: The prompt without its tags.
    prompt: str
    #: The prompt as written, tags included.
    written_prompt: str
    #: None if the block says nothing about it.
    negative: str | None
    #: Pasted generation data, values as text: `Steps` → `20`.
    parameters: dict[str, str]
    tags: tuple[LoraTag, ...]
    #: Name of an adapter as pasted (lower case) → its hashes, in the order they are to be tried.
    pasted_hashes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    #: What makes the block unusable, in words.
    problems: tuple[str, ...] = ()
    #: What is only worth knowing.
    warnings: tuple[str, ...] = ()


def parse_block(text: str) -> PromptBlock:
    """Read the text of a block (without its fence). Everything that is wrong is in `problems`, in words."""
    problems: list[str] = []
    warnings: list[str] = []
    options, body = _options(text.replace("\r\n", "\n").replace("\r", "\n"), problems)
    info = parse_infotext(body)
    if info is None:
        written, negative = split_negative(body)
        info = Infotext(written, negative or "")
    else:
        written = info.prompt
        negative = info.negative or None
        if info.rest:
            warnings.append(f'The text below the line "Steps: …" is not used: "{_first_line(info.rest)}".')
    prompt, tags = parse_tags(written)
    problems.extend(tag.problem for tag in tags if tag.problem)
    warnings.extend(f'"{tag}" is not interpreted and was left in the prompt.' for tag in foreign_tags(prompt))
    if negative and parse_tags(negative)[1]:
        warnings.append(
            "LoRAs in the negative prompt are not applied; put them into the prompt with a negative weight."
        )
        negative = parse_tags(negative)[0].strip()
    return PromptBlock(
        options=options,
        prompt=prompt.strip(),
        written_prompt=written,
        negative=negative,
        parameters=info.parameters,
        tags=tags,
        pasted_hashes=_pasted_hashes(info),
        problems=tuple(problems),
        warnings=tuple(warnings),
    )


def option_key(text: str) -> str:
    """`Clip skip`, `clip-skip` and `clip_skip` are one key."""
    return re.sub(r"[\s\-]+", "_", text.strip().casefold())


def unquoted(text: str) -> str:
    """A value without the quotes that people used to YAML put around it."""
    value = text.strip()
    quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1].strip() if quoted else value


def _options(text: str, problems: list[str]) -> tuple[dict[str, str], str]:
    """The option lines at the top, and the text below them. An option line further down is a problem, not prompt."""
    options: dict[str, str] = {}
    lines = text.split("\n")
    at = 0
    while at < len(lines) and (not lines[at].strip() or _OPTION.match(lines[at])):
        match = _OPTION.match(lines[at])
        if match and match["rest"].strip():
            _option(match["rest"], options, problems)
        at += 1
    body = []
    for line in lines[at:]:
        if _OPTION.match(line):
            problems.append(
                f'The option "{_first_line(line)}" stands below the prompt; options belong to the top of the block.'
            )
        else:
            body.append(line)
    return options, "\n".join(body)


def _option(rest: str, options: dict[str, str], problems: list[str]) -> None:
    key, colon, value = rest.partition(":")
    name = option_key(key)
    if not colon or not name:
        problems.append(f'The option line "#| {_first_line(rest)}" is not of the form "#| key: value".')
    elif name in options:
        problems.append(f'The option "{name}" is given twice in this block.')
    else:
        options[name] = unquoted(value)


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= 60 else f"{line[:57]}…"


def _pasted_hashes(info: Infotext) -> dict[str, tuple[str, ...]]:
    """Hashes of adapters by name: those of `Lora hashes` (AutoV3) first, then those of Civitai's `Hashes` (AutoV2)."""
    found: dict[str, list[str]] = {}
    for name, value in info.lora_hashes.items():
        found.setdefault(name.casefold(), []).append(value)
    for key, value in _lora_entries(info.hashes).items():
        found.setdefault(key, []).append(value)
    return {name: tuple(dict.fromkeys(values)) for name, values in found.items()}


def _lora_entries(hashes: Mapping[str, str]) -> dict[str, str]:
    result = {}
    for key, value in hashes.items():
        kind, colon, name = key.partition(":")
        if colon and name.strip() and kind.strip().casefold() in ("lora", "lyco"):
            result[name.strip().casefold()] = value
    return result
