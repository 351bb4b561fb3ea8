"""Names of files we create: legal on every platform, linkable, unmistakable in a vault."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, MutableMapping
from datetime import datetime

#: Bytes of a stem: with ` (LoRA 99)`, ` pictures`, `.md` and a temp's dot it stays below the 255 of every file system.
STEM_BYTES = 180
FOLDER_BYTES = 100

# What Windows, Obsidian Sync or a wikilink cannot hold. Brackets become round: `[PDXL] style` stays legible.
_ROUND = str.maketrans({"[": "(", "]": ")"})
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f"*/:<>?\\|#^\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffd]+|%{2,}')
#: What most names are: they stay as they are, if they are short and none of Windows' devices.
_PLAIN = re.compile(r"[A-Za-z0-9_(][A-Za-z0-9_().,+'-]*(?: [A-Za-z0-9_().,+'-]+)*(?<!\.)\Z")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?=\.|\Z)", re.IGNORECASE)


def image_stem(when: datetime, job: str) -> str:
    """`lv-<yyyymmdd-hhmmss>-<job>`: unique in the vault because job ids are."""
    return f"lv-{when:%Y%m%d-%H%M%S}-{job.split('@', 1)[0]}"


def safe_stem(text: str, limit: int = STEM_BYTES) -> str:
    """A file or folder name made of any text: NFC, at most `limit` bytes of UTF-8; `unnamed` if nothing is left of it.

    What a file system or a link cannot hold becomes a blank; a device name of Windows gets a `_`, as does a dot in
    front (a hidden file is invisible to Obsidian).
    """
    if len(text) < limit and _PLAIN.match(text) and not _DEVICE.match(text):
        return text
    clean = unicodedata.normalize("NFC", text).translate(_ROUND)
    clean = "".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Co", "Cn", "Zs") else c for c in clean)
    clean = " ".join(_FORBIDDEN.sub(" ", clean).split())
    clean = _cut(clean, limit - 1).strip(" .") if not clean.startswith(".") else "_" + _cut(clean, limit - 1)[1:]
    clean = clean.rstrip(" .")
    if _DEVICE.match(clean):
        clean = f"_{clean}"
    return clean or "unnamed"


def name_key(name: str) -> str:
    """Names that are one name for some file system or for Obsidian have one key: case and composition do not count."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def free_stem(
    wanted: str, is_free: Callable[[str], bool], kind: str = "LoRA", tried: MutableMapping[str, int] | None = None
) -> str:
    """The stem, or with ` (LoRA)`, ` (LoRA 2)`, … behind it: the first that is free.

    `tried`: the number that was found last for a stem. All before it are taken still, and are not asked for again.
    """
    number = 0 if tried is None else tried.get(wanted, 0)
    while not is_free(stem := _numbered(wanted, number, kind)):
        number += 1
    if tried is not None and number:
        tried[wanted] = number
    return stem


def _numbered(wanted: str, number: int, kind: str) -> str:
    return wanted if not number else f"{wanted} ({kind})" if number == 1 else f"{wanted} ({kind} {number})"


def _cut(text: str, limit: int) -> str:
    """At most `limit` bytes, whole characters; no half of an emoji that is joined of several."""
    raw = text.encode()
    if len(raw) <= limit:
        return text
    short = raw[:limit].decode("utf-8", "ignore")
    while short and (unicodedata.combining(text[len(short)]) or "\u200d" in (text[len(short)], short[-1])):
        short = short[:-1]
    return short
