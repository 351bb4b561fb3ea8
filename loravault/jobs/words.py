"""The sentences of an answer: what stands in the callout and in `lv_message`. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from loravault.formats.block_weights import as_words
from loravault.formats.generation import AdapterUse, GenerationSpec
from loravault.vault.inert import inert
from loravault.vault.links import embed, wikilink

#: Pixels: wide enough to judge a picture, narrow enough for four in a row.
EMBED_WIDTH = 256

#: Pixels: a preview stands in a line with its name.
PREVIEW_WIDTH = 192

#: A property is a single line in a narrow column.
MESSAGE_LIMIT = 240


@dataclass(frozen=True)
class Made:
    """What became of one block."""

    spec: GenerationSpec
    #: Vault-relative paths, in the order of the seeds.
    images: tuple[str, ...]
    #: None if nobody measured it.
    seconds: float | None
    #: Whole sentences: what was added, missing, unknown or weak.
    remarks: tuple[str, ...] = ()
    #: adapter name -> vault-relative path of its card, for those that have one.
    cards: Mapping[str, str] | None = None


def result_lines(made: Made) -> list[str]:
    """The callout that shows pictures; the first line is its title."""
    took = () if made.seconds is None else (duration(made.seconds),)
    told = (images_phrase(len(made.images)), seeds_phrase(made.spec.seeds), *took)
    title = f"[!lora-result]+ {' · '.join(told)}"
    pictures = " ".join(embed(path, EMBED_WIDTH) for path in made.images)
    return [title, pictures, settings_line(made), *remark_lines(made.remarks)]


def remark_lines(remarks: Collection[str]) -> list[str]:
    """Sentences below a result: one as it is, several as a list."""
    mark = "- " if len(remarks) > 1 else ""
    return [f"{mark}{sentence(remark)}" for remark in remarks]


def made_lines(made: Made, *, sheet: bool) -> list[str]:
    """What a job that made pictures has to say: a callout of its own, or its part of one for many jobs."""
    return sheet_part(made) if sheet else result_lines(made)


def sheet_part(made: Made) -> list[str]:
    """The pictures of one adapter with its name on a line; then remarks, one each."""
    pictures = " ".join(embed(path, PREVIEW_WIDTH) for path in made.images)
    adapters = " · ".join(_adapters(made))
    return [f"{pictures} {adapters}", *made.remarks]


def failure_lines(messages: Sequence[str]) -> list[str]:
    """The callout of a block that made no picture: what went wrong and what to do next."""
    title = "[!failure] No picture was made"
    if len(messages) == 1:
        return [title, sentence(messages[0])]
    return [title, *(f"- {sentence(message)}" for message in messages)]


def settings_line(made: Made) -> str:
    """Adapters, base and numbers, as people compare them."""
    return " · ".join([*_adapters(made), numbers_line(made.spec)])


def _adapters(made: Made) -> list[str]:
    cards = made.cards or {}
    family = made.spec.base.family
    return [f"{_adapter(use.name, cards)} {_strength(use, family)}" for use in made.spec.adapters]


def numbers_line(spec: GenerationSpec) -> str:
    """Base and numbers."""
    numbers = [
        spec.base.name,
        spec.sampler,
        f"{spec.steps} steps",
        f"cfg {number(spec.cfg)}",
        f"{spec.width}×{spec.height}",
    ]
    if spec.clip_skip > 1:
        numbers.append(f"clip skip {spec.clip_skip}")
    if spec.vae is not None:
        numbers.append(f"VAE {spec.vae.name}")
    return " · ".join(inert(part) for part in numbers)


def _adapter(name: str, cards: Mapping[str, str]) -> str:
    return wikilink(cards[name].removesuffix(".md"), name) if name in cards else inert(name)


def _strength(use: AdapterUse, family: str) -> str:
    both = number(use.unet) if use.te == use.unet else f"te {number(use.te)} unet {number(use.unet)}"
    return f"{both} {as_words(use.blocks, family)}" if use.blocks else both


#: Code spans that our own sentences hold: plain words, and nothing that a plugin would evaluate.
_CODE = re.compile(r"(```prompt|`(?:#\| )?[A-Za-z<][A-Za-z0-9 _:.,/<>-]*`)")


def sentence(text: str) -> str:
    """A sentence that may quote strangers, made harmless; plain code spans (`run: true`) stay as they are."""
    parts = _CODE.split(text)
    return "".join(part if n % 2 else _keeping_blanks(part) for n, part in enumerate(parts))


def _keeping_blanks(text: str) -> str:
    if not text.strip():
        return " " if text else ""
    return f"{' ' if text[0].isspace() else ''}{inert(text)}{' ' if text[-1].isspace() else ''}"


def images_phrase(count: int) -> str:
    """`1 image`, `4 images`."""
    return f"{count} image" if count == 1 else f"{count} images"


def seeds_phrase(seeds: Sequence[int]) -> str:
    """`seed 42`, `seed 42–45`, or every one of them."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if all(later == earlier + 1 for earlier, later in pairwise(seeds)):
        return f"seed {seeds[0]}–{seeds[-1]}"
    return "seeds " + ", ".join(str(seed) for seed in seeds)


def duration(seconds: float) -> str:
    """`12.3 s`, `2 min 5 s`, `1 h 4 min`."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def number(value: float) -> str:
    """A number as a person writes it: `7`, `0.8`."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:g}"


def one_line(text: str) -> str:
    """A sentence that fits a property."""
    flat = sentence(" ".join(text.split()))
    return flat if len(flat) <= MESSAGE_LIMIT else flat[: MESSAGE_LIMIT - 1] + "…"


@dataclass(frozen=True)
class Ended:
    """How one job of a run ended, as far as the run's own message needs it."""

    state: str
    images: int = 0
    seconds: float = 0.0
    #: The first sentence of a failure.
    trouble: str | None = None


def run_status(states: Sequence[str]) -> str:
    """The word for a whole run: `done`, `failed`, `cancelled`, or `partial` for a mixture."""
    kinds = set(states)
    if not kinds:
        return "done"
    return kinds.pop() if len(kinds) == 1 else "partial"


def run_message(ended: Sequence[Ended]) -> str:
    """One line that tells a finished run."""
    parts: list[str] = []
    images = sum(job.images for job in ended)
    if images:
        seconds = sum(job.seconds for job in ended)
        parts.append(images_phrase(images) + (f" in {duration(seconds)}" if seconds else ""))
    failures = [job for job in ended if job.state == "failed"]
    if failures:
        trouble = failures[0].trouble or "it failed"
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        parts.append(f"{trouble}{more}")
    cancelled = sum(job.state == "cancelled" for job in ended)
    if cancelled:
        parts.append("cancelled" if cancelled == len(ended) else f"{cancelled} of {len(ended)} blocks cancelled")
    return one_line("; ".join(parts))
