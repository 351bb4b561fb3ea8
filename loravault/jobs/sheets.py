"""One callout for many jobs: the previews of a run, each with its adapter, and what did not work. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from loravault.formats.generation import GenerationSpec
from loravault.index.tables import JobRow
from loravault.jobs import words
from loravault.jobs.planning import job_id
from loravault.vault.answers import Answer


def sheet_answers(jobs: Sequence[JobRow]) -> list[Answer]:
    """The answers of the `sheet` jobs of one run: one for each block, for all adapters together."""
    groups: dict[tuple[str, int], list[JobRow]] = {}
    for job in jobs:
        groups.setdefault((job.block_hash or "", job.ordinal), []).append(job)
    answers = (_answer(block_hash, ordinal, group) for (block_hash, ordinal), group in groups.items())
    return [answer for answer in answers if answer.lines]


def _answer(block_hash: str, ordinal: int, jobs: Sequence[JobRow]) -> Answer:
    made = [job for job in jobs if json.loads(job.pictures)]
    return Answer(
        job=job_id(jobs[0].run, block_hash, ordinal),
        block_hash=block_hash or None,
        ordinal=ordinal,
        kind="result" if made else "failure",
        lines=tuple(_lines(made, [job for job in jobs if job.state == "failed"], jobs)),
        prompt_first_line="",
    )


def _lines(made: Sequence[JobRow], failed: Sequence[JobRow], jobs: Sequence[JobRow]) -> list[str]:
    """Nothing if every job was cancelled before it made something."""
    if not made and not failed:
        return []
    parts = [json.loads(job.answer or "[]") for job in made]
    lines = [_title(made) if made else "[!failure] No preview was made"]
    lines += [part[0] for part in parts]
    lines += dict.fromkeys(words.numbers_line(_spec(job)) for job in made)
    lines += [f"- {words.sentence(_failure(job))}" for job in failed]
    first = json.loads(jobs[0].remarks) if jobs[0] not in made else []
    remarks = dict.fromkeys([*first, *(remark for part in parts for remark in part[1:])])
    return [*lines, *([""] if failed and remarks else []), *words.remark_lines(remarks)]


def _title(made: Sequence[JobRow]) -> str:
    count = sum(len(json.loads(job.pictures)) for job in made)
    seeds = dict.fromkeys(words.seeds_phrase(_spec(job).seeds) for job in made)
    seconds = sum(job.seconds for job in made)
    told = ["1 preview" if count == 1 else f"{count} previews"]
    told += seeds if len(seeds) == 1 else []
    told += [words.duration(seconds)] if seconds else []
    return f"[!lora-result]+ {' · '.join(told)}"


def _spec(job: JobRow) -> GenerationSpec:
    return msgspec.json.decode(job.spec, type=GenerationSpec)


def _failure(job: JobRow) -> str:
    """`preview of ink: …`, with everything that was wrong."""
    said = [line.removeprefix("- ").rstrip(".") for line in json.loads(job.answer or "[]")[1:]]
    return f"{job.first_line}: {'; '.join(said)}."
