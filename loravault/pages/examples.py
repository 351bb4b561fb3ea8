"""An example prompt for an adapter, and a link that makes a request of it in Obsidian. Pure."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from itertools import islice
from urllib.parse import quote

from loravault.formats.prompt_block import parse_block
from loravault.formats.prompt_tags import parse_tags
from loravault.formats.trigger_words import plain_and_groups
from loravault.library.entry import Entry
from loravault.vault.inert import inert_value
from loravault.vault.names import safe_stem
from loravault.vault.yamlwrite import format_value

#: A sample prompt of a stranger is used up to this length, in characters.
MAX_PROMPT = 600
_MAX_WORDS = 12
_CAPTIONS, _CAPTION_TAGS = 40, 6
_ARTICLES = ("a ", "an ", "the ")
_ANGLES = re.compile(r"<[^<>]*>|[<>]")
_COMMAS = re.compile(r"(?:\s*,){2,}")
#: Nearly every name: no sign in it means anything to a tag or to a note.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.()+-]+(?: [A-Za-z0-9_.()+-]+)*\Z")
#: Texts up to this length are cleaned once: the captions of a library are a few thousand tags over and over.
_SHORT = 80
_SCENES = {"demo": "a red house in a meadow"}
_SEQUENCE = (list, tuple)
_SCENE = "portrait, soft light"


def example_prompt(entry: Entry, call: str) -> str:
    """One line, ready to copy: words that show the adapter, its trigger words, and the tag that applies it.

    The words are those of a good sample prompt of the sidecars, else what most of its training pictures show.
    `call` is the name by which prompts find the adapter.
    """
    triggers = _triggers(entry)
    tag = lora_tag(call, entry.weight)
    said = {word.casefold() for word in triggers}
    captions = _captions(entry)
    fitting = (word for word in captions if len(word.split()) <= 5 and word.casefold() not in said)
    shown = list(islice(fitting, _CAPTION_TAGS))
    scene = _SCENES.get(entry.family, _SCENE)
    tried = (
        *(_with_triggers(triggers, words) for words in (*_samples(entry), *_caption_sentence(captions, triggers))),
        [*triggers, *(shown or [scene])],
    )
    prompts = (_joined(parts, tag) for parts in tried)
    return next((prompt for prompt in prompts if _reads_as(prompt, tag)), _joined([scene], tag))


@lru_cache(maxsize=64)  # a card and a page ask several times for the same one
def lora_tag(call: str, weight: float | None) -> str:
    """`<lora:name:0.8>`; empty for a name that such a tag cannot hold (with `:` or `=`) or that a note would run."""
    factor = 1 if weight is None else weight
    tag = f"<lora:{call}:{factor:g}>"
    if math.isfinite(factor) and _PLAIN_NAME.match(call):
        return tag
    if inert_value(call) != call:
        return ""
    _, tags = parse_tags(tag)
    return tag if len(tags) == 1 and tags[0].raw == tag and tags[0].name == call and not tags[0].problem else ""


def try_uri(vault_name: str, name: str, call: str, weight: float | None, prompt: str) -> str:
    """The "Try it" link of the adapter `name`, which prompts call `call`.

    Empty for a name that would be run by Templater in the new note.
    """
    if inert_value(call) != call:
        return ""
    by_name = "" if lora_tag(call, 1) else format_value(f"{call} {weight or 1:g}")
    return request_uri(vault_name, f"Try {name}", prompt, by_name)


def request_uri(vault_name: str, title: str, block: str, loras: str = "") -> str:
    """An `obsidian://new` link: a note of this title with the block in it. Ticking `run` there makes the picture.

    `loras` names the adapter where the block cannot.
    """
    named = f"loras:\n  - {loras}\n" if loras else ""
    content = f"---\nloravault: generate\nrun: false\n{named}---\n\n```prompt\n{block}\n```\n"
    parts = {"vault": vault_name, "name": safe_stem(title, 100), "content": content}
    return "obsidian://new?" + "&".join(f"{key}={_quoted(value)}" for key, value in parts.items())


_ESCAPES = str.maketrans({sign: quote(sign, safe="") for sign in map(chr, range(128))})


def _quoted(text: str) -> str:
    """`urllib.parse.quote` with nothing safe, in one go for nearly every text."""
    return text.translate(_ESCAPES) if text.isascii() else quote(text, safe="")


def _triggers(entry: Entry) -> list[str]:
    always, groups = plain_and_groups(entry.trigger_words)
    chosen = always or (groups[0].words if groups else ())
    return [word for word in map(_clean, chosen[:_MAX_WORDS]) if word]


def _samples(entry: Entry) -> list[str]:
    """The sample prompts of its sidecars that are neither a word nor a novel."""
    cleaned = [_clean(str(sample)) for sample in list(entry.facts.get("sample_prompts") or ())[:5]]
    return [words for words in cleaned if 3 <= len(words) <= MAX_PROMPT]


def _with_triggers(triggers: list[str], words: str) -> list[str]:
    return [*(trigger for trigger in triggers if trigger.casefold() not in words.casefold()), words]


def _caption_sentence(captions: list[str], triggers: list[str]) -> list[str]:
    """The commonest caption that is a short sentence, best one with the trigger words; none if captions are tags."""
    sentences = [one for one in captions if one.startswith(_ARTICLES) and 4 <= len(one.split()) <= _MAX_WORDS]
    best = [one for one in sentences if any(word.casefold() in one.casefold() for word in triggers)]
    return (best or sentences)[:1]


def _captions(entry: Entry) -> list[str]:
    """The commonest captions, or tags of captions."""
    pairs = list(entry.facts.get("captions") or ())[:_CAPTIONS]
    return [text for pair in pairs if isinstance(pair, _SEQUENCE) and pair and (text := _clean(str(pair[0])))]


def _clean(text: str) -> str:
    """One line without tags of any program, and without anything that is active in a note."""
    return _cleaned_short(text) if len(text) <= _SHORT else _cleaned(text)


def _cleaned(text: str) -> str:
    line = _ANGLES.sub(" ", inert_value(" ".join(text.split())))
    return _COMMAS.sub(",", " ".join(line.split())).strip(" ,").removeprefix("#|").strip()


_cleaned_short = lru_cache(maxsize=8192)(_cleaned)


def _joined(parts: list[str], tag: str) -> str:
    return " ".join(filter(None, (", ".join(part for part in parts if part), tag)))


def _reads_as(prompt: str, tag: str) -> bool:
    """Whether a block with this line says this prompt and nothing else."""
    if ":" not in prompt.removesuffix(tag):  # neither `Negative prompt:` nor `Steps:`
        return True
    block = parse_block(prompt)
    return block.written_prompt == prompt and not block.parameters and block.negative is None and not block.problems
