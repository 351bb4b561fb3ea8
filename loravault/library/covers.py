"""Which picture stands for an adapter, and what its cover is called. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loravault.library.decode import maker_version
from loravault.library.entry import Entry

_NAME = re.compile(r"lv-cover-([0-9a-f]{16})-[0-9a-f]{8}\.webp")


@dataclass(frozen=True)
class Rendered:
    """A picture that was made to stand for an adapter."""

    #: Vault-relative.
    path: str
    #: The adapter was named for it, so that it goes before the pictures beside its file.
    named: bool = False


@dataclass(frozen=True)
class Source:
    """A picture that a cover can be made from."""

    #: `beside` the file, `embedded` in its metadata, or `made` here.
    kind: str
    #: Path inside the root, key of the metadata, or vault-relative path.
    where: str

    @property
    def shown(self) -> str:
        """As people know it."""
        return (
            f"the picture in its metadata ({self.where})" if self.kind == "embedded" else self.where.rpartition("/")[2]
        )


@dataclass(frozen=True)
class Seen:
    """A source with what tells one state of its file from another."""

    source: Source
    size: int
    mtime_ns: int


def sources(entry: Entry, rendered: Rendered | None) -> tuple[Source, ...]:
    """The pictures that can stand for an adapter, the preferred first: empty if it has none."""
    stills = [*dict.fromkeys((*(entry.facts.get("stills") or ()), *([entry.preview] if entry.preview else ())))]
    found = [Source("beside", rel) for rel in stills]
    if key := entry.facts.get("embedded_preview"):
        found.append(Source("embedded", str(key)))
    if rendered is not None:
        found.insert(0 if rendered.named else len(found), Source("made", rendered.path))
    return tuple(found)


def is_blurred(entry: Entry, level: int) -> bool:
    """Whether its pictures are above what is shown. Unknown is shown."""
    return entry.nsfw > level


def source_key(seen: Iterable[Seen], *, blur: bool) -> str:
    """16 hex digits that change when another picture is preferred, one changes, or covers are made in another way.

    Of names, sizes and times, not of places: an adapter that moves with its sidecars keeps its cover.
    """
    lines = [f"{one.source.kind}:{one.source.where.rpartition('/')[2]}:{one.size}:{one.mtime_ns}" for one in seen]
    text = "\n".join([maker_version(), str(blur), *lines])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def cover_name(weight_id: str, digest: str) -> str:
    """`lv-cover-<16 hex of the weight id>-<8 hex of the picture>.webp`: another picture has another name."""
    return f"lv-cover-{weight_id.removeprefix('w1-')}-{digest}.webp"


def covered_by(name: str) -> str | None:
    """The weight id of the adapter whose cover a file of this name is; None if it is none of ours."""
    match = _NAME.fullmatch(name.rpartition("/")[2])
    return f"w1-{match[1]}" if match else None


def in_words(problems: Sequence[tuple[Source, str]]) -> str | None:
    """What was wrong with pictures that were tried; None if nothing was."""
    return "; ".join(f"{source.shown}: {problem}" for source, problem in problems) or None
