"""Writing answers into a user's note: where each region goes, and the proof that nothing else changed.

A region is inserted behind the end of a line that is not blank (the block's closing line, or the last text of the note)
as: line end, empty line, region. If the next line is text, an empty line is added below as well and the region
remembers that. So taking all intact regions out again gives back the note byte for byte, and that is checked before
any result is handed out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from loravault.vault.inert import inert
from loravault.vault.note import Note, parse_note
from loravault.vault.properties import (
    EditRefused,
    Splice,
    Value,
    apply_splices,
    set_properties,
    set_properties_best,
    strip_properties,
)
from loravault.vault.regions import FAILURE_MARK, PLAN_MARK, RESULT_MARK, Region, job_id, refold, render_region

_EOL_BEFORE = re.compile(rb"(?:\r\n|\r|\n)\Z")
_EOL_AT = re.compile(rb"\r\n|\r|\n")
_QUOTE_LIMIT = 120
#: The properties that are written into requests, except `run`, `cancel` and `auto`, which are the user's as well.
WRITTEN_KEYS = frozenset({"lv_status", "lv_job", "lv_finished", "lv_message", "lv_cover"})
_OUR_KEYS = re.compile(r"(?:lv_.+|run|cancel)\Z", re.IGNORECASE)
#: Kind of an answer → the mark of its title; and the kinds that stand only until a later answer takes their place.
_MARKS = {"result": RESULT_MARK, "failure": FAILURE_MARK, "plan": PLAN_MARK}
_PASSING = ("failure", "plan")


@dataclass(frozen=True)
class Answer:
    """What one job has to say. `lines` are callout lines without `> `, the first is the title with its `[!…]` mark.

    `block_hash` and `ordinal` name the block; without a hash the answer belongs to the note and goes to its end.
    """

    job: str
    block_hash: str | None
    ordinal: int
    kind: str  # 'result' | 'failure' | 'plan'
    lines: tuple[str, ...]
    prompt_first_line: str = ""
    #: It answers the whole note although that has blocks: the answer before it at the end of the note is its elder.
    whole: bool = False


@dataclass(frozen=True)
class Applied:
    """A note with its answers; `unset` has, for every property that could not be set, the reason (half a sentence)."""

    data: bytes
    unset: dict[str, str]


def apply_answers_told(
    data: bytes,
    answers: Sequence[Answer],
    properties: Mapping[str, Value] | None = None,
    *,
    cap: int | None = None,
    linked: Collection[str] | None = None,
) -> Applied:
    """The note with these answers in place and these properties set. Pure; applying it twice changes nothing more.

    Directly after the block, newest first; older intact results are folded; an intact failure is replaced; a region
    that the user edited is never touched; a job whose region is already there is left alone. With a `cap`, intact
    results beyond so many per block are removed, oldest first, unless their block id is linked in this note or is in
    `linked`: the block ids (`lv-…`) that other notes link to. As long as that is unknown (None) nothing is removed.
    Properties that cannot be set keep back neither the answers nor each other. Raises `EditRefused` (then nothing may
    be written) if there are no answers and none of the properties can be set.
    """
    note = parse_note(data)
    if note.text_problem:
        raise EditRefused(f"Nothing was written into the note: {note.text_problem}.")
    new = data
    batch = frozenset(job_id(answer.job) for answer in answers)
    waiting = list(answers)
    while waiting:
        new, waiting = _one_pass(new, waiting, batch)
    if cap is not None and linked is not None:
        new = _trim(new, cap, linked)
    unset: dict[str, str] = {}
    if properties:
        new, unset = set_properties_best(new, properties)
        if not answers and len(unset) == len(properties):
            set_properties(new, properties)  # raises, with the reason in words
    _check(data, new, properties or {})
    return Applied(new, unset)


def strip_ours(data: bytes, is_ours: Callable[[str], bool] | None = None) -> bytes:
    """The note without our intact regions and without the lines of our keys (`lv_*`, `run`, `cancel` by default).

    For comparing: two notes that differ only in what we may change are equal afterwards, byte for byte.
    """
    stripped = strip_properties(data, is_ours or (lambda key: bool(_OUR_KEYS.match(key))))
    note = parse_note(stripped)
    return _without(stripped, [region for region in note.regions if region.intact])


@dataclass(frozen=True)
class _Spot:
    """Where an answer goes: behind the line that ends at `at`. `chain`: earlier answers to the same, newest first."""

    at: int
    chain: tuple[Region, ...]
    fence_index: int | None = None
    gone: bool = False

    @property
    def at_end(self) -> bool:
        """At the end of the note, because it has no block (any more) that something can stand behind."""
        return self.fence_index is None


class _Parsed:
    """A parsed note with what many answers look up in it."""

    def __init__(self, note: Note) -> None:
        self.note = note
        self.fences = {(fence.block_hash, fence.ordinal): fence for fence in note.prompts}
        self.by_job: dict[str, list[Region]] = {}
        self.by_fence: dict[int | None, list[Region]] = {}
        for region in note.regions:
            self.by_job.setdefault(region.job, []).append(region)
            self.by_fence.setdefault(region.fence_index, []).append(region)
        self.intact_end = {region.end: region for region in reversed(note.regions) if region.intact}

    def own_passing(self, job: str) -> Region | None:
        """The intact failure that an earlier try of this job left, or its plan."""
        return next((r for r in self.by_job.get(job, ()) if r.intact and r.kind in _PASSING), None)

    def says(self, job: str, kind: str) -> bool:
        """Whether the answer stands in the note: delivered before a crash, or since then edited.

        A plan is not said (again) beside anything of its job that a person changed, or that is its end.
        """
        own = self.own_passing(job)
        others = [r for r in self.by_job.get(job, ()) if r is not own]
        return bool(others) if kind == "plan" else any(r.kind in ("result", kind) for r in others)

    def spot(self, answer: Answer) -> _Spot:
        """Behind its block; at the end of the note if that is gone or if nothing can stand behind it."""
        note = self.note
        fence = self.fences.get((answer.block_hash or "", answer.ordinal))
        if fence is not None and (note.open_tail is None or fence.outer_end <= note.open_tail):
            at = fence.outer_end
            while note.data[at - 1 : at] in (b"\r", b"\n"):
                at -= 1
            return _Spot(at, tuple(self.by_fence.get(fence.index, ())), fence.index)
        at = _end_of_text(note)
        if answer.block_hash is not None and fence is None:
            return _Spot(at, (), gone=True)
        last = self.note.regions if answer.whole else self.by_fence.get(None, ())
        return _Spot(at, tuple(r for r in last if r.end == at))


def _one_pass(data: bytes, answers: Sequence[Answer], batch: Collection[str]) -> tuple[bytes, list[Answer]]:
    """Apply the answers, in order, that do not touch each other's places; the others wait for a pass of their own.

    The result is that of one answer after the other, but the note is parsed once per pass. Two answers depend on each
    other if they are of one job or of one block or touch one place; what goes to the end of the note depends on
    everything above it.
    """
    parsed = _Parsed(parse_note(data))
    splices: list[Splice] = []
    touched: set[int | str] = set()
    waiting: list[Answer] = []
    for number, answer in enumerate(answers):
        job = job_id(answer.job)
        if job not in touched and parsed.says(job, answer.kind):
            continue
        spot = parsed.spot(answer)
        mine = _splices(parsed, spot, answer, batch)
        own = parsed.own_passing(job)
        alone = spot.at_end and own is None
        if alone and touched:
            waiting += answers[number:]
            break
        chain = f"#{own.fence_index if own else spot.fence_index}"
        places: set[int | str] = {
            job,
            chain,
            spot.at,
            *(splice.start for splice in mine),
            *(splice.end for splice in mine),
        }
        if touched.isdisjoint(places):
            splices += mine
        else:
            waiting.append(answer)
        touched |= places  # also those of one that waits: nothing may get ahead of it there
        if alone:
            waiting += answers[number + 1 :]
            break
    return apply_splices(data, splices), waiting


def _splices(parsed: _Parsed, spot: _Spot, answer: Answer, batch: Collection[str]) -> list[Splice]:
    """What to change for one answer that is not in the note yet."""
    data = parsed.note.data
    job = job_id(answer.job)
    lines = _titled(answer)
    if spot.gone:
        lines = _quoting(lines, answer)
    earlier = parsed.own_passing(job)
    if earlier is not None:
        return [_swap(data, earlier, lines, job)]
    splices = _folds(data, spot.chain) if answer.kind != "failure" else []
    first = spot.chain[0] if spot.chain else None
    if first is not None and first.intact and first.kind in _PASSING and first.job not in batch:
        return [_swap(data, first, lines, job), *splices]
    added = _insertion(parsed, spot.at, lines, job, fold=answer.kind != "failure")
    # The insertion may rewrite the region that stands at this very place, folded or not.
    return [added, *(s for s in splices if s.end <= added.start or s.start >= added.end)]


def _titled(answer: Answer) -> tuple[str, ...]:
    mark = _MARKS.get(answer.kind)
    if mark is None or not answer.lines or not answer.lines[0].startswith(mark):
        raise ValueError(f"a {answer.kind} starts with a {mark} title")
    return tuple(line.rstrip() for line in answer.lines)


def _quoting(lines: tuple[str, ...], answer: Answer) -> tuple[str, ...]:
    if answer.block_hash is None:
        return lines
    quote = inert(answer.prompt_first_line, _QUOTE_LIMIT).lstrip("\u2060")
    gone = f"The block it answers is gone: “{quote}”" if quote else "The block it answers is gone."
    return (lines[0], gone, *lines[1:])


def _end_of_text(note: Note) -> int:
    """The end of the last line that is not blank, before anything unclosed that would swallow what comes after it."""
    data = note.data
    limit = len(data) if note.open_tail is None else note.open_tail
    text_end = len(data[:limit].rstrip(b" \t\r\n"))
    if text_end <= 3 * note.bom:
        raise EditRefused("Nothing was written into the note: there is no text in it to put an answer behind.")
    line_end = _EOL_AT.search(data, text_end)
    return line_end.start() if line_end else len(data)


def _insertion(parsed: _Parsed, at: int, lines: Sequence[str], job: str, *, fold: bool) -> Splice:
    data = parsed.note.data
    eol = _eol_near(data, at) or parsed.note.eol
    above = parsed.intact_end.get(at)
    if above is not None and above.spaced:
        # The empty line that was added below the region above now stands below this one: the mark moves with it.
        folded = refold(above.lines, "-") if fold and above.kind == "result" else above.lines
        moved = render_region(folded, above.job, eol.decode())
        region = render_region(lines, job, eol.decode(), spaced=True)
        return Splice(above.start, at, moved.encode() + eol + eol + region.encode())
    spaced = bool(_line_after(data, at).strip(b" \t"))
    region = render_region(lines, job, eol.decode(), spaced=spaced)
    return Splice(at, at, eol + eol + region.encode() + (eol if spaced else b""))


def _line_after(data: bytes, at: int) -> bytes:
    ending = _EOL_AT.match(data, at)
    if ending is None:
        return b""
    following = _EOL_AT.search(data, ending.end())
    return data[ending.end() : following.start() if following else len(data)]


def _eol_near(data: bytes, at: int) -> bytes | None:
    """The line ending at this place; where the note ends here, the one of the line before."""
    here = _EOL_AT.match(data, at)
    if here:
        return here.group()
    before = _EOL_AT.findall(data[max(0, at - 65536) : at])
    return before[-1] if before else None


def _swap(data: bytes, region: Region, lines: Sequence[str], job: str) -> Splice:
    """Put other lines in place of an intact region, with the line ends it has."""
    eol = _EOL_AT.search(data, region.start, region.end)
    text = render_region(lines, job, eol.group().decode() if eol else "\n", spaced=region.spaced)
    return Splice(region.start, region.end, text.encode())


def _folds(data: bytes, chain: Sequence[Region]) -> list[Splice]:
    """Fold the older results; their block ids, and so the links to them, stay the same."""
    open_results = [r for r in chain if r.intact and r.kind == "result" and not r.folded]
    return [_swap(data, region, refold(region.lines, "-"), region.job) for region in open_results]


def _trim(data: bytes, cap: int, linked: Collection[str]) -> bytes:
    note = parse_note(data)
    surplus: list[Region] = []
    for fence in note.fences:
        chain = [r for r in note.regions if r.fence_index == fence.index]
        intact = [r for r in chain if r.intact and r.kind == "result"]
        # One that carries the mark of an added empty line stays: the region above it would lose its distance.
        surplus += [r for r in intact[max(cap, 1) :] if not r.spaced and not _is_linked(data, r, linked)]
    return _without(data, surplus)


def _is_linked(data: bytes, region: Region, linked: Collection[str]) -> bool:
    block_id = f"lv-{region.job}-{region.checksum}"
    return block_id in linked or any(f"#^{block_id}{end}".encode() in data for end in "]|)")


def _without(data: bytes, regions: Sequence[Region]) -> bytes:
    """Take regions out: the exact inverse of `_insertion` as far as the surroundings are still as they were.

    From the top down, because the newest of a block, which was inserted last, stands first.
    """
    kept, at = bytearray(), 0
    for region in regions:
        kept += data[at : region.start]
        short = _EOL_BEFORE.sub(b"", _EOL_BEFORE.sub(b"", bytes(kept[-4:])))
        if len(_EOL_AT.findall(bytes(kept[-4:])[len(short) :])) == 2:
            del kept[len(kept) - len(kept[-4:]) + len(short) :]
        ending = _EOL_AT.match(data, region.end) if region.spaced else None
        at = ending.end() if ending else region.end
    return bytes(kept + data[at:])


def _check(old: bytes, new: bytes, properties: Mapping[str, Value]) -> None:
    """Runs before every write: outside our keys and intact regions both are identical, and every code block stands."""
    if old == new:
        return
    ours = {key.casefold() for key in properties}

    def is_ours(key: str) -> bool:
        return key.casefold() in ours

    if strip_ours(old, is_ours) != strip_ours(new, is_ours):
        raise EditRefused("Nothing was written into the note: the change would have touched text that is not ours.")
    before, after = parse_note(old), parse_note(new)
    if [(f.block_hash, f.language) for f in before.fences] != [(f.block_hash, f.language) for f in after.fences]:
        raise EditRefused("Nothing was written into the note: the change would have broken one of its code blocks.")
