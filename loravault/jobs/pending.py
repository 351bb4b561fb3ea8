"""What waits to be said in a note, and the note with it said. Rows and bytes in, bytes out: no index, no disk."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from loravault.index import work
from loravault.index.tables import JobRow, NoteRow, RunRow
from loravault.jobs import words
from loravault.jobs.sheets import sheet_answers
from loravault.vault.answers import Answer, Applied, apply_answers_told
from loravault.vault.links import wikilink


@dataclass
class Pending:
    """Everything that waits to be said in one note."""

    note: str
    row: NoteRow | None
    runs: list[RunRow]
    jobs: dict[str, list[JobRow]] = field(default_factory=dict)

    @property
    def receipt_due(self) -> bool:
        """A checkbox of the user's waits to be reset."""
        acks = self.row is not None and (self.row.cancel_ack or self.row.run_ack)
        return acks or any(not run.accepted for run in self.runs)

    @property
    def answers(self) -> list[JobRow]:
        """Jobs that ended and are not delivered. Those that share a callout come together, when all of them ended."""
        return [
            job
            for run in self.runs
            for job in self.jobs[run.id]
            if not job.delivered and job.state not in work.OPEN_STATES and (not job.sheet or self.is_over(run))
        ]

    @property
    def plans(self) -> list[JobRow]:
        """Trainings that have not ended, of which the first answer is not delivered."""
        return [job for job in self.open_jobs if job.plan is not None and not job.plan_delivered]

    @property
    def open_jobs(self) -> list[JobRow]:
        """Jobs that still wait or run."""
        return [job for run in self.runs for job in self.jobs[run.id] if job.state in work.OPEN_STATES]

    def is_over(self, run: RunRow) -> bool:
        """Every job of the run has ended."""
        return all(job.state not in work.OPEN_STATES for job in self.jobs[run.id])


def has_something_to_say(pending: Pending) -> bool:
    """Whether anything of this note waits to be written, now or soon. Pure."""
    return (
        pending.receipt_due
        or bool(pending.answers or pending.plans)
        or any(pending.is_over(run) for run in pending.runs)
    )


def is_due(pending: Pending, now: float, together_s: float) -> bool:
    """Whether there is something to write now. Blocks that finish within `together_s` are written together. Pure."""
    if pending.receipt_due or pending.plans:
        return True
    answers = pending.answers
    if any(pending.is_over(run) for run in pending.runs):
        return True
    oldest = min((job.finished or now for job in answers), default=now)
    return bool(answers) and now - oldest >= together_s


def finish_run(run: RunRow, jobs: Sequence[JobRow], now: float) -> None:
    """Give a run whose jobs have all ended its status, its message and its time."""
    if run.status is None:
        run.status = words.run_status([job.state for job in jobs])
    if run.message is None:
        run.message = words.run_message([ended(job) for job in jobs])
    run.finished = run.finished or now


def ended(job: JobRow) -> words.Ended:
    """What the run's message needs of a job."""
    made = len(json.loads(job.pictures))
    lines = json.loads(job.answer) if job.answer else []
    trouble = lines[1].removeprefix("- ") if job.state == "failed" and len(lines) > 1 else None
    return words.Ended(job.state, made, job.seconds, trouble)


def compose(
    data: bytes,
    pending: Pending,
    machine: str,
    cap: int | None = None,
    linked: Collection[str] | None = None,
    *,
    behind: str | None = None,
) -> Applied:
    """The note with everything that waits said in it. Pure.

    `behind`: what keeps the workers from everything that is queued, in words. A checkbox that cannot be reset is said
    in the answer, for that is what the user will look at.
    """
    answers = answers_of(pending)
    wanted = properties(pending, machine, behind)
    applied = apply_answers_told(data, answers, wanted, cap=cap, linked=linked)
    if answers and {"run", "cancel"} & applied.unset.keys():
        last = answers[-1]
        answers[-1] = replace(last, lines=(*last.lines, words.sentence(stuck_message(applied.unset))))
        applied = apply_answers_told(data, answers, wanted, cap=cap, linked=linked)
    return applied


def answers_of(pending: Pending) -> list[Answer]:
    """What waits to be said, in the order of the runs."""
    waiting = pending.answers
    answers: list[Answer] = []
    for run in pending.runs:
        mine = [job for job in waiting if job.run == run.id]
        told = [job for job in mine if not job.sheet and not _is_superseded(pending, job)]
        answers += [answer_of(job) for job in told if json.loads(job.answer or "[]")]
        answers += sheet_answers([job for job in mine if job.sheet])
        answers += [plan_of(job) for job in pending.plans if job.run == run.id]
    return answers


def _is_superseded(pending: Pending, job: JobRow) -> bool:
    """Whether a training was stopped for a later one of the same note: that takes the place of its plan."""
    if job.kind != "train" or job.state != "cancelled":
        return False
    later = [run.id for run in pending.runs]
    later = later[later.index(job.run) + 1 :]
    return any(one.kind == "train" for run in later for one in pending.jobs[run])


def stuck_message(unset: Mapping[str, str]) -> str:
    """Why a checkbox stays ticked although it was obeyed."""
    key = "run" if "run" in unset else "cancel"
    return f"`{key}` could not be reset: {unset[key].rstrip('.')}. It counts again when you change the properties."


def answer_of(job: JobRow) -> Answer:
    """The answer of an ended job, for the room that knows where it goes."""
    return Answer(
        job=job.id,
        block_hash=job.block_hash,
        ordinal=job.ordinal,
        kind=_kind_of(job),
        lines=tuple(json.loads(job.answer or "[]")),
        prompt_first_line=job.first_line,
        whole=job.kind == "train",
    )


def _kind_of(job: JobRow) -> str:
    """A cancelled job shows what it had finished; a training that was stopped may still go on."""
    if job.state == "failed":
        return "failure"
    return "plan" if job.kind == "train" and job.state == "cancelled" else "result"


def plan_of(job: JobRow) -> Answer:
    """The first answer of a training; its end takes the place of it."""
    return Answer(
        job=job.id, block_hash=None, ordinal=0, kind="plan", lines=tuple(json.loads(job.plan or "[]")), whole=True
    )


def properties(pending: Pending, machine: str, behind: str | None = None) -> dict[str, str | bool | None]:
    """Our keys as they shall stand. The newest run speaks for the note."""
    changes: dict[str, str | bool | None] = {}
    row = pending.row
    stuck = row is not None and row.stuck_edge is not None  # tried again with every answer: it may say why
    if stuck or any(not run.accepted and run.ticked for run in pending.runs) or (row is not None and row.run_ack):
        changes["run"] = False
    if row is not None and row.cancel_ack:
        changes["cancel"] = False
        changes["lv_message"] = row.ack_message
    if not pending.runs:
        return changes
    newest = pending.runs[-1]
    changes["lv_job"] = f"{newest.id}@{machine}"
    if pending.open_jobs:
        running = any(job.state == "running" for job in pending.open_jobs)
        changes["lv_status"] = "running" if running else "queued"
        changes["lv_message"] = waiting_message(pending, behind)
    else:
        changes["lv_status"] = newest.status
        changes["lv_finished"] = datetime.fromtimestamp(newest.finished or 0).strftime("%Y-%m-%dT%H:%M:%S")
        changes["lv_message"] = newest.message or None
    pictures = [path for job in pending.answers for path in json.loads(job.pictures)]
    if pictures:
        changes["lv_cover"] = wikilink(pictures[-1])
    return changes


def waiting_message(pending: Pending, behind: str | None = None) -> str:
    """What a person who looks at the note meanwhile wants to know."""
    if behind and all(job.state == "queued" for job in pending.open_jobs):
        return f"waiting behind {behind}"
    count = len(pending.open_jobs)
    trainings = [job for job in pending.open_jobs if job.kind == "train"]
    if trainings and len(trainings) == count:
        known = f", {trainings[0].steps:,} steps" if trainings[0].steps else ""
        return f"{trainings[0].first_line}{known}; the dashboard shows how far it is"
    return "1 block to make" if count == 1 else f"{count} blocks to make"
