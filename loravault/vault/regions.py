"""Our result regions inside a user's note: a callout closed by a block id that carries a checksum.

    > [!lora-result]+ 4 images · seed 42–45 · 12.3 s
    > ![[LoraVault/Images/…|256]]

    ^lv-3fa81c20-a1b2c3

The checksum covers the callout's lines joined by LF, without the fold sign of the title: so a region survives a change
of line ends, and folding it changes neither its block id nor the links to it. A region whose checksum does not match
was edited by the user and is theirs. The blank line before the block id holds one blank if, when the region was
inserted, the next line was text and an empty line had to be added below: taking a region out restores every byte.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

RESULT_MARK = "[!lora-result]"
FAILURE_MARK = "[!failure]"
PLAN_MARK = "[!lora-training]"
_ID_LINE = re.compile(rb"(?:\A|(?<=[\r\n]))\^lv-([A-Za-z0-9][A-Za-z0-9-]*)-([0-9a-f]{6})[ \t]*(?=[\r\n]|\Z)")
_TITLE = re.compile(r"\[!(lora-result|failure|lora-training)\]([+-]?)(?= |\Z)")
_KINDS = {"lora-result": "result", "failure": "failure", "lora-training": "plan"}
_JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*\Z")


@dataclass(frozen=True)
class Region:
    """A region we wrote: byte span from the first `>` to the end of the block id (line ending not included).

    `job` is the id without the machine. `intact` is False as soon as a user changed a line of it. `spaced` says that
    we added an empty line below. `kind` is `result`, `failure`, or `plan` (what a training will be).
    `fence_index` is the fence whose results it belongs to, None at the end of the note.
    """

    start: int
    end: int
    job: str
    checksum: str
    intact: bool
    kind: str
    folded: bool
    lines: tuple[str, ...]
    spaced: bool
    fence_index: int | None = None


def checksum(lines: Sequence[str]) -> str:
    """Six hex digits over the callout lines (without `> `), whatever the fold sign of the title is."""
    title = _TITLE.sub(lambda m: f"[!{m.group(1)}]", lines[0], count=1) if lines else ""
    return hashlib.blake2b("\n".join([title, *lines[1:]]).encode(), digest_size=3).hexdigest()


def job_id(job: str) -> str:
    """The part of `<id>@<machine>` that a block id can hold (letters, digits, dashes)."""
    short = job.split("@", 1)[0]
    if not _JOB.match(short):
        raise ValueError(f"a job id may hold letters, digits and dashes only: {job!r}")
    return short


def render_region(lines: Sequence[str], job: str, eol: str = "\n", *, spaced: bool = False) -> str:
    """A region as text, without a line ending at its end. `lines[0]` is the title with its `[!…]` mark."""
    if not lines or not _TITLE.match(lines[0]):
        raise ValueError("a region starts with a `[!lora-result]`, `[!failure]` or `[!lora-training]` title")
    if any("\n" in line or "\r" in line for line in lines):
        raise ValueError("a line of a region holds a line break")
    clean = [line.rstrip() for line in lines]
    callout = [f"> {line}" if line else ">" for line in clean]
    return eol.join([*callout, " " if spaced else "", f"^lv-{job_id(job)}-{checksum(clean)}"])


def refold(lines: Sequence[str], sign: str) -> tuple[str, ...]:
    """The same callout with the fold sign `+`, `-` or none."""
    return (_TITLE.sub(lambda m: f"[!{m.group(1)}]{sign}", lines[0], count=1), *lines[1:])


def scan_regions(data: bytes, body_start: int, opaque: Sequence[tuple[int, int]]) -> list[Region]:
    """All regions of a note in order. `opaque` are spans (the user's own code blocks) that cannot hold one."""
    regions: list[Region] = []
    for found in _ID_LINE.finditer(data, body_start):
        if inside_any(opaque, found.start()):
            continue
        floor = regions[-1].end if regions else body_start
        regions.append(_region_above(data, floor, found))
    return regions


def inside_any(spans: Sequence[tuple[int, int]], at: int) -> bool:
    """Whether an offset lies in one of these spans, which are in order and do not overlap."""
    before = bisect_right(spans, at, key=lambda span: span[0])
    return before > 0 and at < spans[before - 1][1]


def _region_above(data: bytes, floor: int, found: re.Match[bytes]) -> Region:
    job, total = found.group(1).decode(), found.group(2).decode()
    blanks: list[bytes] = []
    at = found.start()
    line_start, line = _line_before(data, at, floor)
    while line is not None and not line.strip(b" \t"):
        blanks.append(line)
        at = line_start
        line_start, line = _line_before(data, at, floor)
    quoted: list[bytes] = []
    while line is not None and line.startswith(b">"):
        quoted.append(line)
        at = line_start
        line_start, line = _line_before(data, at, floor)
    quoted.reverse()
    if not quoted:  # the callout was deleted, its block id was left behind
        return Region(found.start(), found.end(), job, total, False, "result", False, (), False)
    lines = tuple(q[2:].decode() if q.startswith(b"> ") else q[1:].decode() for q in quoted)
    title = _TITLE.match(lines[0])
    ours = all(q == b">" or (q.startswith(b"> ") and q != b"> ") for q in quoted)
    intact = bool(title) and ours and blanks in ([b""], [b" "]) and checksum(lines) == total
    kind = _KINDS[title.group(1)] if title else "result"
    folded = bool(title and title.group(2) == "-")
    end = found.end() if not intact else found.start() + len(found.group(0).rstrip(b" \t"))
    return Region(at, end, job, total, intact, kind, folded, lines, blanks == [b" "])


def _line_before(data: bytes, at: int, floor: int) -> tuple[int, bytes | None]:
    """(start, text) of the line that ends just before offset `at`; None when there is none above `floor`."""
    if at <= floor:
        return at, None
    end = at - 1
    if data[end : end + 1] == b"\n" and end > floor and data[end - 1 : end] == b"\r":
        end -= 1
    start = max(data.rfind(b"\n", floor, end), data.rfind(b"\r", floor, end)) + 1
    start = max(start, floor)
    return start, data[start:end]
