"""What a wish comes to: which blocks of a note become jobs. Pure but for the drawing of seeds, which is passed in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from loravault.formats import grouping
from loravault.formats.generation import GenerationSpec
from loravault.index.tables import ImageRow, JobRow, RunRow
from loravault.jobs import trainingwords, words
from loravault.requests.decide import blocks_to_run
from loravault.requests.model import Block, Catalog, Refusal, Request, Resolved
from loravault.requests.resolve import resolve_block, with_seeds
from loravault.requests.training import ResolvedTraining
from loravault.vault.note import Note, parse_note
from loravault.vault.regions import Region

NO_BLOCK = "There is no ```prompt block in this note: add one with your prompt in it, then tick `run` again."


@dataclass(frozen=True)
class Looked:
    """A block, what it comes to, and whether it already has that result."""

    block: Block
    outcome: Resolved | Refusal
    #: The fingerprints of the intact results below it.
    answered: frozenset[str]
    #: Of a preview: weight id and name of the adapter that is shown, whether the user named it, and whether the picture
    #: is to stand for it (that of the note's first block is).
    adapter: str = ""
    name: str = ""
    named: bool = False
    stands: bool = False

    @property
    def fingerprint(self) -> str:
        """Of what the block asks for, or of why it is refused."""
        return self.outcome.fingerprint

    @property
    def unchanged(self) -> bool:
        """What it asks for stands below it already."""
        return isinstance(self.outcome, Resolved) and self.fingerprint in self.answered


@dataclass(frozen=True)
class Plan:
    """What is to be done for a note."""

    items: tuple[Looked, ...] = ()
    #: Sentences that answer the whole note instead of a block.
    refusals: tuple[str, ...] = ()
    #: For `lv_message` when there is nothing to do.
    message: str | None = None
    #: For `lv_status` then; None: `done`.
    status: str | None = None
    #: Sentences that belong beside the pictures.
    remarks: tuple[str, ...] = ()
    #: Nobody waits for it.
    background: bool = False
    #: An adapter to be trained.
    training: ResolvedTraining | None = None
    #: Files that are not there and may be on their way, as the note names them.
    awaited: tuple[str, ...] = ()
    #: Files and folders that it is about, besides bases: it waits until they are whole.
    places: tuple[str, ...] = ()
    #: Kind of its jobs.
    kind: str = "generate"
    #: LoRAs that the request names as a whole and of which no file is there, as far as is known.
    lacking: tuple[str, ...] = ()

    @property
    def absent(self) -> tuple[str, ...]:
        """LoRAs it asks for of which no file is there, as far as is known."""
        return (*self.lacking, *(name for item in self.items for name in item.outcome.absent))


def look_up(request: Request, note: Note, catalog: Catalog, fingerprints: Mapping[str, str]) -> list[Looked]:
    """Every block with what it comes to. `fingerprints`: job -> fingerprint of the results that stand in the note."""
    looked = []
    for block in request.blocks:
        below = [region for region in note.regions if region.fence_index == block.fence_index]
        results = [region for region in below if region.intact and region.kind == "result"]
        answered = frozenset(fingerprints[region.job] for region in results if region.job in fingerprints)
        looked.append(Looked(block, resolve_block(request, block, catalog), answered))
    return looked


def plan_tick(request: Request, looked: Sequence[Looked]) -> Plan:
    """An explicit tick (design §4.1, "What a tick runs")."""
    if not request.blocks:
        return Plan(refusals=request.problems or (NO_BLOCK,))
    return decided(looked)


def decided(looked: Sequence[Looked]) -> Plan:
    """What an explicit wish runs of these: what is new, else what can come out differently, else why nothing."""
    decision = blocks_to_run([item.outcome for item in looked], [item.answered for item in looked], explicit=True)
    return Plan(tuple(looked[n] for n in decision.run), message=decision.message)


def plan_auto(looked: Sequence[Looked], known: Collection[str]) -> Plan:
    """`auto`: blocks that nobody has met yet."""
    return Plan(tuple(item for item in looked if item.fingerprint not in known and not item.unchanged))


def plan_recovery(request: Request, looked: Sequence[Looked], run_id: str, regions: Sequence[Region]) -> Plan:
    """The rest of a run whose rows are lost: its blocks that no region answers.

    Job ids follow from the run and the block, so regions of this run are recognised. A block with an unchanged result
    belongs to the run only if the run was one of "all again with new seeds": then an answered block of it holds an
    older result of the same fingerprint, or nothing of the note is new at all.
    """
    if not request.blocks:
        return Plan(refusals=request.problems or (NO_BLOCK,))
    mine = {id_of(run_id, item): item for item in looked}
    answered = {region.job for region in regions if region.job in mine}
    rest = [item for key, item in mine.items() if key not in answered]
    changed = [item for item in rest if not item.unchanged]
    if changed:
        return Plan(tuple(changed))
    again = not answered or any(_older_results(mine[key], key, regions) for key in answered)
    if rest and again:
        return decided(rest)
    return Plan()


def _older_results(item: Looked, job: str, regions: Sequence[Region]) -> int:
    below = [region for region in regions if region.fence_index == item.block.fence_index]
    return sum(region.job != job and region.kind == "result" for region in below)


def plan_invalid(problem: str) -> Plan:
    """Properties that cannot be read although they say `run: true`."""
    return Plan(refusals=(f"{problem} Mend them and tick `run` again.",))


def job_rows(plan: Plan, run: RunRow, draw: Callable[[int], int]) -> list[JobRow]:
    """The jobs of a plan. What is refused is a job that has failed before it began."""
    rows = [_row(run, seq, item, draw) for seq, item in enumerate(plan.items)]
    if rows and plan.remarks:
        rows[0].remarks = json.dumps([*plan.remarks, *json.loads(rows[0].remarks)], ensure_ascii=False)
    if plan.background:
        for row in rows:
            row.background = True
    if plan.refusals:
        whole = JobRow(
            id=job_id(run.id, "", 0),
            kind=plan.kind,
            run=run.id,
            seq=len(rows),
            note=run.note,
            block_hash=None,
            ordinal=0,
            first_line="",
            fingerprint="",
            created=run.created,
        )
        rows.append(_refused(whole, plan.refusals, run.created))
    return rows


def _row(run: RunRow, seq: int, item: Looked, draw: Callable[[int], int]) -> JobRow:
    block, outcome = item.block, item.outcome
    row = JobRow(
        id=id_of(run.id, item),
        run=run.id,
        seq=seq,
        note=run.note,
        block_hash=block.block_hash or None,
        ordinal=block.ordinal,
        first_line=f"preview of {item.name}"[:80] if item.adapter else block.first_line,
        fingerprint=outcome.fingerprint,
        sheet=bool(item.adapter),
        stands_for=item.adapter if item.stands else "",
        named=item.named and item.stands,
        created=run.created,
    )
    if isinstance(outcome, Refusal):
        return _refused(row, outcome.messages, run.created)
    spec = with_seeds(outcome, lambda: draw(outcome.count))
    row.spec = msgspec.json.encode(spec).decode()
    row.remarks = json.dumps(list(outcome.warnings), ensure_ascii=False)
    row.setup = sha(msgspec.json.encode(spec.base)) + sha(msgspec.json.encode(grouping.stack_of(spec)))
    row.alike = sha(msgspec.json.encode(grouping.drawing_of(spec)))
    row.count = len(spec.seeds)
    return row


def _refused(row: JobRow, messages: Sequence[str], now: float) -> JobRow:
    row.state = "failed"
    lines = trainingwords.failure_lines(messages) if row.kind == "train" else words.failure_lines(messages)
    row.answer = json.dumps(lines, ensure_ascii=False)
    row.finished = now
    return row


def adopt_pictures(job: JobRow, found: Sequence[ImageRow], cards: Mapping[str, str] | None = None) -> bool:
    """A job that was lost after its pictures were published: they are its answer, nothing is drawn again.

    `cards`: adapter name -> its card, as in `words.Made`. Returns whether the job is answered so.
    """
    if job.state != "queued" or not job.spec or job.kind == "train":
        return False
    spec = msgspec.json.decode(job.spec, type=GenerationSpec)
    if len(found) != len(spec.seeds) or any(image.fingerprint != job.fingerprint for image in found):
        return False
    spec = replace(spec, seeds=tuple(image.seed for image in found))
    paths = tuple(image.path for image in found)
    made = words.Made(spec, paths, None, tuple(json.loads(job.remarks)), cards)
    lines = words.made_lines(made, sheet=job.sheet)
    job.spec = msgspec.json.encode(spec).decode()
    job.state, job.finished = "done", job.created
    job.answer = json.dumps(lines, ensure_ascii=False)
    job.pictures = json.dumps(paths, ensure_ascii=False)
    return True


def job_id(run_id: str, block_hash: str, ordinal: int) -> str:
    """The id of a block's job in a run: 8 hex digits that follow from both, so that a lost index finds its answers."""
    text = f"{run_id}/{block_hash}/{ordinal}"
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def id_of(run_id: str, item: Looked) -> str:
    """The id that this block's job has in a run; a preview has one for each adapter."""
    key = f"{item.block.block_hash}/{item.adapter}" if item.adapter else item.block.block_hash
    return job_id(run_id, key, item.block.ordinal)


_PLACE = "block "


def place_of(item: Looked) -> str:
    """A block by its text, whatever it comes to. Never equal to a fingerprint."""
    return f"{_PLACE}{item.block.block_hash} {item.block.ordinal}"


def is_place(text: str) -> bool:
    """Whether a block is known by its text, and not what it asks for by a fingerprint."""
    return text.startswith(_PLACE)


def edge(data: bytes) -> str:
    """What a tick is part of: the user's properties as they stand. The same properties are the same tick."""
    front = parse_note(data).frontmatter
    if front is None:
        return ""
    if front.problem:
        return sha(data[front.start : front.end])
    theirs = {key: value for key, value in front.properties.items() if not key.casefold().startswith("lv_")}
    return sha(repr(sorted(theirs.items())).encode())


def sha(data: bytes) -> str:
    """16 hex digits that tell whether bytes are the same."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()
