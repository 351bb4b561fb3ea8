"""An example prompt for an adapter, and a link that makes a request of it in Obsidian. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import NamedTuple
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
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.()+/-]+(?: [A-Za-z0-9_.()+/-]+)*\Z")
#: Nearly every trigger word and tag: what cleans a text leaves this one as it is.
_CLEAN = re.compile(r"[A-Za-z0-9_(][A-Za-z0-9_.()'+/-]*(?: [A-Za-z0-9_.()'+/-]+)*\Z")
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
    return example(entry, lora_tag(call, entry.weight)).prompt


class Example(NamedTuple):
    """An example of a prompt."""

    prompt: str
    #: Its words without the tag, if they would be the same with any other tag.
    words: str | None


def example(entry: Entry, tag: str) -> Example:
    """See `example_prompt`. `tag` applies the adapter."""
    triggers = _triggers(entry)
    first = True
    for parts in _tried(entry, triggers):
        words = ", ".join([part for part in parts if part])
        if ":" not in words:  # neither `Negative prompt:` nor `Steps:`
            return Example(with_tag(words, tag), words if first else None)
        prompt = with_tag(words, tag)
        if _reads_as(prompt):
            return Example(prompt, None)
        first = False
    return Example(with_tag(_SCENES.get(entry.family, _SCENE), tag), None)


def with_tag(words: str, tag: str) -> str:
    """The words, and the tag behind them; one of the two may be empty."""
    return f"{words} {tag}" if words and tag else words or tag


def _tried(entry: Entry, triggers: list[str]) -> Iterator[list[str]]:
    """What an example may say, the best first."""
    for words in _samples(entry):
        yield _with_triggers(triggers, words)
    captions = _captions(entry)
    for words in _caption_sentence(captions, triggers):
        yield _with_triggers(triggers, words)
    said = {word.casefold() for word in triggers} | _of_other_groups(entry)
    fitting = (one.text for one in captions if one.words <= 5 and one.folded not in said)
    shown = list(islice(fitting, _CAPTION_TAGS))
    yield [*triggers, *(shown or [_SCENES.get(entry.family, _SCENE)])]


def lora_tag(call: str, weight: float | None) -> str:
    """`<lora:name:0.8>`; empty for a name that such a tag cannot hold (with `:` or `=`) or that a note would run.

    Without a weight the tag has none: then it is applied as strongly as its card says at the time.
    """
    return _lora_tag(call, weight)


@lru_cache(maxsize=64)  # a card and a page ask several times for the same one
def _lora_tag(call: str, weight: float | None) -> str:
    tag = f"<lora:{call}>" if weight is None else f"<lora:{call}:{weight:g}>"
    if (weight is None or math.isfinite(weight)) and _PLAIN_NAME.match(call):
        return tag
    if inert_value(call) != call:
        return ""
    _, tags = parse_tags(tag)
    return tag if len(tags) == 1 and tags[0].raw == tag and tags[0].name == call and not tags[0].problem else ""


def try_uri(vault_name: str, name: str, call: str, weight: float | None, prompt: str) -> str:
    """The "Try it" link of the adapter `name`, which prompts call `call`.

    Empty for a name that would be run by Templater in the new note.
    """
    by_name = ""
    if not _PLAIN_NAME.match(call):
        if inert_value(call) != call:
            return ""
        by_name = "" if lora_tag(call, 1) else format_value(f"{call} {weight or 1:g}")
    return request_uri(vault_name, f"Try {name}", prompt, by_name)


@lru_cache(maxsize=64)
def _uri_start(vault_name: str) -> str:
    return f"obsidian://new?vault={_quoted(vault_name)}&name="


def request_uri(vault_name: str, title: str, block: str, loras: str = "") -> str:
    """An `obsidian://new` link: a note of this title with the block in it. Ticking `run` there makes the picture.

    `loras` names the adapter where the block cannot.
    """
    named = f"loras:\n  - {loras}\n" if loras else ""
    return (
        f"{_uri_start(vault_name)}{_quoted(safe_stem(title, 100))}&content={_HEAD}"
        f"{_quoted(named) if named else ''}{_BODY}{_quoted(block)}{_TAIL}"
    )


_UNSAFE = re.compile(r"[^A-Za-z0-9_.~%-]")
#: Signs of nearly every prompt.
_USUAL = {sign: quote(sign, safe="") for sign in " ,<>:()/"}


def _quoted(text: str) -> str:
    """`urllib.parse.quote` with nothing safe, in one go for nearly every text."""
    if "%" in text or not text.isascii():
        return quote(text, safe="")
    for sign, escape in _USUAL.items():
        text = text.replace(sign, escape)
    return _UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", text) if _UNSAFE.search(text) else text


#: What stands around the block of a request, and around the adapter that it names.
_HEAD, _BODY, _TAIL = map(_quoted, ("---\nloravault: generate\nrun: false\n", "---\n\n```prompt\n", "\n```\n"))


def _triggers(entry: Entry) -> list[str]:
    always, groups = plain_and_groups(entry.trigger_words)
    chosen = always or (groups[0].words if groups else ())
    return [word for word in map(_clean, chosen[:_MAX_WORDS]) if word]


def _of_other_groups(entry: Entry) -> set[str]:
    """What shows another of several outfits: two in one picture are none."""
    if not any(": " in word for word in entry.trigger_words):  # nearly every adapter has no groups
        return set()
    always, groups = plain_and_groups(entry.trigger_words)
    chosen = 0 if always else 1
    kept = {word.casefold() for group in groups[:chosen] for word in group.words}
    return {word.casefold() for group in groups[chosen:] for word in group.words} - kept


def _samples(entry: Entry) -> list[str]:
    """The sample prompts of its sidecars that are neither a word nor a novel."""
    samples = entry.facts.get("sample_prompts")
    if not samples:
        return []
    cleaned = [_clean(str(sample)) for sample in list(samples)[:5]]
    return [words for words in cleaned if 3 <= len(words) <= MAX_PROMPT]


def _with_triggers(triggers: list[str], words: str) -> list[str]:
    return [*(trigger for trigger in triggers if trigger.casefold() not in words.casefold()), words]


def _caption_sentence(captions: list[_Caption], triggers: list[str]) -> list[str]:
    """The commonest caption that is a short sentence, best one with the trigger words; none if captions are tags."""
    sentences = [one for one in captions if one.is_sentence]
    best = [one for one in sentences if any(word.casefold() in one.folded for word in triggers)]
    return [one.text for one in (best or sentences)[:1]]


class _Caption(NamedTuple):
    """A caption, or a tag of captions, on one line."""

    text: str
    folded: str
    #: How many.
    words: int
    is_sentence: bool


def _captions(entry: Entry) -> list[_Caption]:
    """The commonest captions, or tags of captions."""
    pairs = entry.facts.get("captions")
    if not pairs:
        return []
    try:
        return _read_captions([text for text, _count in pairs[:_CAPTIONS]])
    except (TypeError, ValueError):  # not as the index has them
        some = (pair for pair in list(pairs)[:_CAPTIONS] if isinstance(pair, _SEQUENCE) and pair)
        return _read_captions([str(pair[0]) for pair in some])


def _read_captions(texts: list[str]) -> list[_Caption]:
    is_short = max(map(len, texts), default=0) <= _SHORT
    return [one for one in map(_short_caption if is_short else _read_caption, texts) if one.text]


def _read_caption(line: str) -> _Caption:
    text = _cleaned(line)
    words = len(text.split())
    return _Caption(text, text.casefold(), words, text.startswith(_ARTICLES) and 4 <= words <= _MAX_WORDS)


_short_caption = lru_cache(maxsize=4096)(_read_caption)


def _clean(text: str) -> str:
    """One line without tags of any program, and without anything that is active in a note."""
    return _cleaned_short(text) if len(text) <= _SHORT else _cleaned(text)


def _cleaned(text: str) -> str:
    if _CLEAN.match(text):
        return text
    line = _ANGLES.sub(" ", inert_value(" ".join(text.split())))
    return _COMMAS.sub(",", " ".join(line.split())).strip(" ,").removeprefix("#|").strip()


_cleaned_short = lru_cache(maxsize=4096)(_cleaned)


def _reads_as(prompt: str) -> bool:
    """Whether a block with this line says this prompt and nothing else."""
    block = parse_block(prompt)
    return block.written_prompt == prompt and not block.parameters and block.negative is None and not block.problems
