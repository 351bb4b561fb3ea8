"""Requests of the kind `train`: from a note to an adapter that is asked for, or to everything that is wrong with it.

What the note does not say is decided later, when the pictures have been looked at; here only names and files are
looked up, and nothing is decoded. Prompt blocks are what is drawn with every checkpoint, resolved as any other block.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from loravault.dataset.captioner import name_of, read_captioner
from loravault.errors import UserError
from loravault.formats.generation import BaseRef, GenerationSpec, VaeRef
from loravault.formats.prompt_block import parse_block
from loravault.formats.training import Subject, TrainingPicture, TrainingSpec
from loravault.formats.training_families import RECIPES
from loravault.requests import previews, training_wishes, words
from loravault.requests.fingerprint import fingerprint
from loravault.requests.model import Block, Catalog, NotFound, Refusal, Request, Resolved
from loravault.requests.resolve import resolve_block, with_seeds
from loravault.requests.training_pictures import Found
from loravault.vault.names import safe_stem

#: Of samples that name no seed: the same for every checkpoint and every training, so that they compare.
SAMPLE_SEED = 42
#: Pictures that are drawn with each checkpoint, at most.
MOST_SAMPLES = 8
#: Folder in the loras folder where nobody names one.
CATEGORIES: Mapping[Subject, str] = {
    "character": "Characters", "style": "Styles", "object": "Objects", "concept": "Concepts",
}  # fmt: skip
#: Options of the note that its samples take over; `steps`, `seed`, … mean the training.
_SAMPLE_OPTIONS = ("negative", "size", "cfg", "sampler", "vae")
#: Words that every base has a picture of already.
_EVERYDAY = frozenset(
    {"man", "woman", "boy", "girl", "person", "people", "child", "baby", "face", "cat", "dog", "horse", "bird", "fish"}
    | {"animal", "car", "house", "tree", "flower", "style", "art", "photo", "picture", "painting", "drawing", "anime"}
    | {"character", "portrait", "landscape", "red", "blue", "green", "black", "white", "robot", "dragon", "princess"}
    | {"king", "queen", "knight", "city", "street", "room", "food", "dress", "hat"}
)


@dataclass(frozen=True)
class Places:
    """Where a training keeps what outlives the process, and where it finds what it needs besides."""

    #: Absolute; a folder in it is made for each training.
    state: Path
    cache: Path
    #: Of the model that describes pictures without a caption; None: there is none.
    captioner: Path | None = None


@dataclass(frozen=True)
class ResolvedTraining:
    """A training that can begin."""

    spec: TrainingSpec
    #: Where the adapter goes below the loras folder, with `/`; empty: its top.
    category: str
    #: 16 hex digits; equal requests have equal ones.
    fingerprint: str
    #: What is worth knowing, in words.
    warnings: tuple[str, ...] = ()


class _Work:
    """One request on its way."""

    def __init__(self, request: Request, found: Found, catalog: Catalog, taken: Mapping[str, Sequence[str]]) -> None:
        self.request = request
        self.found = found
        self.catalog = catalog
        self.taken = taken
        self.properties = training_wishes.named(request.properties)
        self.problems: list[str] = [*request.problems, *found.problems]
        self.warnings: list[str] = [*found.warnings, *training_wishes.misspelled(request.properties)]

    def text(self, key: str) -> str:
        """A property that is a text; empty if it is not given."""
        return training_wishes.text_of(self.properties, key, self.problems)


def resolve_training(
    request: Request,
    note: str,
    found: Found,
    catalog: Catalog,
    *,
    places: Places,
    taken: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> ResolvedTraining | Refusal:
    """What a note (vault-relative path) comes to. `taken`: trigger words of the library → adapters that have them."""
    work = _Work(request, found, catalog, taken)
    wishes = training_wishes.read_wishes(work.properties, work.problems)
    subject = training_wishes.subject_of(work.properties, work.problems)
    name = safe_stem(work.text("name") or note.rpartition("/")[2].removesuffix(".md"), limit=100)
    trigger, class_word = work.text("trigger"), work.text("class_word")
    base, vae = _base(work), _vae(work)
    captioner = _captioner(work, places.captioner)
    if not found.pictures and not work.problems:
        work.problems.append(
            "There is no picture to learn from: embed some in the note, or name a folder as `dataset`."
        )
    category = _category(work, subject)
    metadata = tuple((f"modelspec.{key}", value) for key in ("author", "license") if (value := work.text(key)))
    samples: tuple[GenerationSpec, ...] = ()
    if base is not None:
        samples = _samples(work, base, vae, name, trigger)
        _check_trigger(work, trigger, base)
    if work.problems or base is None:
        messages = tuple(dict.fromkeys(work.problems))
        seen = {"refused": messages, "properties": repr(sorted(request.properties.items(), key=lambda one: one[0]))}
        return Refusal(messages=messages, fingerprint=fingerprint(seen), warnings=tuple(dict.fromkeys(work.warnings)))
    spec = TrainingSpec(
        base=base,
        vae=vae,
        name=name,
        subject=subject,
        trigger=trigger,
        class_word=class_word,
        pictures=tuple(found.pictures),
        wishes=wishes,
        samples=samples,
        metadata=metadata,
        state_dir="",
        cache_dir=str(places.cache),
        captioner=str(captioner) if captioner else None,
        captioner_was_there=captioner is None or bool(_captioner_files(captioner)),
    )
    spec = replace(spec, state_dir=str(places.state / _key(spec)))
    return ResolvedTraining(
        spec=spec,
        category=category,
        fingerprint=_fingerprint(spec, category, found, work.text("again")),
        warnings=tuple(dict.fromkeys(work.warnings)),
    )


# ---- names


def _base(work: _Work) -> BaseRef | None:
    """The base that is named; else one of the family that is named, else the default one."""
    name, family = work.text("base"), work.text("family").lower()
    base = work.catalog.find_base(name or None, {family} if family else set())
    if isinstance(base, NotFound):
        near = (
            f"Nearest: {', '.join(base.closest)}." if base.closest else "`loravault bases` lists those that are here."
        )
        wanted = f'There is no base "{name}".' if name else f"There is no base{f' of {family}' if family else ''}."
        work.problems.append(base.reason or f"{wanted} {near}")
        return None
    if base.family not in RECIPES:
        work.problems.append(
            f'LoRAs cannot be trained on the base "{base.name}" ({base.family}) yet; they can on: '
            f"{', '.join(RECIPES)}. Name one of these as `base`."
        )
        return None
    return base


def _vae(work: _Work) -> VaeRef | None:
    name = work.text("vae")
    if not name or name.casefold() in ("none", "own"):
        return None
    found = work.catalog.find_vae(name)
    if isinstance(found, NotFound):
        near = f" Nearest: {', '.join(found.closest)}." if found.closest else ""
        work.problems.append(f'There is no VAE "{name}".{near}')
        return None
    return found


def _captioner(work: _Work, configured: Path | None) -> Path | None:
    """Folder of the model that describes pictures without a caption, if there are any.

    Whether it can be used is for the worker to say: a training that goes on has the captions it began with, and needs
    none.
    """
    wanted = training_wishes.switch_of(work.properties, "captioner", work.problems)
    if wanted and configured is None:
        work.warnings.append(
            "`captioner: true` has no effect: config.toml names no folder with such a model under `captioner`."
        )
    lacking = any(one.caption is None for one in work.found.pictures)
    return configured if lacking and wanted is not False else None


def _category(work: _Work, subject: Subject) -> str:
    """The folder below the loras folder; each part as a file system can hold it."""
    if "category" not in work.properties:
        return CATEGORIES[subject]
    parts = work.text("category").replace("\\", "/").split("/")
    return "/".join(
        safe_stem(part.strip(), limit=80) for part in parts if part.strip() and part.strip() not in (".", "..")
    )


def _check_trigger(work: _Work, trigger: str, base: BaseRef) -> None:
    """A trigger is best a word that means nothing yet."""
    if not trigger:
        return
    others = [name for phrase, names in work.taken.items() if _same(phrase, trigger) for name in names]
    if others:
        listed = ", ".join(sorted(set(others))[:4])
        work.warnings.append(
            f'The trigger "{trigger}" is that of {listed} too: used together, both listen to it. Another word keeps '
            "them apart."
        )
    known = work.catalog.vocabulary(base)
    parts = trigger.casefold().replace("_", " ").replace(",", " ").split()
    if all(part in (known if known is not None else _EVERYDAY) for part in parts):
        work.warnings.append(
            f'The trigger "{trigger}" is an everyday word: the base has a picture of it already, which is then changed '
            "everywhere. A word that means nothing, such as sks, is better."
        )
    captions = [picture.caption or "" for picture in work.found.pictures if not picture.regularisation]
    told = (
        words.unknown_words(" ".join(captions).replace(trigger, " "), known, base.name) if known is not None else None
    )
    if told and "none of the words" not in told:
        work.warnings.append(f"{told.rstrip('.')} (words of the captions).")


def _same(phrase: str, trigger: str) -> bool:
    return " ".join(phrase.casefold().replace("_", " ").split()) == " ".join(
        trigger.casefold().replace("_", " ").split()
    )


# ---- samples


def _samples(work: _Work, base: BaseRef, vae: VaeRef | None, name: str, trigger: str) -> tuple[GenerationSpec, ...]:
    """What is drawn with every checkpoint: the note's blocks, or one that follows from the trigger."""
    blocks = work.request.blocks or (_own_sample(work, base, trigger),)
    specs: list[GenerationSpec] = []
    lacking: list[str] = []
    for block in blocks:
        resolved = _sample(work, block, base, name)
        if isinstance(resolved, Refusal):
            quoted = f'The sample prompt "{block.first_line}"' if block.first_line else "A sample prompt"
            work.problems += [f"{quoted}: {message}" for message in resolved.messages]
            continue
        if trigger and not words.contains(resolved.prompt, trigger):
            lacking.append(block.first_line)
        specs.append(replace(with_seeds(resolved, lambda: SAMPLE_SEED), vae=vae or resolved.vae))
    count = sum(len(spec.seeds) for spec in specs)
    if count > MOST_SAMPLES:
        work.problems.append(
            f"The sample prompts ask for {count} pictures with every checkpoint; at most {MOST_SAMPLES} are drawn."
        )
    if lacking and work.request.blocks:
        listed = ", ".join(f'"{line}"' for line in lacking[:3])
        work.warnings.append(
            f'Sample prompts without the trigger "{trigger}" show what the LoRA does unasked: {listed}.'
        )
    return tuple(specs)


def _sample(work: _Work, block: Block, base: BaseRef, name: str) -> Resolved | Refusal:
    """One block, with the note's options as far as they mean a picture; a tag of the adapter itself is left out."""
    options: dict[str, Any] = {key: value for key, value in work.properties.items() if key in _SAMPLE_OPTIONS}
    options["base"] = base.name
    tags = tuple(tag for tag in block.parsed.tags if tag.name.casefold() != name.casefold())
    own = replace(block, parsed=replace(block.parsed, tags=tags), container_problem=None)
    request = replace(work.request, options=options, problems=())
    return resolve_block(request, own, work.catalog)


def _own_sample(work: _Work, base: BaseRef, trigger: str) -> Block:
    """Where the note has no block: the first caption, else the trigger, else what previews show."""
    caption = next((one.caption for one in work.found.pictures if one.caption and not one.regularisation), None)
    standard = previews.standard(base.family, base.variant)
    prompt = caption or trigger or standard.prompt
    if trigger and not words.contains(prompt, trigger):
        prompt = f"{trigger}, {prompt}"
    escaped = prompt.replace("<", "(").replace(">", ")").lstrip("# |")
    return Block(fence_index=-1, block_hash="", ordinal=0, parsed=parse_block(escaped))


# ---- what makes two requests the same


def _key(spec: TrainingSpec) -> str:
    """The folder in which this training keeps its state: the same for the same wishes, whatever its samples are."""
    told = _told(spec)
    digest = hashlib.blake2b(fingerprint(told).encode(), digest_size=4).hexdigest()
    return f"{safe_stem(spec.name, limit=40).replace(' ', '-')}-{digest}"


def _fingerprint(spec: TrainingSpec, category: str, found: Found, again: str) -> str:
    sizes = [[name, size] for name, size in found.sizes()]
    samples = [[one.prompt, one.negative, list(one.seeds), one.width, one.height, one.steps] for one in spec.samples]
    told = {**_told(spec), "category": category, "sizes": sizes, "samples": samples, "again": again}
    if spec.captioner is not None:  # another model may have come into its folder; a copy of the same is the same
        told["captioner_files"] = _captioner_files(Path(spec.captioner))
    return fingerprint(told)


def _captioner_files(folder: Path) -> list[list[Any]]:
    """Empty while it cannot be used: repaired, it makes another adapter."""
    try:
        return [[name, size] for name, size in read_captioner(folder).sizes]
    except UserError:
        return []


def _told(spec: TrainingSpec) -> dict[str, Any]:
    """What decides an adapter, without a place on a disk."""
    return {
        "v": 1,
        "base": [spec.base.family, spec.base.name],
        "vae": spec.vae.name if spec.vae else "",
        "name": spec.name,
        "subject": spec.subject,
        "trigger": spec.trigger,
        "class": spec.class_word,
        "pictures": [_picture(one) for one in spec.pictures],
        "wishes": {key: _plain(value) for key, value in asdict(spec.wishes).items() if value is not None},
        **_described(spec),
    }


def _described(spec: TrainingSpec) -> dict[str, Any]:
    """Nothing where nobody describes anything, so that requests without a captioner stay what they were."""
    if spec.captioner is None:
        return {}
    lacking = [one.name for one in spec.pictures if one.caption is None]
    return {"captioner": [name_of(Path(spec.captioner)), lacking]}


def _picture(one: TrainingPicture) -> list[Any]:
    return [one.name, one.caption or "", one.repeats, one.mask is not None, one.regularisation]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
