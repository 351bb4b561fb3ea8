"""Adapter files as housekeeping sees them: what stands beside them, and which of them somebody is about to read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
from sqlmodel import Session

from loravault.config import Root
from loravault.formats.generation import GenerationSpec
from loravault.formats.training import TrainingSpec
from loravault.index import work
from loravault.index.tables import AdapterRow
from loravault.library.housekeeping import AdapterFile, beside


def sidecars_beside(home: Path, rel: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names beside an adapter file: those that go with it, and those that another model may need too."""
    folder, _, name = rel.rpartition("/")
    found = beside(name, names_in(home / folder))
    return found.own, found.shared


def names_in(folder: Path) -> list[str]:
    """What is in a folder; nothing if it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def file_of(row: AdapterRow) -> AdapterFile:
    """A row as the plans see it."""
    return AdapterFile(
        row.root,
        row.rel,
        row.weight_id or "",
        row.name,
        row.alias,
        row.state,
        row.size,
        row.mtime_ns,
        (row.dev, row.ino),
    )


def busy_files(session: Session, roots: Iterable[Root]) -> set[tuple[str, str]]:
    """(root, path) of the adapter files that queued and running jobs will read."""
    used = set()
    for job in work.open_jobs(session):
        if job.spec:
            if job.kind == "train":
                specs = msgspec.json.decode(job.spec, type=TrainingSpec).samples
            else:
                specs = (msgspec.json.decode(job.spec, type=GenerationSpec),)
            used |= {os.path.normpath(use.path) for spec in specs for use in spec.adapters}
    return {
        (root.name, os.path.relpath(path, root.path).replace(os.sep, "/"))
        for root in roots
        for path in used
        if Path(path).is_relative_to(root.path)
    }
