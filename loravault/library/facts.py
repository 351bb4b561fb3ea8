"""What everything but the tensors says about an adapter, put together: one value that the index can keep as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from loravault.formats import plain
from loravault.formats.civitai import MAX_PROMPTS
from loravault.formats.claims import Claim, Rank
from loravault.formats.training_facts import TrainingFacts

MAX_TOPICS = 32
MAX_URLS = 8


class AdapterFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What metadata and sidecars claim. Texts are plain, bounded and without control characters, but not inert."""

    title: str | None = None
    version: str | None = None
    author: str | None = None
    description: str | None = None
    #: As on a card: plain words, or `name: words` for a group; see `formats.trigger_words`.
    trigger_words: tuple[str, ...] = ()
    #: Preferred strength, and the range in which it works.
    weight: float | None = None
    weight_min: float | None = None
    weight_max: float | None = None
    negative: str | None = None
    clip_skip: int | None = None
    #: What the user wrote with other tools.
    notes: str | None = None
    #: Family or variant in the words of a site: `Pony`, `SD 1.5`.
    base_model: str | None = None
    #: File or repository name of the model it was trained on.
    base_name: str | None = None
    civitai_model: int | None = None
    civitai_version: int | None = None
    urls: tuple[str, ...] = ()
    #: Tags of strangers.
    topics: tuple[str, ...] = ()
    license: str | None = None
    #: Level of its preview as on Civitai: 0 unknown, 1 PG, 2 PG-13, 4 R, 8 X, 16 XXX, 32 blocked.
    nsfw: int = 0
    favourite: bool = False
    #: 1 … 5, given by the user with another tool.
    rating: int | None = None
    sample_prompts: tuple[str, ...] = ()
    #: (tag, number of captions), the commonest first.
    captions: tuple[tuple[str, int], ...] = ()
    training: TrainingFacts | None = None
    #: Kind (`sha256`, `autov1`, `autov2`, `autov3`, `blake3`, `crc32`) -> lower-case hex. Claims, not measured.
    hashes: dict[str, str] = {}
    #: Pictures beside the file, by their bytes, the preferred first: paths inside the root.
    stills: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()
    #: Metadata entry that holds a picture.
    embedded_preview: str | None = None
    #: What could not be read or is contradictory, in sentences.
    warnings: tuple[str, ...] = ()
    #: Field -> where it was found: `modelspec.title`, `ink.civitai.info`, …
    sources: dict[str, str] = {}


def encode(facts: AdapterFacts) -> str:
    """The facts as JSON, without what is not known."""
    return msgspec.json.encode(facts).decode()


def decode(text: str) -> AdapterFacts:
    """The facts that `encode` wrote. Raises `msgspec.DecodeError`, `msgspec.ValidationError`."""
    return msgspec.json.decode(text, type=AdapterFacts)


def put_together(
    claims: Sequence[Claim],
    *,
    training: TrainingFacts | None = None,
    stills: Sequence[str] = (),
    videos: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> AdapterFacts:
    """The facts that follow from all claims: of contradicting ones the most trusted, lists joined."""
    told = list(warnings)
    trusted = _without_strange_hashes(claims, told)
    fields: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, group in _by_field(trusted).items():
        join = _JOINED.get(name)
        fields[name] = join([claim.value for claim in group]) if join else group[0].value
        used = dict.fromkeys(claim.source for claim in group) if join else [group[0].source]
        sources[name] = ", ".join(used)
    low, high = fields.get("weight_min"), fields.get("weight_max")
    if low is not None and high is not None and low > high:
        fields["weight_min"], fields["weight_max"] = high, low
    fields |= {
        "training": training, "stills": tuple(stills), "videos": tuple(videos), "warnings": tuple(dict.fromkeys(told)),
        "sources": sources,
    }  # fmt: skip
    return AdapterFacts(**fields)


def _by_field(claims: Iterable[Claim]) -> dict[str, list[Claim]]:
    """The claims of each field, the most trusted first."""
    groups: dict[str, list[Claim]] = {}
    for claim in claims:
        groups.setdefault(claim.field, []).append(claim)
    for name, group in groups.items():
        # A header belongs to its file for certain, a sidecar's hashes may be of an earlier one of that name.
        group.sort(key=lambda claim: -claim.rank if name == "hashes" else claim.rank)
    return groups


def _without_strange_hashes(claims: Sequence[Claim], warnings: list[str]) -> list[Claim]:
    """Leave out the hashes of sidecars that were made for other weights than the header tells of."""
    own = next((_autov3(claim) for claim in claims if claim.rank >= Rank.DECLARED and _autov3(claim)), None)
    strange = {
        claim.source
        for claim in claims
        if own and claim.rank < Rank.DECLARED and (told := _autov3(claim)) and told[:12] != own[:12]
    }
    for source in sorted(strange):
        warnings.append(f"{source} may be about another version of this file: its hash is not the one in the header.")
    return [claim for claim in claims if not (claim.field == "hashes" and claim.source in strange)]


def _autov3(claim: Claim) -> str | None:
    found: str | None = dict(claim.value).get("autov3") if claim.field == "hashes" else None
    return found


def _lines(most: int) -> Callable[[list[tuple[str, ...]]], tuple[str, ...]]:
    return lambda values: plain.unique(line for value in values for line in value)[:most]


def _notes(values: list[str]) -> str | None:
    return plain.paragraphs("\n\n".join(dict.fromkeys(values)))


def _hashes(values: list[tuple[tuple[str, str], ...]]) -> dict[str, str]:
    """The first of each kind; a whole one instead of its beginning."""
    found: dict[str, str] = {}
    for kind, text in (pair for value in values for pair in value):
        if text.startswith(found.get(kind, text)):
            found[kind] = text
    return found


#: How the values of fields are joined to which every source may add.
_JOINED: Mapping[str, Callable[[list[Any]], Any]] = {
    "urls": _lines(MAX_URLS),
    "topics": _lines(MAX_TOPICS),
    "sample_prompts": _lines(MAX_PROMPTS),
    "notes": _notes,
    "hashes": _hashes,
}
