"""The card of an adapter: what a new one says, and what of an older one has to be brought up to date. Pure.

A card is written once. After that only our keys and our one line with the cover change; all else is the user's.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from loravault.formats.training_facts import training_words
from loravault.library.entry import USER_FIELDS, Entry
from loravault.pages.cardkeys import ABSENT, found_at, held_by_owner, says, stood_there
from loravault.pages.cardpages import default_pictures_page
from loravault.pages.examples import example, lora_tag, try_uri
from loravault.pages.templates import Templates
from loravault.vault.inert import inert, inert_value, inert_with_tags
from loravault.vault.links import embed, parse_wikilink, wikilink
from loravault.vault.note import Note, parse_note
from loravault.vault.ownline import find_own_lines, own_line
from loravault.vault.properties import EMPTY, EditRefused, Value, set_properties_best
from loravault.vault.yamlwrite import PropertyValue, property_block

KIND = "card"
COVER_WIDTH = 320
_TEMPLATES = Templates()
#: Characters of a card's text that are kept for search.
MAX_BODY = 65536
_NO_COVER = "*No cover yet.*"
_MAX_VALUE = 200
_TAG_SIGN = re.compile(r"[^\w/-]+")
_COVER_NAME = re.compile(r"lv-cover-([0-9a-f]{16})-[0-9a-f]{8}\.webp\Z")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_URL = re.compile(r"https?://(?P<host>[A-Za-z0-9.-]+)(?::[0-9]+)?(?P<rest>/[^\s\"'<>()\[\]{}|\\^`]*)?\Z")
#: A letter or a digit, of any script.
_WORDS = re.compile(r"[^\W_]")
_CAPTION_TAGS = 12
_SEQUENCE = (list, tuple)
_JOINER = "\u2060"
_PARAGRAPHS, _TEXT = 12, 600
_NOT_THERE = ("missing", "broken", "incomplete")


@dataclass(frozen=True)
class CardNames:
    """Where a card is, and what it links to. Paths are vault-relative."""

    #: Our folder.
    folder: str
    #: The vault's name, for links that open it.
    vault: str
    #: The card itself.
    card: str
    #: The name by which prompts find the adapter.
    call: str
    #: Its cover, if there is one.
    cover: str | None = None


@dataclass(frozen=True)
class NewCard:
    """A card that was not there before."""

    data: bytes
    #: The user's fields as they stand in it.
    fields: Mapping[str, Any]
    #: Keys of the user that were left empty because nothing was known.
    blank: tuple[str, ...]
    #: Its text outside our line.
    body: str
    #: See `plan_digest`.
    ours: str
    #: Our own keys as they stand in it.
    properties: Mapping[str, PropertyValue]
    #: See `Example`.
    words: str | None


@dataclass(frozen=True)
class CardUpdate:
    """What became of bringing a card up to date."""

    #: None: there is nothing to change.
    data: bytes | None
    #: Keys that could not be set -> why, as half a sentence.
    refused: Mapping[str, str]
    #: `cover` was filled, for the first and only time.
    cover_filled: bool = False
    #: Keys that we would keep but that hold something of the user's -> what, on one line.
    theirs: Mapping[str, str] = field(default_factory=dict)
    #: The note did not name its adapter yet: which of our keys stood in it.
    adopted: tuple[str, ...] | None = None

    @property
    def told(self) -> list[str]:
        """Half a sentence for each key of ours that does not say what we would."""
        return [f"`{key}` cannot be kept current: {reason}" for key, reason in self.refused.items()] + [
            f"`{key}` holds something of yours ({value}), so it is not kept current; rename it if you want ours"
            for key, value in self.theirs.items()
        ]


# ---- what a card says


def our_properties(entry: Entry) -> dict[str, PropertyValue]:
    """The keys that are ours, in their order. What is not known is an empty property.

    Where the card itself is all that is known, it stays as it is, but for what became of the file.
    """
    if entry.from_card:
        return {} if entry.state == "ok" else {"state": entry.state}
    place, *others = entry.places
    copies = tuple([inert_value(one.shown) for one in others if one.state not in _NOT_THERE])
    known: dict[str, PropertyValue | None] = {
        "family": entry.family if entry.family != "unknown" else None,
        "network": entry.network,
        "rank": entry.rank,
        "size_mb": _number(_megabytes(place.size)),
        "category": _text(place.category, None),
        "lora_file": inert_value(place.shown),
        "copies": copies,
        "civitai": _civitai(entry.facts),
        "added": entry.added,
        "state": "duplicate" if entry.state == "ok" and copies else entry.state,
        "sha256": entry.sha256,
        "autov2": entry.autov2,
        "autov3": entry.autov3,
        "lora": entry.weight_id,
    }
    return {key: EMPTY if value is None else value for key, value in known.items()}


def user_properties(entry: Entry, names: CardNames) -> dict[str, PropertyValue]:
    """The keys that are the user's, as a new card fills them. `cover` is left out as long as there is none."""
    title = inert_value(entry.title, _MAX_VALUE) if entry.title else ""
    tag = our_tag(entry.family, entry.variant or "")
    known: dict[str, PropertyValue] = {"cover": wikilink(names.cover)} if names.cover else {}
    known |= {
        "trigger_words": _texts(entry.trigger_words, None),
        "weight": EMPTY if entry.weight is None else _number(entry.weight),
        "negative": _text(entry.negative, None),
        "base": _text(entry.base, _MAX_VALUE),
        "variant": _text(entry.variant, _MAX_VALUE),
        "rating": EMPTY if entry.rating is None else _number(entry.rating),
        "favourite": entry.favourite,
        "tags": entry.tags if tag in entry.tags else (*entry.tags, tag),
        "topics": _texts(entry.topics, _MAX_VALUE),
        "aliases": entry.aliases or ((title,) if title and title.casefold() != entry.name.casefold() else ()),
    }
    return known


def fresh_fields(entry: Entry, names: CardNames) -> dict[str, Any]:
    """What a new card says of the user's fields, as it would be read back."""
    return _read_back(user_properties(entry, names))


@lru_cache(maxsize=256)
def our_tag(family: str, variant: str) -> str:
    """`lora/sdxl/pony`: a tag has no blanks and no period."""
    parts = [family if family != "unknown" else "", variant]
    return "/".join(["lora", *filter(None, (_TAG_SIGN.sub("-", part.replace("/", "-")).strip("-") for part in parts))])


def render_card(entry: Entry, names: CardNames, templates: Path) -> NewCard:
    """A new card. Everything that strangers wrote is made inert."""
    users = user_properties(entry, names)
    ours = our_properties(entry)
    front = property_block({"loravault": KIND, **users})
    back = property_block(ours)
    cover = own_line(_cover_text(names.cover), "cover")
    prompt, words = example(entry, lora_tag(names.call, entry.weight))
    facts = entry.facts
    body = _TEMPLATES.fill(
        templates,
        "card.md.j2",
        {
            "cover": cover,
            "prompt": prompt,
            "try_it": try_uri(names.vault, entry.name, names.call, entry.weight, prompt),
            "heading": _heading(entry),
            "warnings": [inert(str(text), _TEXT) for text in _list(facts.get("warnings"))],
            "pictures": embed(default_pictures_page(names.folder, names.card).removesuffix(".md")),
            "training": _training(facts),
            "description": _paragraphs(facts.get("description")),
            "about": _about(facts),
            "notes": _paragraphs(facts.get("notes")),
        },
    )
    fields = _read_back(users)
    return NewCard(
        f"---\n{front}{back}---\n{body}".encode(),
        fields,
        tuple([key for key, value in fields.items() if not value]),
        body.replace(cover, "", 1)[:MAX_BODY],
        _digest(back, names.cover),
        ours,
        words,
    )


# ---- keeping it current


def card_update(
    data: bytes, entry: Entry, cover: str | None, *, cover_was_filled: bool = False, theirs: Collection[str] = ()
) -> CardUpdate:
    """The card with our keys and our cover line as they should be; every other byte stays.

    `cover` is the vault-relative path of the cover, if there is one. `cover_was_filled`: we have set that key once, so
    if it is gone now, the user took it away. `theirs`: keys that were the user's when the note was adopted; they are
    as long as they hold something else than we would say. Raises `EditRefused` if the note is no text at all.
    """
    note = parse_note(data)
    if note.text_problem:
        raise EditRefused(f"The card was not changed: {note.text_problem}.")
    front = note.frontmatter
    present = front.properties if front else {}
    ours = our_properties(entry)
    readable = front is not None and not front.problem
    adopted = stood_there(present, entry.weight_id, theirs) if readable else None
    # properties that cannot be read just now say nothing about whose they are
    held = dict.fromkeys(theirs, "")
    if readable:
        held = held_by_owner(present, theirs if adopted is None else adopted, ours)
    changes: dict[str, Value] = {}
    for key, value in ours.items():
        found = found_at(present, key)
        if key in held:
            continue
        if key == "added" and isinstance(found, str) and _DAY.match(found) and found <= str(value):
            continue  # touching or copying a file does not make it newer to its owner
        if not (value is EMPTY and found is ABSENT) and not says(found, value):
            changes[key] = value
    fills = False
    if cover is not None:
        found = found_at(present, "cover")
        fills = found is ABSENT and not cover_was_filled
        if fills or (is_own_cover(found, entry.weight_id) and found != wikilink(cover)):
            changes["cover"] = wikilink(cover)
    lined = _with_cover_line(note, cover)
    new, refused = set_properties_best(lined, changes) if changes else (lined, {})
    return CardUpdate(new if new != data else None, refused, fills and "cover" not in refused, held, adopted)


def plan_digest(entry: Entry, cover: str | None) -> str:
    """What we would say in the card, as a hash: equal hashes, nothing to do."""
    return _digest(property_block(our_properties(entry)), cover)


def _digest(ours: str, cover: str | None) -> str:
    """`ours`: our properties as they stand there."""
    return hashlib.blake2b(f"{ours}{cover or ''}".encode(), digest_size=8).hexdigest()


def is_own_cover(value: object, weight_id: str) -> bool:
    """Whether a card's `cover` is a link of ours to a cover of this adapter; anything else is the user's choice."""
    link = parse_wikilink(value) if isinstance(value, str) else None
    match = _COVER_NAME.match(link.path.rpartition("/")[2]) if link else None
    return match is not None and match[1] == weight_id.removeprefix("w1-")


def text_of_card(note: Note, limit: int = MAX_BODY) -> str:
    """The text below the properties without our line, at most `limit` characters."""
    data, at, parts = note.data, note.body_start, []
    for line in find_own_lines(note, "cover"):
        parts.append(data[at : line.start])
        at = line.end
    text = b"".join([*parts, data[at:]]).decode("utf-8", "ignore")
    return text[:limit]


# ---- helpers


def _with_cover_line(note: Note, cover: str | None) -> bytes:
    """Our cover line with the cover of now. One that shows a cover keeps it when there is none any more."""
    lines = find_own_lines(note, "cover")
    if not lines or cover is None or lines[0].text == _cover_text(cover):
        return note.data
    line = lines[0]
    return note.data[: line.start] + own_line(_cover_text(cover), "cover").encode() + note.data[line.end :]


def _cover_text(cover: str | None) -> str:
    return embed(cover, COVER_WIDTH) if cover else _NO_COVER


def _heading(entry: Entry) -> str:
    """Its title, if that says more than its name, with the version and who made it."""
    version, author = entry.facts.get("version"), entry.facts.get("author")
    title = inert(entry.title, _MAX_VALUE) if entry.title else ""
    parts = [f"**{title}**"] if title and title.casefold() != entry.name.casefold() else []
    parts += [inert(str(version), 60)] if version and parts else []
    return " · ".join([*parts, *([f"by {inert(str(author), 100)}"] if author else [])])


def _training(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Short facts as label and text."""
    told = facts.get("training")
    rows: list[tuple[str, str]] = []
    if isinstance(told, Mapping):
        rows = [(label, _cell(text, _MAX_VALUE)) for label, text in training_words(told)]
    if tags := _caption_tags(facts.get("captions")):
        rows.append(("captions", ", ".join(tags)))
    return rows


def _caption_tags(captions: Any) -> list[str]:
    """The commonest, with their numbers."""
    if not captions:
        return []
    try:
        return [f"{_cell(tag, 60)} ({count})" for tag, count in captions[:_CAPTION_TAGS]]
    except (TypeError, ValueError):  # not as the index has them
        pairs = (pair for pair in _list(captions) if isinstance(pair, _SEQUENCE) and len(pair) == 2)
        return [f"{_cell(str(tag), 60)} ({count})" for tag, count in islice(pairs, _CAPTION_TAGS)]


@lru_cache(maxsize=4096)  # trainers, settings and tags are the same over and over in a library
def _cell(text: str, limit: int) -> str:
    """In a table nothing starts a list or a heading, so the word joiner in front of such text can go."""
    return inert(text, limit).lstrip(_JOINER)


def _about(facts: Mapping[str, Any]) -> str:
    """Licence and links, on one line."""
    parts = [f"Licence: {inert(str(facts['license']), _MAX_VALUE)}"] if facts.get("license") else []
    civitai = _civitai(facts)
    urls = dict.fromkeys(filter(None, [civitai, *(str(url) for url in _list(facts.get("urls")))]))
    return " · ".join(parts + [link for link in map(_web_link, urls) if link])


def _web_link(url: str) -> str:
    """A link to the web that shows where it leads; nothing for anything else."""
    match = _URL.match(url.strip())
    return f"[{match['host'].removeprefix('www.')}]({url.strip()})" if match and len(url) <= 500 else ""


def _civitai(facts: Mapping[str, Any]) -> str | None:
    model, version = facts.get("civitai_model"), facts.get("civitai_version")
    if isinstance(model, int):
        return f"https://civitai.com/models/{model}" + (f"?modelVersionId={version}" if version else "")
    return f"https://civitai.com/model-versions/{version}" if isinstance(version, int) else None


def _paragraphs(text: Any) -> list[str]:
    if not text:
        return []
    lines = [line for line in str(text).splitlines() if _WORDS.search(line)]
    shown = [inert_with_tags(line, _TEXT) for line in lines[:_PARAGRAPHS]]
    return [*shown, "…"] if len(lines) > _PARAGRAPHS else shown


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, _SEQUENCE) else []


def _text(text: str | None, limit: int | None) -> PropertyValue:
    return (inert_value(text, limit) or EMPTY) if text else EMPTY


def _texts(texts: Iterable[str], limit: int | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys([clean for text in texts if (clean := inert_value(text, limit))]))


def _read_back(properties: Mapping[str, PropertyValue]) -> dict[str, Any]:
    return {key: _plain(key, value) for key, value in properties.items()}


def _plain(key: str, value: PropertyValue) -> Any:
    """As the field would be read back from the card."""
    if value is EMPTY:
        return None
    if isinstance(value, int) and USER_FIELDS[key] is float:
        return float(value)
    return list(value) if isinstance(value, tuple) else value


def _number(value: float) -> int | float:
    """As JavaScript writes it: 1, not 1.0."""
    rounded = round(float(value), 6)
    return int(rounded) if rounded == int(rounded) else rounded


def _megabytes(size: int) -> float:
    return round(size / 1e6, 1 if size >= 1e6 else 3)
