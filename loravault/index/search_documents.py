"""What the search knows of an adapter: made from its entry, or from the row of a file that could not be read. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from loravault.formats.cuts import compounds
from loravault.index.search_words import index_text, path_key
from loravault.library.overview import has_preview, present

if TYPE_CHECKING:
    from loravault.index.tables import AdapterRow
    from loravault.library.entry import Entry

#: What documents say of the same entry; to be raised when that changes, so that all of them are made anew.
FORM = 2

#: Of longer texts the beginning is searched.
MAX_PROSE = 100_000
MAX_CAPTIONS = 300


@dataclass(frozen=True)
class SearchDocument:
    """One adapter for the search. The texts are index texts, the facets what filters compare."""

    #: Weight id; `root/rel` of a file that has none.
    key: str
    name: str
    #: All of the name's letters in one, to compare a query with.
    folded: str
    names: str
    trigger_text: str
    tag_text: str
    prose: str
    captions: str
    family: str
    variant: str
    network: str
    #: `/styles/anime/` and so on, one a line.
    folders: str
    tags: str
    rating: float | None
    favourite: bool
    size: int
    newest: int
    state: str
    copies: int
    triggered: bool
    previewed: bool
    #: What a result shows, as JSON.
    shown: str = field(default="{}")


def document_of(entry: Entry, covers: Collection[str] = ()) -> SearchDocument:
    """An adapter that could be read at least once. `covers`: weight ids of adapters that have a cover of ours."""
    facts = entry.facts
    words = entry.trigger_words
    stems = [PurePosixPath(place.rel).stem for place in entry.places]
    folders = [place.category for place in entry.places]
    return SearchDocument(
        key=entry.weight_id,
        name=entry.name,
        folded=_folded(entry.name),
        names=index_text(_each(entry.name, entry.title, entry.aliases, stems, _stem(entry.card))),
        trigger_text=index_text(words),
        tag_text=index_text(
            _each(entry.tags, entry.topics, entry.family, entry.variant, entry.network, entry.base, folders)
        ),
        prose=index_text(_prose(entry)),
        captions=index_text(_captions(facts)),
        family=path_key(entry.family),
        variant=path_key(entry.variant or ""),
        network=path_key(entry.network or ""),
        folders=_levels(folders),
        tags=_levels((*entry.tags, *entry.topics)),
        rating=entry.rating,
        favourite=entry.favourite,
        size=entry.place.size,
        newest=min(place.mtime_ns for place in entry.places),
        state=entry.state,
        copies=len(present(entry)),
        triggered=bool(words),
        previewed=has_preview(entry, covers),
        shown=_shown(entry),
    )


def document_of_file(row: AdapterRow) -> SearchDocument:
    """A file that never could be read: all that is known is where it is, and what is wrong."""
    folder = row.rel.rpartition("/")[0]
    shown = {"files": [f"{row.root}/{row.rel}"], "folder": folder, "reason": row.reason}
    return SearchDocument(
        key=f"{row.root}/{row.rel}", name=row.name, folded=_folded(row.name), names=index_text([row.name]),
        trigger_text="", tag_text=index_text([folder]), prose=index_text([row.reason or ""]), captions="",
        family=path_key(row.family), variant="", network="", folders=_levels([folder]), tags="", rating=None,
        favourite=False, size=row.size, newest=row.mtime_ns,
        state="missing" if row.state == "missing" else "broken", copies=1, triggered=False,
        previewed=bool(row.preview), shown=json.dumps(shown, ensure_ascii=False),
    )  # fmt: skip


def _stem(card: str | None) -> str | None:
    """What the note is called: its owner may have given it a name of its own."""
    return PurePosixPath(card).stem if card else None


def _shown(entry: Entry) -> str:
    shown: dict[str, Any] = {
        "weight_id": entry.weight_id,
        "title": entry.title,
        "family": entry.family,
        "variant": entry.variant,
        "network": entry.network,
        "trigger_words": entry.trigger_words,
        "weight": entry.weight,
        "folder": entry.category,
        "files": [place.shown for place in entry.places],
        "card": entry.card,
    }
    return json.dumps({key: value for key, value in shown.items() if value not in (None, ())}, ensure_ascii=False)


def _prose(entry: Entry) -> Iterator[str]:
    facts = entry.facts
    texts = (entry.card_body, facts.get("description"), facts.get("notes"), facts.get("author"), facts.get("version"))
    for text in texts:
        if isinstance(text, str):
            yield text[:MAX_PROSE]


def _captions(facts: Any) -> Iterator[str]:
    """Tags of the training captions, the commonest first, and the prompts of its samples."""
    for caption in (facts.get("captions") or ())[:MAX_CAPTIONS]:
        yield str(caption[0] if isinstance(caption, (list, tuple)) and caption else caption)
    yield from map(str, facts.get("sample_prompts") or ())


def _each(*values: str | Iterable[str] | None) -> Iterator[str]:
    """All texts of these, each once."""
    seen: set[str] = set()
    for value in values:
        for text in (value,) if isinstance(value, str) else value or ():
            if text not in seen:
                seen.add(text)
                yield text


def _levels(paths: Iterable[str]) -> str:
    keys = dict.fromkeys(path_key(path) for path in paths)
    return "\n".join(f"/{key}/" for key in keys if key)


def _folded(text: str) -> str:
    return "".join(part for compound in compounds(text) for part in compound)
