"""What a tick of a training request comes to: one job, or why there is none. Names and files are looked up, no more."""

from __future__ import annotations

import json
from collections.abc import Collection

import msgspec

from loravault.config import VaultConfig
from loravault.index.tables import JobRow, RunRow
from loravault.jobs import trainingwords as words
from loravault.jobs.catalog import IndexCatalog
from loravault.jobs.planning import Plan, job_id
from loravault.jobs.reading import ReadNote
from loravault.requests import training_wishes
from loravault.requests.model import KnownAdapter, Refusal, Request
from loravault.requests.training import Places, ResolvedTraining, resolve_training
from loravault.requests.training_pictures import Found, embedded, in_folder, merged


def _look_up(
    request: Request, read: ReadNote, pictures: Found, catalog: IndexCatalog, config: VaultConfig
) -> ResolvedTraining | Refusal:
    """What the note asks for, with these pictures."""
    found = resolve_training(
        request,
        read.rel,
        pictures,
        catalog,
        places=Places(
            state=config.state_dir / "training",
            cache=config.state_dir / "training-cache",
            captioner=config.captioner,
        ),
        taken=catalog.trigger_words(),
    )
    return _checked(found, config)


def tick(
    request: Request,
    read: ReadNote,
    catalog: IndexCatalog,
    config: VaultConfig,
    *,
    known: Collection[str],
    under_way: Collection[str],
) -> Plan:
    """An explicit wish. Fingerprints: `known` of the results that stand in the note, `under_way` of its open jobs."""
    pictures = _pictures(request, read, config)
    found = _look_up(request, read, pictures, catalog, config)
    if isinstance(found, Refusal):
        return _refused(found, pictures)
    if found.fingerprint in under_way:
        return Plan(message=words.under_way_message(found.spec.name))
    if found.fingerprint in known and isinstance(catalog.find_adapter(found.spec.name), KnownAdapter):
        return Plan(message=words.unchanged_message(found.spec.name))
    return _to_train(found, pictures)


def recover(request: Request, read: ReadNote, catalog: IndexCatalog, config: VaultConfig, run_id: str) -> Plan:
    """The rest of a run whose rows are lost: its job again, unless the note shows what came of it."""
    mine = {training_id(run_id), job_id(run_id, "", 0)}
    if any(region.job in mine and region.kind != "plan" for region in read.note.regions):
        return Plan(kind="train")
    pictures = _pictures(request, read, config)
    found = _look_up(request, read, pictures, catalog, config)
    return _refused(found, pictures) if isinstance(found, Refusal) else _to_train(found, pictures)


def _refused(found: Refusal, pictures: Found) -> Plan:
    return Plan(refusals=found.messages, kind="train", awaited=tuple(pictures.missing), places=pictures.places())


def _to_train(found: ResolvedTraining, pictures: Found) -> Plan:
    return Plan(training=found, kind="train", places=(found.spec.base.path, *pictures.places()))


def training_id(run_id: str) -> str:
    """The id of the job of a run; it follows from the run, so that a lost index finds its answer."""
    return job_id(run_id, "training", 0)


def row_of(found: ResolvedTraining, run: RunRow) -> JobRow:
    """The job of a training."""
    return JobRow(
        id=training_id(run.id),
        kind="train",
        run=run.id,
        seq=0,
        note=run.note,
        block_hash=None,
        ordinal=0,
        first_line=words.first_line(found.spec),
        fingerprint=found.fingerprint,
        spec=msgspec.json.encode(found.spec).decode(),
        remarks=json.dumps(list(found.warnings), ensure_ascii=False),
        category=found.category,
        alike=training_id(run.id),
        created=run.created,
    )


def _checked(found: ResolvedTraining | Refusal, config: VaultConfig) -> ResolvedTraining | Refusal:
    """With what only the configuration can be wrong about."""
    if isinstance(found, Refusal) or config.loras:
        return found
    return Refusal(
        messages=("There is no loras folder to put the LoRA into: name one in config.toml under `loras`.",),
        fingerprint=found.fingerprint,
    )


def _pictures(request: Request, read: ReadNote, config: VaultConfig) -> Found:
    """Those the note embeds, those of the folder it names, and those that show only the class."""
    problems: list[str] = []
    given = training_wishes.named(request.properties)
    parts = [embedded(read.note, read.rel, config.vault)]
    for key in ("dataset", "regularisation"):
        folder = training_wishes.text_of(given, key, problems)
        if folder:
            parts.append(in_folder(folder, config.vault, config.datasets, regularisation=key == "regularisation"))
    repeats = training_wishes.whole_of(given, "repeats", 1, 1000, problems)
    found = merged(parts, repeats)
    found.problems += problems
    return found
