"""What the command line shows of a vault, as values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from loravault.index.tables import JobRow, RunRow


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


def run_view(run: RunRow, jobs: Sequence[JobRow]) -> RunView:
    """A run with the pictures of its jobs; open until its last word is in the note."""
    made = tuple(path for job in jobs for path in json.loads(job.pictures))
    return RunView(run.id, run.note, run.status if run.closed else None, run.message, made)


def job_view(job: JobRow, progress: dict[str, Any]) -> JobView:
    """A job of the queue, with what the daemon says of the running one."""
    mine = progress.get("job") == job.id
    spec = json.loads(job.spec) if job.spec else {}
    return JobView(
        id=job.id,
        run=job.run,
        note=job.note,
        status=job.state,
        prompt=job.first_line,
        base=spec.get("base", {}).get("name", ""),
        created=job.created,
        progress=progress.get("fraction") if mine else None,
        message=str(progress.get("phase") or "") if mine else "",
    )
