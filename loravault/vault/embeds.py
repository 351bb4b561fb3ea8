"""The pictures that a note embeds, in order, each with the text under it.

    ![[cat1.jpg]]                          - ![[cat3.jpg|300]] asleep
    sks cat on a sofa                      > ![](cat%204.jpg)
    seen from the side                     > on a roof

The text beside an embed and the lines directly below it belong to it, up to an empty line, another embed, a heading, a
block or the title of a callout. Embeds on one line share their text. Without any, what stands where a size could stand
is taken (`![[cat.jpg|asleep on a roof]]`). Code, comments and our own results hold no embeds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote

from loravault.vault.note import Note

_WALL = b"\x01"
_BLANK = re.compile(rb"[^\r\n]")
_COMMENT = re.compile(rb"%%.*?%%|<!--.*?-->", re.DOTALL)
_EMBED = re.compile(
    r"!\[\[(?P<wiki>[^\[\]\r\n]+?)\]\]|"
    r"!\[(?P<alt>[^\[\]\r\n]*)\]\((?:<(?P<angle>[^<>\r\n]*)>|(?P<dest>(?:[^()\s\r\n]|\([^()\s\r\n]*\))*))"
    r"(?:[ \t]+(?:\"[^\"\r\n]*\"|'[^'\r\n]*'))?[ \t]*\)"
)
_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
_PREFIX = re.compile(
    r"(?:[ \t]*(?:>|[-*+](?=[ \t]|\Z)|\d{1,9}[.)](?=[ \t]|\Z))(?:[ \t]*\[[ xX/-]\](?=[ \t]))?|[ \t]+)*"
)
_LIST = re.compile(r"[-*+]|\d{1,9}[.)]")
_HEADING = re.compile(r"#{1,6}(?:[ \t]|\Z)")
_RULE = re.compile(r"(?:(?:\*[ \t]*){3,}|(?:_[ \t]*){3,}|(?:-[ \t]*){3,})\Z")
_CALLOUT = re.compile(r"\[![^\]]+\]")
_SIZE = re.compile(r"\d+(?:[x×]\d+)?\Z")
_WIKI_TEXT = re.compile(r"\[\[(?:[^\[\]|\r\n]*\|)?([^\[\]|\r\n]*)\]\]")
_LINK_TEXT = re.compile(r"\[([^\[\]\r\n]*)\]\([^()\r\n]*\)")
_BLOCK_ID = re.compile(r"[ \t]\^[A-Za-z0-9-]+[ \t]*\Z")
_EXTERNAL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


@dataclass
class PictureEmbed:
    """One embedded file."""

    #: The path as a link has it, percent signs decoded; an address if it is external.
    target: str
    #: The text that belongs to it, on one line; None if there is none.
    caption: str | None = None
    #: It points to another place than the vault (`https:`, `data:`, …).
    external: bool = False
    _lines: list[str] = field(default_factory=list, repr=False)


def picture_embeds(note: Note) -> list[PictureEmbed]:
    """Every embed of the note with its caption, in order; notes and other files among them are not told apart here."""
    found: list[PictureEmbed] = []
    group: list[PictureEmbed] = []
    depth = 0
    for line in _lines(note):
        prefix = _PREFIX.match(line)
        head = prefix.group() if prefix else ""
        text = line[len(head) :].rstrip()
        embeds, rest = _taken(text)
        if embeds:
            group, depth = embeds, len(head.expandtabs(4))
            found += embeds
            if not text.startswith("|") and rest:
                _add(group, rest)
        elif not text or _is_boundary(text) or (_LIST.search(head) and len(head.expandtabs(4)) <= depth):
            group = []
        else:
            _add(group, text)
    for embed in found:
        embed.caption = clean_caption(embed._lines) or embed.caption
    return found


def clean_caption(lines: list[str]) -> str | None:
    """The words of a caption on one line, without Markdown that is not for reading."""
    words = []
    for line in lines:
        text = _BLOCK_ID.sub("", line).rstrip("\\")
        text = _WIKI_TEXT.sub(r"\1", text)
        text = _LINK_TEXT.sub(r"\1", text)
        words.append(re.sub(r"<br\s*/?>", " ", text.replace("**", "").replace("==", "").replace("`", "")))
    return " ".join(" ".join(words).split()) or None


def _add(group: list[PictureEmbed], text: str) -> None:
    for embed in group:
        embed._lines.append(text)


def _lines(note: Note) -> Iterator[str]:
    """The body's lines; what holds no embed of the user's is a wall, comments are blank."""
    if note.text_problem:
        return
    body = bytearray(note.data)
    walls = [(fence.start, fence.end) for fence in note.fences]
    walls += [(region.start, region.end) for region in note.regions]
    for start, end in walls:
        body[start:end] = _BLANK.sub(_WALL, bytes(body[start:end]))
    text = bytes(body[note.body_start :])
    text = _COMMENT.sub(lambda found: _BLANK.sub(b" ", found.group()), text)
    yield from re.split(r"\r\n|\r|\n", text.decode("utf-8", "replace"))


def _is_boundary(text: str) -> bool:
    walled = _WALL.decode() in text
    return walled or bool(_HEADING.match(text) or _RULE.match(text) or _CALLOUT.match(text)) or text.startswith("|")


def _taken(text: str) -> tuple[list[PictureEmbed], str]:
    """The embeds of a line, and what is left of it."""
    masked = _CODE.sub(lambda found: "\x02" * len(found.group()), text)
    embeds, rest, at = [], [], 0
    for found in _EMBED.finditer(masked):
        embed = _embed(found)
        rest.append(text[at : found.start()])
        at = found.end()
        if embed is not None:
            embeds.append(embed)
    rest.append(text[at:])
    return embeds, " ".join("".join(rest).split())


def _embed(found: re.Match[str]) -> PictureEmbed | None:
    if found["wiki"] is not None:
        path, *told = found["wiki"].replace("\\|", "|").split("|")
        target = path.partition("#")[0].strip()
        return PictureEmbed(target, _told(told)) if target else None
    dest = found["angle"] if found["angle"] is not None else found["dest"] or ""
    told = (found["alt"] or "").replace("\\|", "|").split("|")
    if _EXTERNAL.match(dest):
        return PictureEmbed(dest, _told(told), external=True)
    target = unquote(dest).partition("#")[0].strip()
    return PictureEmbed(target, _told(told)) if target else None


def _told(parts: list[str]) -> str | None:
    """What is said where a size may stand, unless it is one."""
    words = [part.strip() for part in parts if part.strip() and not _SIZE.match(part.strip())]
    return " ".join(words) or None
