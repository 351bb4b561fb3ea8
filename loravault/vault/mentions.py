"""What the files of a vault mention: pictures of ours by their names, and names that may mean an adapter.

For deciding what can be tidied away, so it errs on one side: whatever might be a mention is one. Pictures are looked
for as text in every file that Obsidian or a plugin may embed them from, however the link is written.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

#: Files that can embed a picture: notes, canvases, bases, drawings, and what plugins render.
SUFFIXES = frozenset(
    {".md", ".markdown", ".canvas", ".base", ".excalidraw", ".txt", ".html", ".htm", ".json", ".css", ".csv", ".svg"}
    | {".tex", ".org", ".yaml", ".yml"}
)
_WHOLE = 16 * 1024 * 1024
_PIECE = 4 * 1024 * 1024
_OVERLAP = 512

#: A picture of ours by its name, without its ending.
PICTURE = re.compile(rb"lv-(?:\d{8}-\d{6}|cover)-[0-9a-z][0-9a-z-]*", re.IGNORECASE)
#: An escaped letter, digit or hyphen in a link: `lv%2D2026…`. Editors do not write these; people's scripts may.
_ESCAPED = re.compile(rb"%(?:2[dD]|3[0-9]|[46][1-9a-fA-F]|[57][0-9aA])")
_TAG = re.compile(r"<\s*[a-z]{2,8}\s*:([^:<>\r\n]+)", re.IGNORECASE)
_WIKILINK = re.compile(r"\[\[([^\[\]|#\r\n]+)")
_LINK = re.compile(r"\]\(<?([^)>\r\n]+)")
_OPTION = re.compile(r"^[ \t>]*#\|[^:\r\n]*:([^\r\n]*)", re.MULTILINE)
_LORAS = re.compile(r"^loras[ \t]*:([^\r\n]*(?:\r?\n[ \t]*-[^\r\n]*)*)", re.MULTILINE | re.IGNORECASE)
_HASHES = re.compile(r'Lora hashes:[ \t]*"?([^"\r\n]*)')
_QUOTES = frozenset("\"'")
_WEIGHT = re.compile(r"(?:\s+[-+]?\d*[.,]?\d+)+\Z")


@dataclass(frozen=True)
class Mentions:
    """What a whole vault mentions."""

    #: Names of pictures (lower case, no ending) in any file that is not an intact page of ours.
    embedded: frozenset[str]
    #: The same with our own pages.
    shown: frozenset[str]
    #: Folded name or path -> the files (vault-relative) that name it.
    names: Mapping[str, frozenset[str]]
    #: What could not be read, in words: then nothing can be said about what is not mentioned.
    problems: tuple[str, ...]


def read_mentions(root: Path, is_page: Callable[[bytes], bool]) -> Mentions:
    """Look through a whole vault. `is_page` tells by its bytes whether a file is an intact page of ours."""
    embedded: set[str] = set()
    shown: set[str] = set()
    names: dict[str, set[str]] = defaultdict(set)
    problems: list[str] = []
    for rel, path in _files(root, problems):
        try:
            pictures, text, page = _read(path, is_page)
        except OSError as error:
            problems.append(f"{rel} cannot be read ({error.strerror or error})")
            continue
        shown |= pictures
        if page:
            continue
        embedded |= pictures
        for name in names_in(text):
            names[name].add(rel)
    return Mentions(
        frozenset(embedded),
        frozenset(shown),
        {name: frozenset(rels) for name, rels in names.items()},
        tuple(problems),
    )


def _read(path: Path, is_page: Callable[[bytes], bool]) -> tuple[set[str], str, bool]:
    """Pictures, text (of what is not too large to be a note) and whether it is a page of ours."""
    with path.open("rb") as file:
        data = file.read(_WHOLE)
        pictures = pictures_in(data)
        tail = data
        while len(tail) >= _PIECE and (more := file.read(_PIECE)):
            tail = tail[-_OVERLAP:] + more
            pictures |= pictures_in(tail)
    page = data.startswith((b"---", b"#", b"\xef\xbb\xbf")) and is_page(data)
    return pictures, data.translate(None, b"\0").decode("utf-8", "replace"), page


def pictures_in(data: bytes) -> set[str]:
    """Names of pictures of ours in some bytes, whatever their encoding."""
    clean = data.translate(None, b"\0") if b"\0" in data else data
    found = {match.group().decode("ascii").lower().rstrip("-") for match in PICTURE.finditer(clean)}
    if _ESCAPED.search(clean):  # a link may spell every sign so; what stands there as it is counts all the same
        plain = unquote_to_bytes(clean)
        found |= {match.group().decode("ascii").lower().rstrip("-") for match in PICTURE.finditer(plain)}
    return found


def names_in(text: str) -> set[str]:
    """Everything in a text that may name an adapter: tags, links, `loras`, options of blocks, pasted hashes."""
    found: set[str] = set()
    for pattern in (_TAG, _WIKILINK):
        found.update(match.group(1) for match in pattern.finditer(text))
    for match in _LINK.finditer(text):
        found.update((match.group(1), unquote(match.group(1))))
    for match in _OPTION.finditer(text) if "#|" in text else ():
        found.update(_listed(match.group(1)))
    for match in _LORAS.finditer(text) if "loras" in text.lower() else ():
        for line in match.group(1).splitlines():
            found.update(_listed(line.strip().removeprefix("-")))
    for match in _HASHES.finditer(text) if "Lora hashes" in text else ():
        found.update(part.partition(":")[0] for part in match.group(1).split(","))
    return {name for one in found for spelled in _spellings(one) if (name := folded(spelled))}


def _listed(text: str) -> Iterator[str]:
    """The items of a list on one line, each also without the weight behind it."""
    for part in (text, *text.strip(" \t[]").split(",")):
        for item in _spellings(part):
            yield item
            yield _WEIGHT.sub("", item)


def _spellings(text: str) -> Iterator[str]:
    """What a text may mean: itself (a file may be called `'ink`), and what stands between its quotes."""
    bare = text.strip(" \t")
    yield bare
    if bare[:1] in _QUOTES or bare[-1:] in _QUOTES:
        if len(bare) > 1 and bare[0] == bare[-1]:
            yield bare[1:-1]
        yield bare.strip(" \t\"'")


def folded(name: str) -> str:
    """A name in the one form in which names are compared: no ending, `/`, NFC, no case."""
    text = unicodedata.normalize("NFC", name.strip()).casefold().replace("\\", "/").strip("/")
    return text.removesuffix(".safetensors").removesuffix(".md")


def _files(root: Path, problems: list[str]) -> Iterator[tuple[str, Path]]:
    """Every file that may mention something. Links are followed, each folder once; dot folders are left out."""
    seen: set[tuple[int, int]] = set()
    for at, folders, names in os.walk(root, followlinks=True, onerror=lambda error: _note(error, root, problems)):
        try:
            status = os.stat(at)
        except OSError as error:
            _note(error, root, problems)
            folders.clear()
            continue
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(at, root).replace(os.sep, "/")
        for name in sorted(names):
            rel = name if below == "." else f"{below}/{name}"
            if name.startswith(".") and name.endswith(".icloud"):
                problems.append(f"{rel} is only in iCloud, not on this machine")
            elif os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith("."):
                path = os.path.join(at, name)
                if os.path.isfile(path):
                    yield rel, Path(path)


def _note(error: OSError, root: Path, problems: list[str]) -> None:
    where = os.path.relpath(error.filename or root, root)
    problems.append(f"the folder {where} cannot be read ({error.strerror or error})")
