"""Requests of the kind `preview`: pictures that stand for adapters which have none. Pure.

Each adapter is drawn with one prompt, so that pictures of a family can be compared: the user's own block, or the
standard prompt of the family, with the adapter's trigger words in front.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from loravault.formats.generation import BaseRef, VaeRef
from loravault.formats.prompt_block import parse_block
from loravault.requests import options, words
from loravault.requests.adapters import Chosen
from loravault.requests.model import Block, Catalog, KnownAdapter, NotFound, Refusal, Request, Resolved, Several
from loravault.requests.resolve import resolve_block

#: Adapters of one run where `count` does not say otherwise, and at most.
COUNT, MOST = 12, 1000
#: The same for all, so that pictures compare.
SEED = 42

# What a block of ours calls an adapter, with its weight id behind: a name that no file can have.
_PINNED = "\0"


@dataclass(frozen=True)
class Standard:
    """What is drawn to show an adapter of a family."""

    prompt: str
    negative: str = ""
    #: For an adapter that is a thing rather than a style, where the base draws only what it is told by name: its
    #: trigger words stand for `{words}`.
    thing: str | None = None


_SCENE = "portrait of a person in a garden, a small house behind, soft daylight, highly detailed"
_SENTENCE = "A person stands in a garden, with a small house behind and soft daylight."
_ANIME_BAD = "worst quality, low quality, bad anatomy, bad hands, watermark, text"

#: Variant or family -> its prompt. A neutral scene with a person, a building and plants: something for every adapter to
#: change. Bases that were trained with words for quality and rating get those.
STANDARD: Mapping[str, Standard] = MappingProxyType(
    {
        "demo": Standard("a picture of a red house in a meadow", thing="a picture of a {words} in a meadow"),
        "sd15": Standard(_SCENE, "lowres, bad anatomy, blurry, watermark, text"),
        "sd2": Standard(_SCENE, "lowres, bad anatomy, blurry, watermark, text"),
        "sdxl": Standard(_SCENE, "lowres, blurry, watermark, text"),
        "pony": Standard(
            "score_9, score_8_up, score_7_up, rating_safe, 1person, upper body, garden, cottage, daylight",
            "score_4, score_5, score_6, watermark, text",
        ),
        "illustrious": Standard(
            "masterpiece, best quality, general, 1other, upper body, garden, cottage, daylight", _ANIME_BAD
        ),
        "noobai": Standard(
            "masterpiece, best quality, general, 1other, upper body, garden, cottage, daylight", _ANIME_BAD
        ),
        "animagine": Standard(
            "1other, upper body, garden, cottage, daylight, safe, masterpiece, high score", _ANIME_BAD
        ),
        "kolors": Standard(_SCENE, "lowres, blurry, watermark, text"),
    }
)
_OTHERS = Standard(_SENTENCE)


def standard(family: str, variant: str | None = None) -> Standard:
    """What is drawn for adapters of this family; of its variant, if that has its own way of being asked."""
    own = STANDARD.get((variant or "").casefold())
    return own or STANDARD.get(family, _OTHERS)


@dataclass(frozen=True)
class Subject:
    """An adapter that is to be shown."""

    chosen: Chosen
    variant: str | None = None
    #: The user named it, so that its picture goes before others.
    named: bool = False

    @property
    def weight_id(self) -> str:
        """Which adapter it is."""
        return self.chosen.adapter.weight_id

    @property
    def name(self) -> str:
        """As people know it."""
        return self.chosen.adapter.name


@dataclass(frozen=True)
class _Pinned:
    """A catalog in which one adapter is found by the name that no other has: files may share their names."""

    catalog: Catalog
    adapter: KnownAdapter

    def find_adapter(self, name: str) -> KnownAdapter | Several | NotFound:
        """The one, or what others find."""
        return self.adapter if name.startswith(_PINNED) else self.catalog.find_adapter(name)

    def find_adapter_by_hash(self, text: str) -> KnownAdapter | None:
        """As others find it."""
        return self.catalog.find_adapter_by_hash(text)

    def find_base(self, name: str | None, families: Collection[str]) -> BaseRef | NotFound:
        """As others find it."""
        return self.catalog.find_base(name, families)

    def vocabulary(self, base: BaseRef) -> frozenset[str] | None:
        """As others know it."""
        return self.catalog.vocabulary(base)

    def find_vae(self, name: str) -> VaeRef | NotFound:
        """As others find it."""
        return self.catalog.find_vae(name)

    def defaults_for(self, family: str, variant: str | None = None) -> Mapping[str, Any]:
        """As others have them."""
        return self.catalog.defaults_for(family, variant)

    def config_defaults(self) -> Mapping[str, Any]:
        """Without those that are the preview's own."""
        return {key: value for key, value in self.catalog.config_defaults().items() if key not in ("count", "negative")}

    def block_presets(self) -> Mapping[str, str]:
        """As others have them."""
        return self.catalog.block_presets()

    @property
    def max_count(self) -> int:
        """As others have it."""
        return self.catalog.max_count


def count_of(request: Request, problems: list[str]) -> int:
    """How many adapters one run shows."""
    given = options.gather([("the properties", request.options)])
    found = options.read(given, "count", options.whole(1, MOST, " (the most LoRAs of one run)"), problems)
    return COUNT if found is None else found


def blocks_of(request: Request) -> tuple[Block | None, ...]:
    """The prompts that every adapter is drawn with: those of the note, or None for the standard one."""
    return request.blocks or (None,)


def standard_block(subject: Subject) -> Block:
    """A block that stands in no note."""
    return Block(fence_index=-1, block_hash="", ordinal=0, parsed=parse_block(_standard_prompt(subject)))


def _standard_prompt(subject: Subject) -> str:
    found = standard(subject.chosen.adapter.family, subject.variant)
    needed = words.needed_words(subject.chosen)
    if found.thing is None or not needed or any("style" in text.casefold() for text in (subject.name, *needed)):
        return found.prompt
    return found.thing.replace("{words}", ", ".join(needed))


def told_prompts(subjects: Iterable[Subject]) -> tuple[str, ...]:
    """What is said about the standard prompts that these are drawn with."""
    prompts = dict.fromkeys(standard(one.chosen.adapter.family, one.variant).prompt for one in subjects)
    if not prompts:
        return ()
    listed = ", ".join(f'"{prompt}"' for prompt in prompts)
    return (f"The standard prompt{'' if len(prompts) == 1 else 's'}, with the trigger words of each: {listed}.",)


def resolve(request: Request, block: Block, subject: Subject, catalog: Catalog) -> Resolved | Refusal:
    """What one block comes to for one adapter."""
    one = subject.chosen
    given = {key: value for key, value in request.options.items() if key not in ("loras", "count")}
    given.setdefault("seed", SEED)
    if block.fence_index < 0:
        given.setdefault("negative", standard(one.adapter.family, subject.variant).negative)
    blocks = "" if one.written is None else f":lbw={one.written}"
    given["loras"] = [f"<lora:{_PINNED}{subject.weight_id}:{one.te:.4f}:{one.unet:.4f}{blocks}>"]
    wanted = block.parsed.options.get("triggers", given.get("triggers"))
    parsed = block.parsed
    if wanted is None:
        parsed = replace(parsed, prompt=words.with_triggers_in_front(parsed.prompt, one))
        given["triggers"] = "off"  # they stand in front already: it is there that a small base listens
    pinned = _Pinned(catalog, one.adapter)
    return resolve_block(replace(request, options=given), replace(block, parsed=parsed), pinned)
