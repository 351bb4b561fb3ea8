"""A note as bytes with spans: its properties, its code blocks and our regions. Nothing is ever normalised.

Offsets are byte offsets into `Note.data`. What cannot be a text note (undecodable, NUL bytes, over 1 MiB, an unresolved
merge conflict) carries a `text_problem` and nothing else is parsed.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from loravault.vault.fences import RawFence, scan_fences
from loravault.vault.regions import Region, inside_any, scan_regions
from loravault.vault.yamlread import YamlProblem, read_mapping

MAX_NOTE_BYTES = 1024 * 1024
BOM = b"\xef\xbb\xbf"
PROMPT_LANGUAGE = "prompt"
_PRECHECK_BYTES = 64 * 1024
#: The word where a key begins, also where a slip makes it none (`loravault：generate`): that is said in the note.
_KIND_KEY = re.compile(rb"(?:^|[\r{,?])[ \t\"'`*]*loravault(?!/)", re.MULTILINE)
_OPENING = re.compile(rb"---[ \t]*(\r\n|\r|\n)")
_CLOSING = re.compile(rb"(?:\A|(?<=[\r\n]))---[ \t]*(?=[\r\n]|\Z)")
_EOL = re.compile(rb"\r\n|\r|\n")
_CONFLICT = re.compile(
    rb"(?:\A|[\r\n])<{7}[ \t][^\r\n]*[\r\n](?:.*?[\r\n])??={7}[ \t]*[\r\n](?:.*?[\r\n])??>{7}(?:[ \t]|[\r\n]|\Z)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Frontmatter:
    """The block of properties. `start`…`end` is from the first `---` to the last (blanks after it not included).

    `yaml_start`…`yaml_end` are the lines between; `body_start` is the first byte after the closing line.
    `problem` says in words why `properties` is empty although there is a block.
    """

    start: int
    end: int
    yaml_start: int
    yaml_end: int
    body_start: int
    properties: dict[str, Any]
    problem: str | None

    def get(self, name: str, default: Any = None) -> Any:
        """A property by name; as in Obsidian, upper and lower case are the same."""
        if name in self.properties:
            return self.properties[name]
        wanted = name.casefold()
        return next((v for k, v in self.properties.items() if k.casefold() == wanted), default)


@dataclass(frozen=True)
class Fence:
    """A fenced code block of the user. `start` is the first byte of its opening line, `end` the end of its closing line
    without the line ending; `outer_end` is the end of the list or quote around it (`end` where there is none).

    `body` has LF line ends, no fence indentation and no final line break. `ordinal` counts blocks of the same language
    with the same hash from 0.
    """

    index: int
    language: str
    info: str
    start: int
    end: int
    body_start: int
    body_end: int
    outer_end: int
    body: str
    closed: bool
    container: str
    block_hash: str
    ordinal: int


@dataclass(frozen=True)
class Note:
    """A parsed note. `open_tail` is where an unclosed block starts that swallows the rest of the note, if any."""

    data: bytes
    bom: bool
    eol: bytes
    frontmatter: Frontmatter | None
    fences: tuple[Fence, ...]
    regions: tuple[Region, ...]
    open_tail: int | None
    text_problem: str | None

    @property
    def body_start(self) -> int:
        """Where the text below the properties starts."""
        return self.frontmatter.body_start if self.frontmatter else len(BOM) * self.bom

    @cached_property
    def text(self) -> str:
        """The whole note as text (without BOM); empty if it is not text."""
        return "" if self.text_problem else self.data[len(BOM) * self.bom :].decode()

    @property
    def prompts(self) -> tuple[Fence, ...]:
        """The prompt blocks."""
        return tuple(f for f in self.fences if f.language == PROMPT_LANGUAGE)


def might_be_request(data: bytes) -> bool:
    """A cheap look before parsing: is there a block of properties, and may one of them be called `loravault`?

    Parsing takes a hundred times as long, and all our pages and each note that shows a picture of ours have the word.
    """
    head = data[:_PRECHECK_BYTES]
    if not head.startswith((b"---", BOM + b"---")):
        return False
    return _KIND_KEY.search(head.lower()) is not None


def block_hash(body: str) -> str:
    """16 hex digits that identify a block by its text; line ends, trailing blanks, final empty lines do not count."""
    lines = [line.rstrip() for line in body.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    return hashlib.blake2b("\n".join(lines).rstrip("\n").encode(), digest_size=8).hexdigest()


def parse_note(data: bytes) -> Note:
    """Parse the bytes of a note. Never raises for content; problems are words in the result."""
    bom = data.startswith(BOM)
    eol = _EOL.search(data)
    blank = Note(data, bom, eol.group() if eol else b"\n", None, (), (), None, None)
    problem = _text_problem(data)
    if problem:
        return replace(blank, text_problem=problem)
    front = _frontmatter(data, len(BOM) * bom)
    body_start = front.body_start if front else len(BOM) * bom
    scan = scan_fences(data, body_start)
    opaque = [(f.start, f.end) for f in scan.fences if f.container != "quote"]
    regions = scan_regions(data, body_start, opaque) if b"^lv-" in data else []
    spans = [(region.start, region.end) for region in regions]
    own = [f for f in scan.fences if not inside_any(spans, f.start)]
    fences = _fences(own)
    return replace(
        blank, frontmatter=front, fences=fences, regions=_attach(data, fences, regions), open_tail=scan.open_tail
    )


def _text_problem(data: bytes) -> str | None:
    if len(data) > MAX_NOTE_BYTES:
        return "the note is larger than 1 MiB"
    if b"\0" in data:
        return "the note holds NUL bytes, so it is not a text file"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"the note is not valid UTF-8 (byte {error.start})"
    if b"<<<<<<<" in data and _CONFLICT.search(data):
        return "the note holds an unresolved merge conflict (<<<<<<< … >>>>>>>)"
    return None


def _frontmatter(data: bytes, start: int) -> Frontmatter | None:
    opening = _OPENING.match(data, start)
    if opening is None:
        return None
    closing = _CLOSING.search(data, opening.end())
    if closing is None:
        return None
    eol = _EOL.match(data, closing.end())
    properties: dict[str, Any] = {}
    problem = None
    try:
        properties = read_mapping(data[opening.end() : closing.start()].decode())
    except YamlProblem as error:
        where = f" (line {error.line + 1})" if error.line else ""
        problem = f"The properties cannot be read: {error.reason}{where}."
    return Frontmatter(
        start=start,
        end=closing.start() + 3,
        yaml_start=opening.end(),
        yaml_end=closing.start(),
        body_start=eol.end() if eol else len(data),
        properties=properties,
        problem=problem,
    )


def _fences(raw: Sequence[RawFence]) -> tuple[Fence, ...]:
    seen: dict[tuple[str, str], int] = {}
    fences = []
    for index, found in enumerate(raw):
        body = b"\n".join(found.lines).decode()
        info = found.info.decode()
        language = info.split(None, 1)[0].lower() if info else ""
        digest = block_hash(body)
        ordinal = seen.get((language, digest), 0)
        seen[language, digest] = ordinal + 1
        fences.append(
            Fence(index, language, info, found.start, found.end, found.body_start, found.body_end, found.outer_end,
                  body, found.closed, found.container, digest, ordinal)
        )  # fmt: skip
    return tuple(fences)


def _attach(data: bytes, fences: Sequence[Fence], regions: Sequence[Region]) -> tuple[Region, ...]:
    """Give each region the fence it follows, with nothing but blank lines and other regions between."""
    ends = {fence.outer_end: fence.index for fence in fences if fence.closed or fence.container}
    ordered = sorted(ends)
    attached: list[Region] = []
    for region in regions:
        text_end = region.start
        while text_end and data[text_end - 1] in b" \t\r\n":
            text_end -= 1
        at = bisect_left(ordered, text_end)  # a later one has this one's closing line before it
        following = ordered[at] if at < len(ordered) else None
        owner = None
        if following is not None and not data[text_end:following].strip():
            owner = ends[following]
        elif attached and text_end <= attached[-1].end:
            owner = attached[-1].fence_index
        attached.append(replace(region, fence_index=owner))
    return tuple(attached)
