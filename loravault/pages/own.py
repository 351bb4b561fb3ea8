"""A page of ours carries the checksum of its own text. One that does not match is the user's and is left alone."""

from __future__ import annotations

import hashlib
import re

_SUM_LINE = re.compile(rb"^lv_sum: ([0-9a-f]{16})\r?\n", re.MULTILINE)
_MARK = "lv_sum: "


def seal(text: str) -> bytes:
    """The page's bytes. `text` begins with frontmatter; the sum becomes its last property."""
    head, separator, rest = text.partition("\n---\n")
    if not separator or not text.startswith("---\n"):
        raise ValueError("a page of ours begins with frontmatter")
    return f"{head}\n{_MARK}{_sum(text)}{separator}{rest}".encode()


def is_sealed(data: bytes) -> bool:
    """Whether the page carries a checksum, be it one that matches or not."""
    return _SUM_LINE.search(data[:65536]) is not None


def is_ours(data: bytes) -> bool:
    """Whether the page is as we wrote it. Line ends may have been changed by a sync tool."""
    match = _SUM_LINE.search(data[:65536])
    if match is None:
        return False
    body = data[: match.start()] + data[match.end() :]
    try:
        text = body.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return False
    return _sum(text) == match.group(1).decode()


def _sum(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=8).hexdigest()
