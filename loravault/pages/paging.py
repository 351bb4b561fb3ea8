"""Where a gallery is cut into pages: the cuts are decided by what the entries are, not by how many stand before them.

An entry that comes or goes must not shift all pages behind it: each of them would be written, synced and reloaded. So
every entry has a mark, a hash of its id, and the next page begins at the entry with the smallest mark among those that
may begin it (page sizes stay within bounds). The same entry wins wherever the window around it begins, so behind a
change the cuts fall into their old places within a page or two. A page is named after the mark of its first entry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

#: Sizes of a catalogue page.
LEAST, MOST = 20, 60
#: Sizes of a piece of a stream of pictures. Its first page holds the newest pieces that fit into `MOST`.
LEAST_PIECE, MOST_PIECE = 15, 35


def mark(ident: str) -> str:
    """The mark of an entry: 8 lower-case hex digits."""
    return hashlib.blake2b(ident.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


def cuts(idents: Sequence[str], least: int = LEAST, most: int = MOST) -> list[slice]:
    """Consecutive pages of `least` to `most` entries; the last one may be shorter. No entries, no pages."""
    marks = [mark(ident) for ident in idents]
    pages: list[slice] = []
    start = 0
    while len(marks) - start > most:
        window = range(start + least, start + most + 1)
        following = min(window, key=lambda at: (marks[at], idents[at]))
        pages.append(slice(start, following))
        start = following
    if start < len(marks):
        pages.append(slice(start, len(marks)))
    return pages


def stream_cuts(idents: Sequence[str]) -> list[slice]:
    """Pages of a stream that grows at its end, oldest page first: old pages stay as they are while it grows.

    The last page (the one that is seen first) takes as many of the newest pieces as fit, so that it never shows just
    one picture because a new piece has begun.
    """
    pages = cuts(idents, LEAST_PIECE, MOST_PIECE)
    while len(pages) > 1 and pages[-1].stop - pages[-2].start <= MOST:
        pages[-2:] = [slice(pages[-2].start, pages[-1].stop)]
    return pages
