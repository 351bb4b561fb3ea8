"""The native galleries: `.base` files of Obsidian Bases (1.10 and later). Pure.

Obsidian writes such a file anew when a view is changed in its window, and neither merges it nor keeps versions of it.
So ours begin with a comment that holds their checksum; a file without a matching one is the user's, and stays.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from loravault.pages.templates import Templates

#: What there is, in our folder.
NAMES = ("LoRAs.base", "Requests.base", "Images.base")

_MARK = re.compile(rb"# loravault ([0-9a-f]{16})(?:[ \t][^\r\n]*)?\r?\n")
_TEMPLATES = Templates()
_WORDS = "Made by loravault. Once you change it, it is yours and stays as it is; delete it to get the newest one."


def render(name: str, folder: str, templates: Path, *, in_folder: bool = True) -> bytes:
    """One of `NAMES`, sealed. `folder`: ours. `in_folder`: pictures are in it, not among the vault's attachments."""
    text = _TEMPLATES.get(templates, f"{name}.j2").render(folder=_quoted(folder), in_folder=in_folder)
    return seal(text)


def seal(text: str) -> bytes:
    """The file's bytes: a comment with the checksum, then the text."""
    return f"# loravault {_sum(text)} {_WORDS}\n{text}".encode()


def is_ours(data: bytes) -> bool:
    """Whether the file is as we (or another version of us) wrote it. Line ends may have been changed by a sync tool."""
    match = _MARK.match(data[:1024])
    if match is None:
        return False
    try:
        text = data[match.end() :].decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return False
    return _sum(text) == match.group(1).decode()


def _sum(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=8).hexdigest()


def _quoted(text: str) -> str:
    """A text inside a string of Bases, which stands in single quotes of YAML."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("'", "''")
