"""What the command line shows of a vault, as values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlmodel import Session

from loravault.index import adapters, covers, images, library
from loravault.index.tables import AdapterRow, JobRow, RunRow
from loravault.library.entry import Entry
from loravault.pages.cards import CardNames, fresh_fields, is_own_cover


@dataclass(frozen=True)
class RunView:
    """One tick and what came of it."""

    id: str
    note: str
    #: `done`, `partial`, `failed` or `cancelled`; None while it is open.
    status: str | None
    message: str | None
    #: Vault-relative paths of the pictures.
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobView:
    """One block in the queue."""

    id: str
    run: str
    note: str
    status: str
    prompt: str
    base: str
    #: Unix time.
    created: float
    #: 0 … 1 while it runs.
    progress: float | None = None
    message: str = ""


@dataclass(frozen=True)
class CancelView:
    """What a cancel did, in words, and the blocks that it called off."""

    message: str
    jobs: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReindexView:
    """What a reindex found."""

    adapters: int
    broken: int
    missing: int
    images: int
    notes: int
    seconds: float
    troubles: tuple[str, ...] = field(default_factory=tuple)


@dataclass(frozen=True)
class AdapterView:
    """Everything that is known of one adapter of the vault; the order of the fields is that of `show --json`."""

    name: str
    title: str | None
    root: str
    rel: str
    #: Bytes.
    size: int
    weight_id: str | None
    family: str
    variant: str | None
    network: str | None
    rank: int | None
    alpha: float | None
    trigger_words: tuple[str, ...]
    preview: str | None
    state: str
    reason: str | None
    #: Every file with these weights, as `root/path` -> its state.
    places: Mapping[str, str] = field(default_factory=dict)
    weight: float | None = None
    negative: str | None = None
    base: str | None = None
    rating: float | None = None
    favourite: bool = False
    tags: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    version: str | None = None
    author: str | None = None
    license: str | None = None
    description: str | None = None
    #: As `formats.training_facts` has it.
    training: Mapping[str, Any] = field(default_factory=dict)
    civitai_model: int | None = None
    civitai_version: int | None = None
    #: As on Civitai: 0 unknown, 1 PG, 2 PG-13, 4 R, 8 X, 16 XXX.
    nsfw: int = 0
    #: The hashes were measured; else they are what other files claim.
    hashed: bool = False
    #: Kind -> lower-case hex.
    hashes: Mapping[str, str] = field(default_factory=dict)
    #: Vault-relative paths.
    card: str | None = None
    cover: str | None = None
    #: Why some of its pictures cannot be shown.
    cover_problem: str | None = None
    #: Field -> where it was found.
    source: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    #: Vault-relative paths of the pictures it had a part in, newest first.
    images: tuple[str, ...] = ()


def adapter_view(session: Session, row: AdapterRow) -> AdapterView:
    """What is known of the adapter in this file. One that never could be read is known by its place alone."""
    known = {key: getattr(row, key) for key in ("name", "title", "root", "rel", "size", "weight_id", "state", "reason")}
    found = library.entries(session, [row.weight_id]) if row.weight_id else []
    if not found or row.weight_id is None:
        told = {key: getattr(row, key) for key in ("family", "variant", "network", "rank", "alpha", "preview")}
        return AdapterView(**known, **told, trigger_words=tuple(json.loads(row.trigger_words)))
    entry, facts = found[0], found[0].facts
    kinds = ("family", "variant", "network", "rank", "alpha", "trigger_words", "preview", "weight", "negative", "base")
    users = ("rating", "favourite", "tags", "topics", "aliases", "nsfw", "hashed", "card")
    told = {key: getattr(entry, key) for key in (*kinds, *users)}
    told |= {key: facts.get(key) for key in ("version", "author", "license", "description")}
    cover = covers.covers(session, [row.weight_id]).get(row.weight_id)
    return AdapterView(
        **known,
        **told,
        places={place.shown: place.state for place in entry.places},
        civitai_model=facts.get("civitai_model"),
        civitai_version=facts.get("civitai_version"),
        hashes=_hashes(adapters.adapters_by_weight_id(session, row.weight_id), facts.get("hashes") or {}),
        training=facts.get("training") or {},
        cover=entry.cover or (cover.path if cover else None),
        cover_problem=cover.problem if cover else None,
        source=_sources(session, entry),
        warnings=tuple(facts.get("warnings") or ()),
        images=tuple(images.images_of_adapter(session, row.weight_id)),
    )


def _sources(session: Session, entry: Entry) -> dict[str, str]:
    """Field -> where it was found. A value that a new card would have, too, is not from the card but from before it."""
    found = library.entries(session, [entry.weight_id], with_cards=False) if entry.card else []
    if not found:
        return dict(entry.sources)
    known = found[0]
    fresh = fresh_fields(known, CardNames("", "", "", ""))
    if is_own_cover(entry.cover, entry.weight_id):
        fresh["cover"] = entry.cover
    ours = {key for key, value in fresh.items() if _said(value) == _said(getattr(entry, key))}
    mine = {key: source for key, source in entry.sources.items() if key not in ours}
    return mine | {key: source for key, source in known.sources.items() if key in ours}


def _said(value: Any) -> Any:
    """To compare what a field holds: however it is stored, and empty is empty."""
    return None if value in ("", (), []) else tuple(value) if isinstance(value, list) else value


def _hashes(rows: Sequence[AdapterRow], claims: Mapping[str, str]) -> dict[str, str]:
    """Those that were measured; where none was, those that are claimed."""
    kinds = ("sha256", "autov1", "autov2", "autov3", "blake3", "crc32")
    best = next((row for row in rows if row.hashed), rows[0])
    found = {kind: getattr(best, kind) or ("" if best.hashed else claims.get(kind, "")) for kind in kinds}
    return {kind: value for kind, value in found.items() if value}


def run_view(run: RunRow, jobs: Sequence[JobRow]) -> RunView:
    """A run with the pictures of its jobs; open until its last word is in the note."""
    made = tuple(path for job in jobs for path in json.loads(job.pictures))
    return RunView(run.id, run.note, run.status if run.closed else None, run.message, made)


def job_view(job: JobRow, progress: dict[str, Any]) -> JobView:
    """A job of the queue, with what the daemon says of those that run."""
    mine = progress.get(job.id) or {}
    spec = json.loads(job.spec) if job.spec else {}
    return JobView(
        id=job.id,
        run=job.run,
        note=job.note,
        status="queued" if job.state == "claimed" else job.state,
        prompt=job.first_line,
        base=spec.get("base", {}).get("name", ""),
        created=job.created,
        progress=mine.get("fraction"),
        message=str(mine.get("phase") or ""),
    )
